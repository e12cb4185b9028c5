"""`labels`: one spelling for each class. All labels are counted before any is changed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ftlib.config.data import printed
from ftlib.config.recipe.texts import LabelsStep
from ftlib.curate.rows import Row
from ftlib.curate.step import Context, Result, WholeStep
from ftlib.data.labels import LISTED, SPELLED, folded
from ftlib.errors import InputError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = ("label", "new")


def sign(rows: Sequence[Row], settings: LabelsStep, context: Context) -> pa.Table:
    """The labels of a block, each with the number of its rows."""
    import pyarrow as pa

    counts = Counter(label for row in rows if (label := label_of(row, settings.field)) is not None)
    known = sorted(counts)
    schema = pa.schema([("label", pa.string()), ("count", pa.int64())])
    return pa.table([known, [counts[label] for label in known]], schema=schema)


def decide(signs: Sequence[pa.Table], settings: LabelsStep, context: Context) -> list[pa.Table]:
    """The new name of each label; one table for all blocks. Raises InputError where no row has a label, and for a label
    of `map` that no row has."""
    import pyarrow as pa

    counts: Counter[str] = Counter()
    for table in signs:
        for line in table.to_pylist():
            counts[line["label"]] += line["count"]
    if not counts:
        raise InputError(f"steps: {context.key}: no row has the field '{settings.field}'.")
    names = new_names(counts, settings, context.key)
    told = pa.table([list(names), list(names.values())], schema=pa.schema([(name, pa.string()) for name in NAMES]))
    return [told] * len(signs)


def new_names(counts: Counter[str], settings: LabelsStep, key: str) -> dict[str, str]:
    """What each label is called. Labels that `map` names keep that name; of the others, those that are alike get the
    name that `map` gives to one of them, or the spelling that most rows have."""
    for label in settings.map:
        if label not in counts:
            known = ", ".join(sorted(counts)[:LISTED])
            raise InputError(f"steps: {key}.map: no row has '{label}': there are {known}.{nearest(label, counts)}")
    if settings.case != "fold":
        spell = SPELLED[settings.case]
        return {label: settings.map.get(label, settings.map.get(spell(label), spell(label))) for label in counts}
    groups: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        groups[folded(label)].append(label)
    given = {folded(name): name for name in settings.map.values()}
    usual = {fold: given.get(fold) or max(group, key=lambda label: counts[label]) for fold, group in groups.items()}
    return {label: settings.map.get(label, usual[folded(label)]) for label in counts}


def apply(rows: Sequence[Row], verdict: pa.Table, settings: LabelsStep, context: Context) -> Result:
    """Names the labels of a block anew."""
    names = dict(zip(verdict["label"].to_pylist(), verdict["new"].to_pylist(), strict=True))
    result = Result()
    for row in rows:
        label = label_of(row, settings.field)
        new = None if label is None else names[label]
        if settings.only is not None and new not in settings.only:
            result.drop(row, "only", f"the label is {new}" if new is not None else "it has no label")
        elif new is None or row[settings.field] == new:
            result.keep(row)
        else:
            result.change({**row, settings.field: new}, "label", f"{printed(row[settings.field])} -> {new}")
    return result


def label_of(row: Row, field: str) -> str | None:
    """The label of a row as text, without space around it; None where it has none."""
    value: Any = row.get(field)
    if value is None or isinstance(value, list | dict):
        return None
    return printed(value).strip() or None


STEP = WholeStep(sign, decide, apply)
