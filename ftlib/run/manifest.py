"""A manifest: what the weights beside it are. Trials write theirs, and a version of the registry has one.

It decides what is loaded and how, and can come from anywhere, so its shape is looked at before anything is believed of
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ftlib.errors import FtlibError

Check = Callable[[Any], bool]


def why_none(value: Any, required: tuple[str, ...] = ()) -> str | None:
    """What keeps a value from being a manifest, in a few words; None where nothing does."""
    if not isinstance(value, dict):
        return "it holds no mapping"
    missing = [key for key in required if value.get(key) is None]
    if missing:
        return f"it has no '{missing[0]}'"
    if "experiment" in required and "model" not in value["experiment"]:
        return "its 'experiment' has no model"
    try:
        wrong = [key for key, fits in KEYS.items() if value.get(key) is not None and not fits(value[key])]
    except RecursionError:
        return "it is nested too deeply"
    return f"its '{wrong[0]}' is none" if wrong else None


def needed(manifest: Mapping[str, Any], owner: str, *required: str) -> None:
    """Raises FtlibError where the manifest of `owner` lacks what is needed to load its weights."""
    why = why_none(dict(manifest), required)
    if why is not None:
        raise FtlibError(f"the manifest of {owner} is damaged ({why}): promote another.")


def asks_for_code(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest says that code which comes with its base or its weights may run (`trust_remote_code`)."""
    return bool(((manifest.get("experiment") or {}).get("model") or {}).get("trust_remote_code"))


def without_code(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The same manifest, saying that it may not: what it says is only as good as who has written it."""
    if not asks_for_code(manifest):
        return dict(manifest)
    experiment = manifest["experiment"]
    return {**manifest, "experiment": {**experiment, "model": {**experiment["model"], "trust_remote_code": False}}}


def _is_base(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("name_or_path"), str):
        return False
    texts = [value.get("revision"), value.get("fingerprint")]
    parent = value.get("parent")
    return all(isinstance(text, str | None) for text in texts) and (parent is None or _is_parent(parent))


def _is_parent(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("version"), str)
        and isinstance(value.get("adapter", ""), str)
        and _is_base(value.get("base"))
    )


def _is_experiment(value: Any) -> bool:
    model = value.get("model") if isinstance(value, dict) else 0
    return model is None or (
        isinstance(model, dict)
        and isinstance(model.get("name_or_path"), str)
        and isinstance(model.get("trust_remote_code", False), bool)
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(number, int | float | None) for number in value.values())


def are_versions(value: Any) -> bool:
    """Of keys of an experiment, the version of data and its hash."""
    return isinstance(value, dict) and all(
        isinstance(told, dict) and all(isinstance(told.get(key), str) for key in ("version", "hash"))
        for told in value.values()
    )


def _is_merge(value: Any) -> bool:
    """Of which models it was merged, by which method, and what each counted."""
    parents = value.get("parents") if isinstance(value, dict) else None
    return (
        isinstance(parents, list)
        and isinstance(value.get("method"), str)
        and all(
            isinstance(told, dict)
            and isinstance(told.get("name"), str)
            and isinstance(told.get("weight"), int | float)
            and isinstance(told.get("fingerprint"), str)
            for told in parents
        )
    )


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).year > 0
    except (TypeError, ValueError):
        return False


def _is(*kinds: type) -> Check:
    return lambda value: isinstance(value, kinds)


KEYS: dict[str, Check] = {
    "kind": lambda value: value in ("adapter", "model", "data"),
    "base": _is_base,
    "experiment": _is_experiment,
    "labels": _are_texts,
    "metrics": _are_numbers,
    "promoted": _is_time,
    **dict.fromkeys(("run", "trial", "name", "data_hash", "chat_template", "signature", "files", "parent"), _is(str)),
    **dict.fromkeys(("version", "step", "tokens"), _is(int)),
    "data_versions": are_versions,
    "merged": _is(bool),
    "merge": _is_merge,
    "evaluation": _is(dict),
}
