"""From an experiment's file to a closed run, whoever asks: a command, Python, or a job on a cluster.

load        the experiment in a file, with what it names found
prepare     its data, with what is wrong with the method, the base or the adapter said first
execute     a new run, or one that goes on
outcome     what a run came to, told from its directory alone
listener    who hears what happens meanwhile; `terminal_listener` prints it
promote     a trial becomes a version, and a person reads what was checked
process     a process that does one of these, and its exit status
draft, findings    an experiment drawn up from data (`ftlib init`), and what is odd about one (`ftlib check`)

Only `terminal`, `terminal_listener`, `promote`, `process` and `quiet` know that there is a terminal.
"""
