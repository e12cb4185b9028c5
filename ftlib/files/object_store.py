"""Files behind a URL: s3:// and gs://, through pyarrow.fs, which takes its credentials from where AWS and Google put
them.

Object stores have no directories to rename: one object is written whole or not at all, and that is all that is relied
on.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from ftlib.errors import ConfigError, FtlibError
from ftlib.files.atomic import replace_directory, written_beside
from ftlib.files.home import home
from ftlib.files.paths import below
from ftlib.files.urls import is_url, why_no_place

PATIENCE = 600.0  # seconds that a store may be away before what needs it fails
AT_FIRST, AT_MOST = 0.5, 15.0  # seconds between two tries
CHUNK = 2**22
TOGETHER = 8  # objects of a folder that are brought at once

Result = TypeVar("Result")
_listener: ContextVar[Callable[[str], None]] = ContextVar("listener", default=lambda why: None)
_patience: ContextVar[float | None] = ContextVar("patience", default=None)


def check_url(key: str, url: str) -> None:
    """Raises ConfigError for a URL that cannot be used, or that shows a key."""
    if (why := why_no_place(url)) is not None:
        raise ConfigError(f"{key}: {why}" if why.endswith(".") else f"{key}: {why}.")


@lru_cache(maxsize=8)
def _filesystem(scheme: str, bucket: str) -> Any:
    from pyarrow import fs

    if scheme == "gs":
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        options = {"endpoint_override": emulator, "scheme": "http", "anonymous": True} if emulator else {}
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=60), **options)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")  # pyarrow reads neither
    if endpoint:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return fs.S3FileSystem(endpoint_override=endpoint, region=region, connect_timeout=10, request_timeout=60)
    return fs.FileSystem.from_uri(f"s3://{bucket}")[0]


def _at(url: str) -> tuple[Any, str]:
    scheme, _, path = url.partition("://")
    return _filesystem(scheme, path.partition("/")[0]), path


@contextmanager
def telling(listener: Callable[[str], None]) -> Iterator[None]:
    """While the block lasts, `listener` hears why, each time that something has to wait for a store."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """While the block lasts, a store that is away is waited for so long instead of `PATIENCE`: somebody else waits
    too."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def reach(url: str, work: Callable[[Any, str], Result]) -> Result:
    """`work(filesystem, path)`, tried again while the store is away.

    Raises FtlibError when it is still away after `PATIENCE` seconds (or those of `within`), and at once where it
    refuses.
    """
    own = _patience.get()
    patience = PATIENCE if own is None else own
    deadline, pause, told = time.monotonic() + patience, AT_FIRST, False
    while True:
        try:
            return work(*_at(url))
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = str(error).strip().splitlines()[0]
            if _refused(reason):
                raise FtlibError(f"{url} refuses: {reason}: check the credentials and the bucket's name.") from None
            if time.monotonic() > deadline:
                raise FtlibError(f"{url} has not answered for {patience:.0f} s: {reason}.") from None
            if not told:
                told = True
                _listener.get()(reason)
            _filesystem.cache_clear()  # a client that lost its connections may keep failing
            time.sleep(pause)
            pause = min(pause * 2, AT_MOST)


def _refused(reason: str) -> bool:
    return any(
        word in reason for word in ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE", "PERMISSION")
    )


def _write(url: str, work: Callable[[Any, str], None]) -> None:
    try:
        reach(url, work)
    except FileNotFoundError:  # how Google says it
        raise FtlibError(f"{url} refuses: there is no such bucket: check its name.") from None


def put(file: Path, url: str) -> None:
    """Writes one object: the file's bytes, whole."""

    def write(filesystem: Any, path: str) -> None:
        source.seek(0)
        with filesystem.open_output_stream(path) as out:
            while chunk := source.read(CHUNK):
                out.write(chunk)

    with file.open("rb") as source:
        _write(url, write)


