"""A document as one row, and a row as a document again: `blocks` has what its reader found."""

from __future__ import annotations

from typing import Any

from ftlib.curate.documents.blocks import Block, Document

BLOCKS = "blocks"
NOTES = "_notes"  # what could not be read of a document: it is told and goes, before anything is done with the row


def fields_of_document(document: Document) -> dict[str, Any]:
    """The fields of a document's row: its name, what its blocks count, and the blocks. Raises DataError where it cannot
    be read."""
    blocks = [
        {"kind": block.kind, "text": block.text, "first": block.first, "last": block.last, "level": block.level}
        for block in document.blocks
    ]
    return {"document": document.name, "unit": document.unit, BLOCKS: blocks, NOTES: list(document.notes)}


def document_of(fields: dict[str, Any]) -> Document:
    """The document of a row."""
    blocks = (Block(**block) for block in fields[BLOCKS] if block["text"].strip())
    return Document(str(fields["document"]), blocks, fields.get("unit", ""))


def with_text(fields: dict[str, Any]) -> dict[str, Any]:
    """A document's row as rows are trained on: one text in the place of its blocks. Any other row as it is."""
    if not isinstance(fields.get(BLOCKS), list) or "unit" not in fields:
        return fields
    text = "\n\n".join(block["text"] for block in fields[BLOCKS])
    return {**{name: value for name, value in fields.items() if name not in (BLOCKS, "unit")}, "text": text}
