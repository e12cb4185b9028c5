"""Packs: trials trained together in one process over one frozen base. `engine` is the way in.

There is no Ray here: `ftlib/sweeps/pack_host.py` is the actor that holds a pack.
"""
