"""From an experiment's file to a closed run, whoever asks: a command, Python, a job on a cluster."""
