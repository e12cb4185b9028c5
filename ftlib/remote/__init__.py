"""A cluster from outside: its file, its jobs, and what travels there."""
