"""Every way of tuning with few parameters: made, kept, read back, computed into the base."""
