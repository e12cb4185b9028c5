"""`ftlib push`: an exported folder on the Hugging Face Hub, with its card and the licence of its base; private, unless
asked for otherwise.

A push that was cut short is done again with the same words: the Hub has the large files that came through, and they are
not sent again. What is seen there changes in one commit, at the end.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import FtlibError, InputError
from ftlib.export.export import FIGURES
from ftlib.files.json_files import read_json

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
CARD = "README.md"
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "USE_POLICY.md")


@dataclass(frozen=True)
class Licence:
    """`name` is the Hub's (apache-2.0, llama3.2, other ...), `files` its texts where the base's folder has them."""

    name: str
    told_by: str
    files: tuple[Path, ...] = ()


def push(folder: Path, repo: str, licence: Licence | None, public: bool = False) -> str:
    """Uploads an exported folder as OWNER/NAME, and returns its URL.

    Raises InputError for a folder that no export has let through, for a name that is none, and where a public one has
    no known licence; FtlibError, with the Hub's words, where it refuses.
    """
    if not REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise InputError(f"'{repo}' is no name on the Hub: write OWNER/NAME.")
    if (read_json(folder / FIGURES, dict) or {}).get("apart") is None:
        raise InputError(f"{folder} has no {FIGURES} of a gate that it passed: export it first.")
    if public and licence is None:
        raise InputError(f"{repo} cannot be public: nobody says the licence of its base. Name it with --license.")
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / CARD)
    parts = [CommitOperationAdd(str(file.relative_to(folder)), str(file)) for file in files]
    parts += [CommitOperationAdd(file.name, str(file)) for file in (licence.files if licence else ())]
    text = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
    parts.append(CommitOperationAdd(CARD, with_licence(text, licence).encode()))
    return _sent(api, repo, parts, public)


def _sent(api: HfApi, repo: str, parts: list[Any], public: bool) -> str:
    try:
        made = api.create_repo(repo, visibility="public" if public else "private", exist_ok=True)
        if not public and api.repo_info(repo).private is False:
            raise InputError(f"{repo} is there already, and public: say --public, or push to another name.")
        api.create_commit(repo, parts, commit_message="An export of ftlib")
    except InputError:
        raise
    except Exception as error:  # of its HTTP client, of the Hub, of a file, each in its own way
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise FtlibError(
            f"{repo}: the Hub did not take it: {reason} The same command goes on where it ended."
        ) from error
    return str(made)


def with_licence(text: str, licence: Licence | None) -> str:
    """A card whose first lines name the licence: of the base, since weights that are made of others stand under it."""
    line = f"license: {licence.name}\n" if licence else "license: unknown\n"
    head = text.removeprefix("---\n")
    return f"---\n{line}{head}" if head != text else f"---\n{line}---\n\n{text}"


def licence_of(base: str, revision: str | None = None, given: str | None = None) -> Licence | None:
    """The licence of a base: what a person says, or its folder's card, or the Hub; None where nobody says it."""
    folder = Path(base)
    files = tuple(folder / name for name in LICENCES if (folder / name).is_file()) if folder.is_dir() else ()
    if given is not None:
        return Licence(given, "you", files)
    if folder.is_dir():
        name = _named((folder / CARD).read_text(errors="replace")) if (folder / CARD).is_file() else None
        return Licence(name, f"the card in {folder}", files) if name else None
    from huggingface_hub import HfApi

    with suppress(Exception):  # without the Hub, and without a card there, nobody says it
        card: Any = HfApi().model_info(base, revision=revision).card_data or {}
        if isinstance(card.get("license"), str):
            return Licence(card["license"], f"{base} on the Hub")
    return None


def _named(card: str) -> str | None:
    found = re.search(r"\A---\n(?:.*\n)*?license:\s*([A-Za-z0-9.-]{1,40})\s*\n", card)
    return found[1] if found else None
