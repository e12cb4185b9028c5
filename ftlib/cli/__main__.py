"""`python -m ftlib.cli`."""

from ftlib.cli import program

program()
