"""TODO layout."""

from __future__ import annotations

PACK_FILE = "pack.json"  # that its trials are in packs, what was measured, and what is promised of them
BASE = "base"  # the id under which the untuned base is evaluated
LINEAGE = "lineage.json"  # in a trial's directory: what a person has done to it, and whose clone it is
POINT = "point.json"  # in a trial's directory: the point as it was proposed, ratios unresolved
LEAVE = "leave.json"  # in a trial's directory: that it should leave its machine, and why
