"""The process that reads one PDF: `python -m ftlib.curate.documents.pdf.child FILE SECONDS`. It prints lines of JSON.

The first is the head (`pages`, `pictures`), then a list for each block, then `{"end": true}`. `{"refused": why}` ends
it anywhere. Its memory and the processor time of each page are bounded before it opens the file: a hostile PDF (forms
that draw each other, streams that unpack to gigabytes) ends this process and no other.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import astuple
from functools import partial
from typing import Any

from ftlib.curate.documents.pdf.reading import Reading, Unreadable

MEMORY = 2 << 30  # bytes of address space
PAGE_SECONDS = 10  # SECONDS of a processor, for one page in one pass: a dense one takes 0.1


def main(path: str, seconds: int) -> None:
    """Reads the file, and prints."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        allow_a_page = partial(_allow, seconds)
        allow_a_page(0)
        reading = Reading(path)
        reading.study(allow_a_page)
        _say({"pages": reading.pages, "pictures": reading.pictures})
        for block in reading.blocks(allow_a_page):
            _say(astuple(block))
        _say({"end": True})
    except Unreadable as error:
        _say({"refused": str(error)})
    except MemoryError:
        _say({"refused": f"to read it takes more than {MEMORY >> 30} GiB of memory: it is no document."})


def _allow(seconds: int, _page: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
