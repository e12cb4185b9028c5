"""A PDF as a Document. A process of its own reads it (`child`): a hostile file costs an answer and nothing more.

The process waits while nobody takes its blocks, so memory is bounded, and it ends when the document is dropped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftlib.curate.documents.blocks import Block, Document
from ftlib.curate.documents.pdf import child
from ftlib.curate.optional import needed
from ftlib.errors import DataError

NAMED = 8  # pages without text that a note names


def read_pdf(name: str, path: Path) -> Document:
    """Raises DataError for a file that is broken, encrypted, without text or over a bound; for a fault further on when
    its blocks are read."""
    needed("pypdfium2")
    answers = _answers(name, path)
    head = next(answers)
    return Document(name, (Block(*answer) for answer in answers), "page", _notes(name, head["pages"], head["pictures"]))


def _answers(name: str, path: Path) -> Iterator[Any]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", child.__name__, str(path), str(child.PAGE_SECONDS)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                answer = json.loads(line)
                if isinstance(answer, dict) and "refused" in answer:
                    raise DataError(f"{name}: {answer['refused']}")
                if isinstance(answer, dict) and "end" in answer:
                    return
                yield answer
        finally:
            process.kill()
    raise DataError(f"{name}: {_died(process.returncode)}")


def _died(status: int) -> str:
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"one of its pages takes more than {child.PAGE_SECONDS} seconds of a processor: it is no document."
    return "it is broken: pdfium failed while it read it."


def _notes(name: str, pages: int, pictures: list[int]) -> tuple[str, ...]:
    if not pictures:
        return ()
    named = ", ".join(map(str, pictures[:NAMED])) + (" ..." if len(pictures) > NAMED else "")
    return (f"{name}: {len(pictures)} of {pages} pages are pictures without text, and are not read: {named}.",)
