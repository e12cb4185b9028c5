"""What clients see: HTTP, keys, names, OpenAI's shapes."""
