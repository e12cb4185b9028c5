"""Files looked at before anything is trained on them: `ftlib data report`, and a few lines of it in `ftlib check`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.config import DataSection, ModelSection
from ftlib.errors import DataError, InputError

if TYPE_CHECKING:
    from ftlib.curate.collected import Collected
    from ftlib.curate.inspection import Inspection

MOST_ROWS = 100_000  # of a file that are looked at
OF_CHECK = 1_000  # of each file, at a check: two seconds
LINES = 10  # of a check
TOLD_BEFORE = ("labels", "unusable", "exact_duplicates", "contradictions", "evaluation_same", "evaluation_asked")
# Formats whose contradictions and labels have words of their own.
KINDS = {"classification": "labelled", "kto": "judged", "preference": "pairs"}
NO_LIMIT = 10**6  # tokens: what a tokenizer says that knows of no window


def inspected(
    file: str,
    evaluation: str | None = None,
    benchmarks: Sequence[str] = (),
    model: str | None = None,
    regions: Sequence[str] = (),
) -> Inspection:
    """What stands in a file, a folder or a data set on the Hub: in its first 100,000 rows.

    `model` names whose tokens lengths are in, `regions` (DE, US) whose phone numbers may stand there as within the
    country. Raises DataError for what is not there or fits no format, and InputError for a region that is none, and
    where ftlib[curate] is not installed.
    """
    from ftlib.curate.inspection import inspect
    from ftlib.curate.phones import check_regions

    checked = check_regions(regions)
    rows, format_name = _found(file)
    held_out = None if evaluation is None else _found(evaluation, format_name)[0]
    lengths, window = (None, None) if model is None else _tokens(rows.texts, ModelSection(name_or_path=model))
    found = inspect(
        rows,
        format_name,
        KINDS.get(format_name, ""),
        evaluation=held_out,
        benchmarks=[(Path(name).name, _texts(name)) for name in benchmarks],
        whole=len(rows.rows) < MOST_ROWS,
        lengths=lengths,
        window=window,
        regions=checked,
    )
    return replace(found, source=file)


def lines_of_check(data: DataSection) -> Iterator[str]:
    """At most ten lines on the first rows of the training data, without what `ftlib check` says of all rows."""
    from ftlib.curate.inspection import inspect
    from ftlib.data.findings import counted

    try:
        for _, _, section in data.sources:
            rows, format_name = _read("train", section)
            held_out = _read("eval", data)[0] if data.eval else None
            found = inspect(rows, format_name, "", evaluation=held_out, whole=len(rows.rows) < OF_CHECK)
            _, *said = found.sentences()
            told = [one.sentence for one in found.findings if one.kind in TOLD_BEFORE]
            yield f"{found.source}: {'all' if found.whole else 'the first'} {counted(found.rows, 'row')} were looked at"
            yield from islice((sentence for sentence in said if sentence not in told), LINES - 2)
            yield from (f"the strangest row: {one.where}: {one.why}" for one in found.strange[:1])
    except InputError as missing:  # a library
        yield f"not looked at: {missing}"


def _found(name: str, format_name: str | None = None) -> tuple[Collected, str]:
    """The rows of a file, in a format that its columns say."""
    from ftlib.curate.collected import collected
    from ftlib.data.look import NAMES, look
    from ftlib.data.read import find_source, read_rows

    seen = look(name, (format_name,) if format_name else tuple(NAMES))
    section = DataSection(train=name, columns=seen.renamed, max_rows=MOST_ROWS)
    return collected(Path(name).name, seen.format, read_rows(find_source("train", section), section)), seen.format


def _read(key: str, data: DataSection) -> tuple[Collected, str]:
    """The first rows of `data.train` or `data.eval`, as an experiment reads them."""
    from ftlib.curate.collected import collected
    from ftlib.data.formats import detect
    from ftlib.data.read import columns_of, find_source, read_rows

    section = data.model_copy(update={"max_rows": min(OF_CHECK, data.max_rows or OF_CHECK)})
    source = find_source(key, section)
    rows = read_rows(source, section)
    format_name = detect(data.format, columns_of(rows), source.name)
    return collected(source.name, format_name, rows), format_name


def _texts(name: str) -> list[str]:
    """The texts of a benchmark's rows, whatever their columns are called."""
    from ftlib.data.read import find_source, read_rows

    section = DataSection(train=name, max_rows=MOST_ROWS)
    rows = read_rows(find_source("train", section, "benchmark"), section)
    texts = ["\n".join(str(value) for value in row.fields.values() if isinstance(value, str)) for row in rows]
    if not any(texts):
        raise DataError(f"{name}: no column holds texts.")
    return texts


def _tokens(texts: Sequence[str], model: ModelSection) -> tuple[list[int], int | None]:
    """How many tokens each text has, without a template's, and how many the model takes; None where it does not say."""
    from ftlib.models.base import load_config, load_tokenizer

    tokenizer: Any = load_tokenizer(model)
    lengths = [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]
    window = getattr(load_config(model), "max_position_embeddings", None) or tokenizer.model_max_length
    return lengths, window if isinstance(window, int) and window < NO_LIMIT else None
