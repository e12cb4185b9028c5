"""The cache of prepared data: one directory per content hash, whole or not there.

<FTLIB_HOME>/cache/data/<hash>/  train/  eval/  (Arrow)  report.json  chat_template.jinja
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.config.data import DataSection
from ftlib.config.methods import Rows
from ftlib.data.read import Source
from ftlib.data.report import DataReport
from ftlib.data.templates import own_template
from ftlib.errors import DataError, FtlibError
from ftlib.files.atomic import publish, replace_directory, staging_beside, write_json

if TYPE_CHECKING:
    import datasets

VERSION = 5  # raise it when the same input comes to give other tokens, or the directory another shape

HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Prepared:
    """Tokenized data. `train` and `eval` have the columns of their kind of rows (`ftlib.data.kinds`)."""

    path: Path
    hash: str
    train: datasets.Dataset
    eval: datasets.Dataset
    report: DataReport
    chat_template: str | None  # the Jinja text that the rows were written with; None where none was used

    @property
    def held_out(self) -> datasets.Dataset | None:
        """`eval`, or None where it has no rows."""
        return self.eval if len(self.eval) else None


def cache_key(sources: Iterable[Source], data: DataSection, rows: Rows, tokenizer: Any) -> str:
    """The SHA-256, in hex, of all that the tokens depend on: contents, settings, kind of rows and tokenizer."""
    settings = data.model_dump(mode="json", exclude={"packing", "train", "eval", "replay"})  # packing is the trainer's
    if isinstance(data.train, list):
        settings["train"] = [member.model_dump(mode="json", exclude={"path"}) for member in data.train]
    if data.replay is not None:
        settings["replay"] = data.replay.model_dump(mode="json", exclude={"train"})
    parts = {
        "version": VERSION,
        "contents": [(source.key, source.digest()) for source in sources],  # wherever they lie
        "data": settings,
        "rows": rows,
        "tokenizer": _identity(tokenizer),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load_prepared(path: Path) -> Prepared:
    """What `prepare` stored under `path`. Raises DataError when it is not there, or not whole."""
    import datasets

    try:
        report = DataReport.from_json(json.loads((path / "report.json").read_text(encoding="utf-8")))
        train, held_out = (datasets.load_from_disk(str(path / part)) for part in ("train", "eval"))
        written = path / "chat_template.jinja"
        template = written.read_bytes().decode() if report.template != "none" else None
    except Exception as error:  # a damaged Arrow or JSON file fails in its own way
        raise DataError(f"{path}: no prepared data, or not all of it: prepare it again ({error}).") from error
    if (len(train), len(held_out)) != (report.train_rows, report.eval_rows):
        raise DataError(f"{path}: it holds other rows than its report says: prepare it again.")
    return Prepared(path, path.name, train, held_out, report, template)


def kept(folder: Path, digest: str) -> Prepared | None:
    """What is stored in the cache under a hash, or None where that is gone. `digest` may come from anywhere."""
    if not HASH.fullmatch(digest):
        return None
    with contextlib.suppress(DataError):
        return load_prepared(folder / digest)
    return None


def store(
    target: Path, train: datasets.Dataset, held_out: datasets.Dataset, report: DataReport, template: str | None
) -> Prepared:
    """Writes a directory under a temporary name and renames it to `target`.

    Of two processes that store the same data, the second discards its own. Raises FtlibError when it cannot write.
    """
    staged = staging_beside(target)
    try:
        with _quiet():
            train.save_to_disk(str(staged / "train"))
            # A table without rows is otherwise written as no file at all, which cannot be read back.
            held_out.save_to_disk(str(staged / "eval"), num_shards=None if len(held_out) else 1)
        if template is not None:
            (staged / "chat_template.jinja").write_bytes(template.encode())
        write_json(staged / "report.json", report.to_json())
        return _publish(staged, target)
    except OSError as error:
        reason = error.strerror or error
        raise FtlibError(f"cannot write prepared data to {target.parent}: {reason}; FTLIB_HOME moves it.") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _publish(staged: Path, target: Path) -> Prepared:
    if not publish(staged, target):
        with contextlib.suppress(DataError):
            return load_prepared(target)
        replace_directory(staged, target)
    return load_prepared(target)


def _identity(tokenizer: Any) -> dict[str, Any]:
    """All of a tokenizer that decides about ids, without the padding and truncation of its last call."""
    if tokenizer.is_fast:
        backend = json.loads(tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    else:
        backend = {"class": type(tokenizer).__qualname__, "vocabulary": tokenizer.get_vocab()}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return {"backend": backend, "special": special, "chat_template": own_template(tokenizer)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of `datasets`, which would be drawn through our own output."""
    import datasets

    disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()
