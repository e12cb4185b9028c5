"""Winners by name and version: where they lie, how they get there, who may ask for them, and how they fare."""
