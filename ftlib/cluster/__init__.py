"""A Ray cluster from outside: its file, its jobs, what travels to it, and what must stay secret."""
