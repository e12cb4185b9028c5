"""The run directory: what is in it, who is allowed to believe it, and where else it is kept."""
