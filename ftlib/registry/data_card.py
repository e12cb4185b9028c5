"""The data card of a version: README.md in the format of the Hugging Face Hub.

It holds numbers, names and hashes, and no row. Names of files and licences are another's words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from ftlib.registry.card import code, plain

ASKED = ("teacher", "judge", "rejected")  # keys of steps that name a model
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))


def data_card(manifest: Mapping[str, Any]) -> str:
    """The text of the card."""
    files = manifest["data"]
    rows = sum(file["rows"] for file in files.values())
    head = {
        "pretty_name": str(manifest["name"]),
        "size_categories": [next((name for most, name in SIZES if rows < most), "n>10M")],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": {"eval": "validation"}.get(side := name.removesuffix(".jsonl"), side), "path": name}
                    for name in files
                ],
            }
        ],
    }
    sections = (
        f"---\n{yaml.safe_dump(head, sort_keys=False).strip()}\n---",
        f"# {manifest['name']}",
        f"{rows:,} rows, made by a recipe of ftlib. Each row says where it comes from (`_from`).",
        _table(
            ("file", "rows", "SHA-256"),
            [(code(name), f"{file['rows']:,}", code(file["sha256"][:16])) for name, file in files.items()],
        ),
        "## What the steps did",
        _table(("step", "rows in", "rows out", "dropped", "changed"), list(_steps(manifest))),
        *_teachers(manifest),
        "## Sources",
        _table(("file", "kind", "licence", "SHA-256"), list(_sources(manifest))),
        _licences(manifest),
        "## Recipe",
        f"```yaml\n{yaml.safe_dump(manifest['recipe'], sort_keys=False, allow_unicode=True).strip()}\n```",
        f"Hash of the rows: {code(manifest['hash'])}",
    )
    return "\n\n".join(filter(None, sections)) + "\n"


def _steps(manifest: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, told in manifest["counts"].items():
        yield code(key), f"{told['in']:,}", f"{told['out']:,}", _reasons(told["dropped"]), _reasons(told["changed"])


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {code(reason)}" for reason, count in sorted(counts.items()))


def _sources(manifest: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for source in manifest["sources"]:
        licence = plain(source["license"]) if source.get("license") else "not said"
        yield code(source["file"]), source["kind"], licence, code(str(source["sha256"])[:16])


def _teachers(manifest: Mapping[str, Any]) -> list[str]:
    """Which models wrote or judged rows, and that a build without their kept answers may give others."""
    models = list(_models(manifest["recipe"].get("steps", ())))
    if not models:
        return []
    told = _table(("step", "model"), [(code(step), code(model)) for step, model in dict.fromkeys(models)])
    again = (
        "Rows of these steps are not a person's. Their answers are kept, so a build on the same machine gives the same "
        "rows. A model that is asked anew may answer otherwise. Its licence may say what its answers may be used for."
    )
    return ["## Models that wrote or judged rows", told, again]


def _models(steps: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for step, settings in (item for member in steps if isinstance(member, dict) for item in member.items()):
        told = {**settings, **(settings.get("quality") or {})} if isinstance(settings, dict) else {}
        yield from ((step, _model(told[key])) for key in ASKED if told.get(key))


def _model(teacher: Any) -> str:
    section = teacher if isinstance(teacher, dict) else {"model": teacher}
    return f"{section['name']} at {section['model']}" if section.get("name") else str(section["model"])


def _licences(manifest: Mapping[str, Any]) -> str:
    if all(source.get("license") for source in manifest["sources"]):
        return ""
    return "The recipe does not say the licence of every source. Whoever publishes the data has to know it."


def _table(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    rows = (heads, ("---",) * len(heads), *lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
