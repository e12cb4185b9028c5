"""Which key goes to an OpenAI-compatible URL: a key belongs to a host, and goes to no other.

`OPENAI_API_KEY` is OpenAI's, or that of the server that `OPENAI_BASE_URL` names, as OpenAI's own client has it. Any
other host gets the key of the variable that its user names for it, and none without one.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from ftlib.errors import ConfigError
from ftlib.files.hosts import is_loopback

KEY, BASE = "OPENAI_API_KEY", "OPENAI_BASE_URL"
OPENAI = "https://api.openai.com/v1"


def key_for(url: str, variable: str | None = None, named: str = "api_key_env") -> str | None:
    """The key in `variable` of the environment; without one, the key of `OPENAI_API_KEY` where the host is its own.

    `named` is what messages call the setting that names the variable. Raises ConfigError for a variable that is not
    set, and for a key that would travel unencrypted to another machine.
    """
    key = os.environ.get(variable) if variable else _openai_key(url)
    if variable and not key:
        raise ConfigError(f"{named} names {variable}, which the environment does not have.")
    parts = urlsplit(url)
    if key and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigError(f"{url}: the key in {variable or KEY} would travel unencrypted: use https, or unset it.")
    return key


def variable_for(url: str, variable: str | None = None) -> str | None:
    """The variable whose key `key_for` sends; None where it sends none."""
    return variable or (KEY if _openai_key(url) else None)


def _openai_key(url: str) -> str | None:
    own = os.environ.get(BASE) or OPENAI
    return os.environ.get(KEY) if host_of(url) == host_of(own) else None


def host_of(url: str) -> str:
    """`HOST`, or `HOST:PORT` where the URL has a port, in small letters."""
    parts = urlsplit(url)
    return (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