def put_bytes(content: bytes, url: str) -> None:
    """Writes bytes as one object."""

    def write(filesystem: Any, path: str) -> None:
        with filesystem.open_output_stream(path) as out:
            out.write(content)

    _write(url, write)


def read(url: str) -> bytes | None:
    """An object's bytes, or None when there is none. pyarrow asks for its size and then for so many bytes: where it was
    replaced in between, they are a part of the new one, so it is read again. Stores tell the two apart by their ETag.
    """

    def load(filesystem: Any, path: str) -> bytes:
        while True:
            with filesystem.open_input_file(path) as source:
                before, content = source.metadata(), bytes(source.read())
            try:
                with filesystem.open_input_file(path) as source:
                    if (source.metadata(), source.size()) == (before, len(content)):
                        return content
            except FileNotFoundError:  # it was removed since
                return content

    try:
        return reach(url, load)
    except FileNotFoundError:
        return None


def get(url: str, file: Path) -> None:
    """Brings one object to a file, whole. Raises FileNotFoundError when there is none."""
    with written_beside(file) as staged:

        def load(filesystem: Any, path: str) -> None:
            with filesystem.open_input_stream(path) as source, staged.open("wb") as out:
                while chunk := source.read(CHUNK):
                    out.write(chunk)

        reach(url, load)


def listing(url: str) -> dict[str, tuple[int, int]]:
    """Every object below a URL: its name from there on -> (its size, when it was written, in nanoseconds)."""
    from pyarrow import fs

    def look(filesystem: Any, path: str) -> dict[str, tuple[int, int]]:
        found = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        files = [entry for entry in found if entry.type == fs.FileType.File]
        return {file.path[len(path) :].removeprefix("/"): (file.size, file.mtime_ns or 0) for file in files}

    return reach(url.rstrip("/"), look)


def remove(url: str) -> None:
    """Removes everything below a URL; nothing there is no error."""

    def work(filesystem: Any, path: str) -> None:
        try:
            filesystem.delete_dir(path)
        except FileNotFoundError:
            return

    reach(url, work)


def put_folder(folder: Path, url: str) -> None:
    """Writes every file of a folder, each an object below the URL, several at once."""
    from pyarrow import fs

    local = fs.LocalFileSystem()
    _write(url, lambda there, path: fs.copy_files(str(folder), path, local, there))


def get_folder(url: str, folder: Path) -> None:
    """Brings what is below a URL into the place of `folder`, whole. Raises FileNotFoundError when nothing is, and
    InputError, before anything is written, for an object whose name is no path inside of it.

    pyarrow's own `copy_files` believes names, and lists a second time, when they can be others.
    """
    staged = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(3)}")
    files = {name: below(staged, name, url) for name in listing(url)}
    if not files:
        raise FileNotFoundError(url)
    try:
        with ThreadPoolExecutor(TOGETHER) as pool:
            coming = [pool.submit(copy_context().run, get, f"{url}/{name}", file) for name, file in files.items()]
            for future in coming:
                future.result()
        replace_directory(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def local_copy(key: str, value: str) -> str:
    """The local path of what a key names: a URL's file or folder is brought to FTLIB_HOME once for what it holds there
    now; any other value is itself. Raises ConfigError when nothing is at the URL."""
    if not is_url(value):
        return value
    check_url(key, value)
    names = listing(value)
    single = _single(value) if not names else None
    if not names and single is None:
        raise ConfigError(f"{key}: there is nothing at '{value}'.")
    mark = hashlib.sha256(repr((value, single, sorted(names.items()))).encode()).hexdigest()[:16]
    target = below(home() / "cache" / "remote" / mark, value.rstrip("/").rpartition("/")[2], value)
    if not target.exists():
        get_folder(value, target) if names else get(value, target)
    return str(target)


def _single(url: str) -> tuple[int, int] | None:
    from pyarrow import fs

    (info,) = reach(url, lambda filesystem, path: filesystem.get_file_info([path]))
    return (info.size, info.mtime_ns or 0) if info.type == fs.FileType.File else None
