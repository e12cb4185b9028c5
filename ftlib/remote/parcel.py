"""What travels with a job: ftlib itself, the experiment, and the small local files that it names, in one zip.

    ftlib/ serve/ ftlib-<version>.dist-info/   the code that is installed here
    experiment.yaml  experiment.json           as written, and resolved, its paths leading to inputs/
    inputs/<hash>-<name>                       files and folders of this machine
    parcel.json                                versions, and where each input came from

The same content makes the same bytes, so that a parcel that the cluster has is not sent again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ftlib
from ftlib.config import Experiment
from ftlib.errors import ConfigError
from ftlib.registry.data_named import lineage
from ftlib.run.context import versions
from ftlib.run.layout import EXPERIMENT

LIMIT = 64 * 2**20  # bytes of inputs: the head keeps parcels in memory, and its web server takes 100 MiB
CODE = ("ftlib", "serve")
NOT_SENT = ("__pycache__", ".git", ".venv")
HERE = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".py", ".gguf")


@dataclass
class Parcel:
    """A parcel before it is written: names inside it to the files here, or to text."""

    files: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)  # name inside -> path here

    @property
    def input_bytes(self) -> int:
        return sum(file.stat().st_size for name, file in self.files.items() if name.startswith("inputs/"))

    def write(self, target: Path) -> None:
        """The zip. Times are left out: the same content makes the same bytes."""
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as out:
            for name in sorted([*self.files, *self.texts]):
                content = self.files[name].read_bytes() if name in self.files else self.texts[name].encode()
                entry = zipfile.ZipInfo(name)
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                out.writestr(entry, content)


def make_parcel(experiment: Experiment, text: str) -> Parcel:
    """The parcel of an experiment whose file reads `text`.

    Raises ConfigError, before anything is sent, for a file that is not here and for inputs above `LIMIT` together.
    """
    parcel = Parcel()
    sent = experiment.with_paths(lambda key, value: _take(parcel, key, value))
    _add_code(parcel)
    told = {"versions": versions(), "python": platform.python_version(), "inputs": parcel.inputs}
    told["data_versions"] = lineage(experiment)  # the registry of this machine stays here
    parcel.texts |= {
        EXPERIMENT: text,
        "experiment.json": json.dumps(sent.to_dict(), indent=2),
        "parcel.json": json.dumps(told, indent=2),
    }
    return parcel


def code_alone() -> Parcel:
    """A parcel for work that needs this ftlib and nothing else."""
    parcel = Parcel()
    _add_code(parcel)
    return parcel


def _add_code(parcel: Parcel) -> None:
    for package in CODE:
        folder = Path(ftlib.__file__).parent.parent / package
        parcel.files |= {f"{package}/{name}": file for name, file in _files(folder)}
    version = versions()["ftlib"]
    metadata = f"Metadata-Version: 2.1\nName: ftlib\nVersion: {version}\n"
    parcel.texts[f"ftlib-{version}.dist-info/METADATA"] = metadata


def _take(parcel: Parcel, key: str, value: str) -> str:
    """The value of a path's key on the cluster: what exists here goes along, a URL and a Hub's name stay."""
    if "://" in value:
        return value
    name, colon, function = value.partition(".py:")
    path = Path(f"{name}.py" if colon else value).expanduser().absolute()
    if not path.exists():
        if colon or path.suffix.lower() in HERE or value.startswith(("/", "./", "../", "~")):
            raise ConfigError(f"{key}: there is no '{value}' here to send: correct the path, or name a URL.")
        return value
    found = dict(_files(path)) if path.is_dir() else {path.name: path}
    size = sum(file.stat().st_size for file in found.values())
    if parcel.input_bytes + size > LIMIT:
        raise ConfigError(
            f"{key}: '{value}' ({size / 2**20:,.0f} MiB) is too large to go along, since a job takes at most "
            f"{LIMIT // 2**20} MiB: put it where the cluster reads it (s3://, gs://, the Hub) and name that."
        )
    if "adapter_config.json" in found:
        raise ConfigError(f"{key}: '{value}' is an adapter, whose base stays here: send it whole, after 'ftlib merge'.")
    inside = f"inputs/{_digest(found)}-{path.name}"
    parcel.inputs[inside] = str(path)
    parcel.files |= {(f"{inside}/{name}" if path.is_dir() else inside): file for name, file in found.items()}
    return f"{inside}{colon and ':'}{function}"


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if file.is_file() and not any(part in NOT_SENT for part in inside.parts):
            yield inside.as_posix(), file


def _digest(files: dict[str, Path]) -> str:
    sha = hashlib.sha256()
    for name, file in sorted(files.items()):
        with file.open("rb") as opened:
            sha.update(f"{name}\0{hashlib.file_digest(opened, 'sha256').hexdigest()}\0".encode())
    return sha.hexdigest()[:12]


def differing(sent: dict[str, Any], here: dict[str, str]) -> list[str]:
    """`torch 2.12.0 instead of 2.13.0` for each version that is another here; builds (`+cpu`, `+cu126`) do not
    count."""
    public = {name: version.partition("+")[0] for name, version in here.items()}
    return [
        f"{name} {public.get(name, 'missing')} instead of {wanted.partition('+')[0]}"
        for name, wanted in sent.items()
        if public.get(name) != wanted.partition("+")[0]
    ]
