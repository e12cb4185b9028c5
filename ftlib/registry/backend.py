"""Where the registry lies: a folder, or objects behind a URL. `FTLIB_REGISTRY` says which; unset, $FTLIB_HOME/registry.

    a folder                                      behind a URL
    <name>/current.json        the alias          current/<name>.json
    <name>/<n>/manifest.json   a version          versions/<name>/<n>.json, which names the folder of its files:
    <name>/<n>/adapter/ ...    its files          files/<name>-<random>/adapter/ ...
    <name>/.lock               who moves it       locks/<name>.json
    .numbers/<name>            the highest given  numbers/<name>.json

A folder has renames and the kernel's locks: a version appears in one move, with a number that nobody else has. An
object store has neither, and only one thing is relied on: an object is written whole or not at all. So the files go up
first, under a name that nobody else has; then the one object that makes them a version; then the alias. What is cut
short is no version, and two promotions never mix their files. All aliases lie together, so that one short listing tells
which of them have changed.

A number is given once, also when its version, or all of its name, was removed since: whoever keeps what a number means
(an endpoint, a machine's cache) never has another's.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from ftlib.files import object_store
from ftlib.files.home import home
from ftlib.files.urls import is_url
from ftlib.registry.folder_backend import FolderBackend
from ftlib.registry.store_backend import StoreBackend

VARIABLE = "FTLIB_REGISTRY"


def given() -> str:
    """The value of `FTLIB_REGISTRY`: a path, a URL, or nothing. Raises ConfigError for a URL that cannot be used."""
    where = os.environ.get(VARIABLE, "").strip()
    if is_url(where):
        object_store.check_url(VARIABLE, where)
        return where.rstrip("/")
    return str(Path(where).expanduser().absolute()) if where else ""


def backend() -> FolderBackend | StoreBackend:
    """The backend of the registry that `FTLIB_REGISTRY` names."""
    where = given()
    return objects(where) if is_url(where) else FolderBackend(Path(where) if where else home() / "registry")


def beside(folder: str) -> FolderBackend | StoreBackend:
    """A backend within the same registry, for versions of another kind. `folder` begins with a dot, as no name does."""
    where = given()
    if is_url(where):
        return objects(f"{where}/{folder}")
    return FolderBackend((Path(where) if where else home() / "registry") / folder)


@lru_cache(maxsize=8)
def objects(url: str) -> StoreBackend:
    """The backend of a registry at a URL. There is one object for the whole process, because it remembers what it has
    read."""
    return StoreBackend(url)
