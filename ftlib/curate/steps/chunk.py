"""`chunk`: documents, and long texts, cut into rows that a model can learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ftlib.config.recipe.texts import ChunkStep
from ftlib.curate.chunks import chunk
from ftlib.curate.documents.blocks import Block, Document
from ftlib.curate.documents.rows import BLOCKS, document_of
from ftlib.curate.rows import FROM, Row, child, fields_of
from ftlib.curate.step import Context, Result, RowStep

OF_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "*.gguf")
BYTES = 4  # that count as a token where no tokenizer does


def work(rows: Sequence[Row], settings: ChunkStep, context: Context) -> Result:
    """The chunks of each row, each with its document and the headings that it stands under."""
    count = counter(settings.tokenizer)
    result = Result()
    for row in rows:
        document = _document(row, settings.field)
        kept = {name: value for name, value in fields_of(row).items() if name not in (BLOCKS, "unit", settings.field)}
        chunks = chunk(
            document,
            tokens=settings.tokens,
            overlap=settings.overlap,
            by=settings.by,
            count=count,
            with_headings=settings.with_headings,
        )
        number = -1
        for number, piece in enumerate(chunks):
            made = {**kept, settings.field: piece.text, "headings": list(piece.headings)}
            result.keep({**child(row, number, made), FROM: piece.where})
        if number < 0:
            result.drop(row, "empty")
    return result


def _document(row: Row, field: str) -> Document:
    """The document of a row; of a row that is none, its text with a block for each paragraph."""
    if isinstance(row.get(BLOCKS), list):
        return document_of(row)
    paragraphs = str(row.get(field) or "").split("\n\n")
    return Document(row[FROM], (Block("paragraph", text) for text in paragraphs if text.strip()))


@lru_cache(maxsize=2)
def counter(tokenizer: str | None) -> Callable[[str], int]:
    """What counts the tokens of a text."""
    if tokenizer is None:
        return lambda text: -(-len(text.encode("utf-8", "replace")) // BYTES)
    from ftlib.config import ModelSection
    from ftlib.models.base import load_tokenizer

    loaded: Any = load_tokenizer(ModelSection(name_or_path=tokenizer))
    return lambda text: len(loaded(text, add_special_tokens=False)["input_ids"])


def _files(settings: ChunkStep) -> list[str]:
    """What decides how a local tokenizer counts."""
    if settings.tokenizer is None:
        return []
    folder = Path(settings.tokenizer).expanduser()
    return sorted(str(file) for name in OF_TOKENIZER for file in folder.glob(name))


STEP = RowStep(work, files=_files, costly=True)
