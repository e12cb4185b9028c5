"""Labels as rows write them: one class by what it prints as, mapped and spelled as `data.labels` says."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ftlib.config.data import Labels
from ftlib.data.fields import printed
from ftlib.errors import DataError, nearest

SPELLED: dict[str, Callable[[str], str]] = {"lower": str.lower, "upper": str.upper, "keep": str}
LISTED = 8
DASH = re.compile(r"(?<=[^\W\d_])[-_](?=[^\W\d_])")  # between two letters
WHOLE = re.compile(r"^([-+]?\d+)\.0*$")


def relabelled(fields: dict[str, Any], labels: Labels) -> dict[str, Any]:
    """The fields of a row with its label as `data.labels` wants it: mapped as written, or as spelled."""
    key = next((key for key in ("label", "kto_tag") if fields.get(key) is not None), None)
    if key is None or not _is_label(fields[key]):
        return fields
    label = printed(fields[key]).strip()
    spelled = SPELLED[labels.case](label)
    return {**fields, key: labels.map.get(label, labels.map.get(spelled, spelled))}


def check_map(labels: Labels, found: Iterable[str]) -> None:
    """Raises DataError for a label in `data.labels.map` that no row has."""
    if not labels.map:
        return
    there = set(found)
    there |= {SPELLED[labels.case](label) for label in there}
    for label in labels.map:
        if label not in there:
            known = ", ".join(sorted(there)[:LISTED])
            raise DataError(
                f"data.labels.map: no row has the label '{label}': there are {known}.{nearest(label, there)}"
            )


def written_labels(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The labels of rows as they are written, each once."""
    found = (row.get("label", row.get("kto_tag")) for row in rows)
    return list(dict.fromkeys(printed(label).strip() for label in found if _is_label(label)))


def _is_label(value: Any) -> bool:
    """Texts and whole numbers name a class; of 0.5 and NaN the row's format says that they do not."""
    return isinstance(value, str | int) or (isinstance(value, float) and value.is_integer())


def alike(counts: Counter[str]) -> str | None:
    """A sentence on labels that differ in case or space (or, of numbers, in `.0`) only, and how to map them."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        groups[folded(label)].append(label)
    same = [group for group in groups.values() if len(group) > 1]
    if not same:
        return None
    said = "; ".join(", ".join(f"'{label}' ({counts[label]:,})" for label in group) for group in same)
    by_case = all(len({label.lower() for label in group}) == 1 for group in same)
    pairs = [(label, max(group, key=lambda spelling: counts[spelling])) for group in same for label in group]
    mapped = ", ".join(f"'{label}': '{most}'" for label, most in pairs if label != most)
    how = "data.labels: {case: lower} makes one class of them" + f", and so does {{map: {{{mapped}}}}}" * (
        len(pairs) < 9
    )
    if not by_case:
        how = f"data.labels: {{map: {{{mapped}}}}} makes one class of them"
    return f"labels that differ in case or space only: {said}; {how}"


def mapping_to(label: str, labels: Iterable[str]) -> str:
    """How to map a label to the one of `labels` that differs from it in case or space only; '' where there is none."""
    twin = next((other for other in labels if folded(other) == folded(label)), None)
    if twin is None:
        return ""
    return f" data.labels: {{map: {{'{label}': '{twin}'}}}} makes one class of it and '{twin}'."


def folded(label: str) -> str:
    """What labels have in common that differ in case or space only: a dash joins words, and is a part of any other
    label (-1, A-, 1-1)."""
    folded = "".join(DASH.sub("", label.casefold()).split())
    return WHOLE.sub(r"\1", folded)
