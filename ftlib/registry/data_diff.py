"""What two versions of data have and have not in common, as sentences."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator

from ftlib.registry.data_versions import DATA, SIDES, DataVersion

COUNTED = ("dropped", "changed")


def difference(old: DataVersion, new: DataVersion) -> Iterator[str]:
    """Of each side, the rows that are added, removed and common, by their content; rows that went to another side; then
    the steps whose counts differ, and whether the recipe does."""
    if old.hash == new.hash:
        yield f"{DATA}{old.id} and {DATA}{new.id} have the same rows."
    before, now = ({side: _contents(version, side) for side in SIDES} for version in (old, new))
    for side in SIDES:
        if before[side] or now[side]:
            both = (before[side] & now[side]).total()
            added, removed = now[side].total() - both, before[side].total() - both
            yield f"{side}: {added:,} rows added, {removed:,} removed, {both:,} in both"
    moved = (before["test"] & (now["train"] - before["train"])).total()
    if moved:
        yield f"warning: {moved:,} rows of the test of {old.id} are trained on in {new.id}"
    yield from _steps(old, new)
    if old.manifest.get("recipe") != new.manifest.get("recipe"):
        yield "the recipes differ: 'ftlib data show' prints where each lies"


def _contents(version: DataVersion, side: str) -> Counter[bytes]:
    """A hash of each row of a side, without what says where it comes from."""
    file = version.file(side)
    if file is None:
        return Counter()
    with file.open(encoding="utf-8") as lines:
        return Counter(_content(line) for line in lines)


def _content(line: str) -> bytes:
    fields = {name: value for name, value in json.loads(line).items() if not name.startswith("_")}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest()[:16]


def _steps(old: DataVersion, new: DataVersion) -> Iterator[str]:
    before, now = old.manifest.get("counts", {}), new.manifest.get("counts", {})
    for key in dict.fromkeys([*before, *now]):
        if key not in before or key not in now:
            yield f"{key}: only in {new.id if key in now else old.id}"
            continue
        told = [
            f"{what} {reason} {before[key][what].get(reason, 0):,} -> {now[key][what].get(reason, 0):,}"
            for what in COUNTED
            for reason in sorted({*before[key][what], *now[key][what]})
            if before[key][what].get(reason, 0) != now[key][what].get(reason, 0)
        ]
        if told:
            yield f"{key}: {', '.join(told)}"
