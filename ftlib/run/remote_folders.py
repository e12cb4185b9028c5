"""Directories that are replaced as wholes, kept at a URL.

`<name>.<mark>/` holds one state of a directory, and index.json beside it says which one is meant. The new state is
written beside the old one, then the index, and then the old one goes: an object store renames nothing, and a reader
always finds a whole directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ftlib.files import object_store
from ftlib.files.atomic import settled
from ftlib.run import signature
from ftlib.run.index import Index, read_index, write_index
from ftlib.run.places import this_machine


def push(folder: Path, url: str, names: tuple[str, ...], files: Mapping[str, Path], key: str = "") -> None:
    """Brings the place `url` to what `folder` holds now: these directories of it, and these files. What others have put
    into its index is not kept."""
    index = read_index(url, key)
    mine = index.machine == this_machine() and (index.signed or not key)
    directories, contents = (dict(index.directories), dict(index.contents)) if mine else ({}, {})
    for name in names:
        now = settled(folder / name)
        if now is None:
            continue
        marked = f"{name}.{now.stat().st_ino:x}-{newest(now):x}"
        if directories.get(name) != marked:
            object_store.put_folder(now, f"{url}/{marked}")
            directories[name], contents[name] = marked, signature.content_of(now) if key else ""
    known = index.files if index.signed else {}
    told = Index(url, this_machine(), directories, contents, known)
    told = told.after({name: signature.digest_of(file) for name, file in files.items()} if key else {})
    if replace(told, signed=index.signed) != index:
        write_index(told, key)
    for name, file in files.items():
        object_store.put(file, f"{url}/{name}")
    if key and files:
        write_index(told.settled(files), key)
    found = {name.partition("/")[0] for name in object_store.listing(url) if "/" in name}
    states = {name for name in found if name.partition(".")[0] in names}
    for gone in states - set(directories.values()):  # the one before, and what a kill has cut short
        object_store.remove(f"{url}/{gone}")


def newest(folder: Path) -> int:
    """When the newest file of a folder was written, in nanoseconds."""
    return max((file.stat().st_mtime_ns for file in folder.rglob("*")), default=folder.stat().st_mtime_ns)


def pull_directories(url: str, folder: Path, names: tuple[str, ...], key: str = "") -> str | None:
    """Brings directories of a place; what keeps them from being believed, where one is not as its index has signed
    it."""
    index, doubts = read_index(url, key), []
    for name in names:
        if name not in index.directories:
            continue
        try:
            object_store.get_folder(f"{url}/{index.directories[name]}", folder / name)
            doubts.append(index.why_not_directory(name, folder / name))
        except FileNotFoundError:
            doubts.append(index.why_gone(name))
    return next(filter(None, doubts), None)
