"""Turns pydantic's findings into one sentence each: the dotted path, the value, what is allowed, the nearest name.

People arrive with the keys of other tools in their fingers; each of those is answered with our name for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ftlib.config.foreign import answer, answers, instead
from ftlib.config.loader import DIMENSION_KEYS
from ftlib.errors import closest, nearest

# How alike a key and its nearest name are at least, in its own section and elsewhere: a false neighbour is worse than
# none. Words that say nothing of their section; and how many letters a word has at least to be like another by no
# chance.
COMMON, SHORT = {"type", "name", "path", "weight", "min", "max", "log", "q", "choices"}, 6
CLOSE, CLOSER = 0.75, 0.85
EVERY_EXPERIMENT = "model.name_or_path"  # a path of experiments, and of no other file

WORDS = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a section (a mapping of keys)",
    "model_attributes_type": "must be a section (a mapping of keys)",
    "none_required": "must be null",
}


def explain(error: ValidationError, root: type[BaseModel], source: str) -> str:
    """Every finding of `error` as a sentence, the same finding once, `source` before each."""
    found = [_sentence(dict(finding), root) for finding in error.errors(include_url=False)]
    return "\n".join(f"{source}: {sentence}" for sentence in dict.fromkeys(found))


def unknown_key(path: str, root: type[BaseModel], within: str) -> str:
    """The sentence for a dotted path that names nothing."""
    return f"{within}: there is no key '{path}'.{_better_name(path.split('.'), root)}"


def _sentence(finding: dict[str, Any], root: type[BaseModel]) -> str:
    kind, context, value = finding["type"], finding.get("ctx", {}), finding.get("input")
    parts = [str(part) for part in finding["loc"] if not _is_tag(part, root, finding["loc"])]
    parts = [part for part in parts if not part.startswith("[")]  # which of two shapes pydantic read a value as
    path = ".".join(parts)
    if kind == "extra_forbidden":
        return f"there is no key '{path}'.{_better_name(parts, root)}"
    if kind == "union_tag_not_found":
        return f"{path}.type is missing: {_tags(path, root)}."
    if kind == "union_tag_invalid":
        tags = [tag.strip("'") for tag in context["expected_tags"].split(", ")]
        return f"{path}.type is '{context['tag']}', but must be one of: {', '.join(tags)}." + _better_value(
            f"{path}.type", str(context["tag"]), tags
        )
    if kind == "literal_error":
        allowed = [choice.strip().strip("'") for choice in context["expected"].replace(" or ", ", ").split(",")]
        better = _better_value(path, str(value), allowed)
        return f"{path} is {value!r}, but must be one of: {', '.join(allowed)}.{better}"
    if kind == "value_error":
        reason = str(context["error"])
        reason += "" if reason.endswith("?") else "."
        return f"{path}: {reason}" if path else reason
    if kind == "missing":
        return f"{path} is missing."
    if kind == "string_pattern_mismatch":
        return f"{path} is {value!r}, but must be letters, digits, '.', '_' and '-', at most 64 of them."
    if kind == "too_short":
        return f"{path} is empty."
    if kind.startswith("model_") and isinstance(value, str) and value in _tag_names(root, path):
        return f"{path} is '{value}', but must be a section: write {path}: {{type: {value}}}."
    if kind.startswith("model_") and value in (False, None, "off", "no") and "none" in _tag_names(root, path):
        return f"{path} is {value!r}, but must be a section: write {path}: {{type: none}}."
    if path == "track.wandb" and value in ("online", "offline", "disabled"):
        return f"{path} is '{value}', but must be a section: write {path}: {{mode: {value}}}."
    wanted = WORDS.get(kind) or finding["msg"].replace("Input should", "must").replace("String should", "must")
    wanted = wanted.replace("List should", "must").replace("Dictionary should", "must")
    return f"{path} is {value!r}, but {wanted}." if path else f"{wanted}."


def _better_value(path: str, value: str, allowed: list[str]) -> str:
    return instead(path, value) or nearest(value, allowed, CLOSE)


def _is_tag(part: Any, root: type[BaseModel], loc: tuple[Any, ...]) -> bool:
    """Whether pydantic put the union's tag (adapter.lora.r) into the path: a person wrote adapter.r."""
    position = loc.index(part)
    if position == 0 or not isinstance(part, str):
        return False
    return part in _tag_names(root, ".".join(str(key) for key in loc[:position]))


def _better_name(parts: list[str], root: type[BaseModel]) -> str:
    """Ours for a key of another tool; else a near name in the same section; else the same name in another section."""
    leaf = parts[-1]
    if parts[:2] == ["sweep", "space"] and len(parts) > 3:
        return nearest(leaf, DIMENSION_KEYS) or f" Known here: {', '.join(DIMENSION_KEYS)}."
    known = list(dotted_paths(root))
    section = ".".join(part for part in parts[:-1] if not part.isdecimal())  # a list's members are all alike
    siblings = [path for path in known if path.rpartition(".")[0] == section]
    found = answer(leaf, section) if EVERY_EXPERIMENT in known else None  # other tools' keys are of experiments
    if found is not None and found.text != ".".join(parts):
        if found.text.rpartition(".")[2] == leaf:  # it has the same name here
            return f" Did you mean '{found.text}'?"
        return f" {found.sentence}"
    elsewhere = [path for path in known if path.rpartition(".")[2] == leaf and leaf not in COMMON]
    if elsewhere:
        return f" Did you mean '{elsewhere[0]}'?"
    near = nearest(leaf, [path.rpartition(".")[2] for path in siblings], CLOSE)
    if near:
        return near
    listed = sorted({path.rpartition(".")[2] for path in siblings})
    return _nearest_anywhere(leaf, known) or (f" Known here: {', '.join(listed)}." if listed else "")


def _nearest_anywhere(leaf: str, known: list[str]) -> str:
    """A typing error in a key that stands in another section, or in a key of another tool. Short words are too
    alike."""
    if len(leaf) < SHORT:
        return ""
    leaves = {path.rpartition(".")[2]: path for path in reversed(known)}
    leaves = {leaf: path for leaf, path in leaves.items() if leaf not in COMMON}
    for words in (leaves, answers() if EVERY_EXPERIMENT in known else {}):
        close = closest(leaf, words, CLOSER)
        if close in leaves:
            return f" Did you mean '{leaves[close]}'?"
        if close is not None:
            return f" '{close}' of other tools: {answers()[close].sentence}"
    return ""


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections inside an annotation such as `Annotated[A | B, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def dotted_paths(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted path of an experiment."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if name != "space":
            for inner in models_in(field.annotation):
                yield from dotted_paths(inner, f"{prefix}{name}.")


def _tag_names(root: type[BaseModel], path: str) -> list[str]:
    sections: list[type[BaseModel]] = [root]
    for part in path.split("."):
        if part.isdecimal():  # of a list: its members are all alike
            continue
        fields = [section.model_fields[part] for section in sections if part in section.model_fields]
        sections = [inner for field in fields for inner in models_in(field.annotation)]
    fields = [section.model_fields["type"] for section in sections if "type" in section.model_fields]
    return [name for field in fields for name in get_args(field.annotation)]


def _tags(path: str, root: type[BaseModel]) -> str:
    return f"write one of: {', '.join(_tag_names(root, path))}"
