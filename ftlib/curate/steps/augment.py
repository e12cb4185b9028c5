"""`augment`: changed copies of rows. What is drawn for a row depends on the row and the seed alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ftlib.config.recipe.making import AugmentStep
from ftlib.curate.augmented import Thesaurus, in_other_case, with_synonyms, with_typos
from ftlib.curate.digest import digest_of_files
from ftlib.curate.rows import Row, child, fields_of, with_texts
from ftlib.curate.step import Context, Result, RowStep
from ftlib.errors import ConfigError

ASKED = ("text", "prompt", "instruction", "input")  # fields that people write, beside their turns
TURNS = ("messages", "conversations", "prompt")
Change = Callable[[random.Random, str], str]


def work(rows: Sequence[Row], settings: AugmentStep, context: Context) -> Result:
    """Each row, and after it a copy of each kind that is drawn for it. A copy that is the row again is not made."""
    changes = list(_changes(settings))
    result = Result()
    for row in rows:
        result.keep(row)
        draw = context.random(row)
        for number, (share, change) in enumerate(changes):
            if draw.random() >= share:
                continue
            fields = _changed(row, settings.fields, partial(change, draw))
            if fields != fields_of(row):
                result.keep(child(row, number, fields))
    return result


def _changes(settings: AugmentStep) -> Iterator[tuple[float, Change]]:
    yield settings.typos, with_typos
    yield settings.case, in_other_case
    if settings.thesaurus is not None:
        yield settings.synonyms, partial(with_synonyms, thesaurus=_thesaurus(settings.thesaurus, *files_of(settings)))


def _changed(row: Row, named: Sequence[str] | None, change: Callable[[str], str]) -> dict[str, Any]:
    """The fields of a copy. Unless fields are named, only what is asked is changed: answers and labels stay."""
    if named is not None:
        return fields_of(with_texts(row, change, named))
    changed = with_texts(row, change, [name for name in ASKED if isinstance(row.get(name), str)])
    turns = {name: [_turn(turn, change) for turn in row[name]] for name in TURNS if isinstance(row.get(name), list)}
    return fields_of({**changed, **turns})


def _turn(turn: Any, change: Callable[[str], str]) -> Any:
    """A turn of the user, changed; any other as it is."""
    if not isinstance(turn, dict) or turn.get("role", turn.get("from")) not in ("user", "human"):
        return turn
    return {key: change(value) if key in ("content", "value") and isinstance(value, str) else value
            for key, value in turn.items()}  # fmt: skip


@lru_cache(maxsize=4)
def _thesaurus(file: str, digest: str) -> Thesaurus:
    """The words of a file, in small letters. `digest` is its content's, so that a changed file is read again. Raises
    ConfigError for a file that is no mapping of words to lists of words."""
    import yaml

    try:
        found = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no YAML"
        raise ConfigError(f"steps: augment.thesaurus: {file} cannot be read: {why}.") from None
    good = isinstance(found, dict) and all(
        isinstance(word, str) and isinstance(others, list) and others and all(isinstance(one, str) for one in others)
        for word, others in found.items()
    )
    if not good or not found:
        raise ConfigError(f"steps: augment.thesaurus: {file} is no mapping of words to lists: {{help: [assist]}}.")
    return {word.lower(): others for word, others in found.items()}


def files(settings: AugmentStep) -> list[str]:
    """The thesaurus, which decides about copies."""
    return [] if settings.thesaurus is None else [settings.thesaurus]


def files_of(settings: AugmentStep) -> list[str]:
    """The hashes of the files' contents."""
    return [digest_of_files(file) for file in files(settings)]


STEP = RowStep(work, files)
