"""Base models and adapters: found, loaded, put together, merged, put side by side."""
