"""The parts of ftlib's pages: a template that escapes what it is given, the style and the scripts that pages share."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

HERE = Path(__file__).parent
ENDS_OF_SCRIPTS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


@cache
def template(name: str) -> jinja2.Template:
    """A page's template; it escapes every value that is no Markup, and knows no value that it was not given."""
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)


def style(own: str) -> Markup:
    """The look of all pages, then a page's own."""
    return Markup("\n".join((HERE / name).read_text(encoding="utf-8") for name in ("style.css", own)))


def script(*own: str) -> str:
    """What all pages' scripts share, then a page's own."""
    return plain_lines("\n".join((HERE / name).read_text(encoding="utf-8") for name in ("shared.js", *own)))


def plain_lines(script: str) -> str:
    """A browser reads other ends of lines as this one before it looks at the hash."""
    return script.replace("\r\n", "\n").replace("\r", "\n")


def digest(script: str) -> str:
    """The hash by which a Content-Security-Policy knows an inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def script_json(value: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element, and every character is ASCII."""
    told = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup("".join(ENDS_OF_SCRIPTS.get(character, character) for character in told))
