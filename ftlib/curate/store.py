"""Where tables are kept between builds, by their keys: Parquet files in a folder, or objects at a URL.

A key is a hash of all that the table depends on. So what is there is right, and a build that was cut short goes on
where it was: a table is written under another name and renamed (at a URL, it is one object), and is whole or not there.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import FtlibError
from ftlib.files import object_store
from ftlib.files.atomic import written_beside
from ftlib.files.home import home
from ftlib.files.patience import patiently
from ftlib.files.urls import is_url

if TYPE_CHECKING:
    import pyarrow as pa

ABOUT = b"ftlib"  # the key of the notes in a Parquet file's own metadata


def key_of(*parts: Any) -> str:
    """The SHA-256, in hex, of values that print as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def key_of_table(table: pa.Table) -> str:
    """The SHA-256 of a table's content."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


@dataclass(frozen=True)
class Store:
    """The tables below `place`, a folder or a URL. It travels to workers as it is."""

    place: str

    @classmethod
    def of(cls, storage: str | None) -> Store:
        """The store that a recipe names; without a name, the one in FTLIB_HOME."""
        if storage is None:
            return cls(str(home() / "data" / "blocks"))
        return cls(storage.rstrip("/") if is_url(storage) else str(Path(storage).expanduser().absolute()))

    def put(self, key: str, table: pa.Table, about: Mapping[str, Any] | None = None) -> None:
        """Writes a table, with notes about it that `about` reads without the table."""
        import pyarrow.parquet as pq

        table = table.replace_schema_metadata({ABOUT: json.dumps(about or {}, sort_keys=True)})
        if is_url(self.place):
            out = io.BytesIO()
            pq.write_table(table, out, compression="zstd")
            object_store.put_bytes(out.getvalue(), self._at(key))
            return

        def write() -> None:
            with written_beside(Path(self._at(key))) as staged:
                pq.write_table(table, staged, compression="zstd")

        patiently(write, Path(self._at(key)))

    def get(self, key: str) -> pa.Table:
        """A table. Raises FtlibError where it is gone or damaged: whoever asks has seen it before."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if not is_url(self.place):
                return pq.read_table(self._at(key))
            if (content := object_store.read(self._at(key))) is not None:
                return pq.read_table(io.BytesIO(content))
        except FileNotFoundError:
            pass
        except (pa.ArrowException, OSError) as error:
            raise FtlibError(f"{self._at(key)} is damaged ({error}): remove it, and build again.") from None
        raise FtlibError(f"{self._at(key)} is gone while it is needed: build again.")

    def about(self, key: str) -> dict[str, Any] | None:
        """The notes about a table; None where there is no table, or a damaged one."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        def look(filesystem: Any, path: str) -> Any:
            with filesystem.open_input_file(path) as file:
                return pq.read_metadata(file)

        try:
            found = object_store.reach(self._at(key), look) if is_url(self.place) else pq.read_metadata(self._at(key))
            notes: dict[str, Any] = json.loads(found.metadata[ABOUT])
        except (OSError, pa.ArrowException, LookupError, TypeError, ValueError):
            return None
        return notes

    def _at(self, key: str) -> str:
        return f"{self.place}/{key[:2]}/{key}.parquet"
