"""What a person is shown of a run: the report at its end, and the live page."""
