"""What a model answers, beside what it should."""
