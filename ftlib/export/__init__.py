"""Ways out: a winner written in another format, run by the program that will run it, and let through or refused."""
