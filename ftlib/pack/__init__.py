"""Packs: trials trained together in one process over one frozen base. `engine` is the way in; `host` is its Ray
actor."""
