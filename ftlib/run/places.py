"""Where a run is kept besides its directory, and by what name: its URL, its prepared data, its key, this machine."""

from __future__ import annotations

import secrets
from functools import lru_cache
from pathlib import Path

from ftlib.files.atomic import write_text
from ftlib.files.home import home
from ftlib.files.urls import is_url
from ftlib.run import signature
from ftlib.run.context import Setting
from ftlib.run.directory import Run


def local_storage(place: str) -> str:
    """The folder in which runs of a storage are written: itself, or one of this machine where it is a URL."""
    return str(home() / "runs") if is_url(place) else place


def url_of(run: Run) -> str | None:
    """Where a run is kept besides its directory; None where its directory is all."""
    place = run.resolved.get("experiment", {}).get("storage", "")
    return f"{place.rstrip('/')}/{run.name}" if isinstance(place, str) and is_url(place) else None


@lru_cache(maxsize=1)
def _machine(folder: Path) -> str:
    """The name of the machine that a folder belongs to. It is drawn at first use and kept in that folder."""
    file = folder / "machine"
    if not file.exists():
        write_text(file, secrets.token_hex(8))
    return file.read_text(encoding="utf-8")


def this_machine() -> str:
    """The name of this machine, kept in FTLIB_HOME/machine."""
    return _machine(home())


def url_for(setting: Setting) -> str | None:
    """The URL of a trial's run; None where it has none."""
    place: str = setting.resolved["storage"]
    return f"{place.rstrip('/')}/{Path(setting.run).name}" if is_url(place) else None


def data_url(place: str, data: Path, content: str) -> str:
    """Where the prepared data of a run at `place` is kept."""
    return f"{place.rstrip('/')}/.data/{data.name}{content and f'-{content[:16]}'}"


def content_of_data(run: Run, data: Path) -> str:
    """What `data` of a run at a URL holds, for other machines to compare with; empty where there is no URL."""
    return signature.content_of(data) if url_of(run) is not None else ""


def key_of(run: Run) -> str:
    """The key with which what a run has at its URL is signed; empty where it has none."""
    url = url_of(run)
    return "" if url is None else signature.key_for(url)
