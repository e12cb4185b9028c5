"""Files whoever they belong to: whole or not there, locked, tried again, computed once, at a URL."""
