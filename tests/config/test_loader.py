from pathlib import Path

import pytest

from ftlib.config.loader import parse_override, parse_yaml, read_mapping, set_dotted
from ftlib.errors import ConfigError


def test_scientific_notation_is_a_number() -> None:
    assert parse_yaml("a: 1e-4") == {"a": 1e-4}
    assert parse_yaml("[1E5, 2e+3, 1.5e-2]") == [1e5, 2e3, 1.5e-2]
    assert parse_yaml("a: 1e-4x") == {"a": "1e-4x"}


def test_ordinary_anchors_work() -> None:
    assert parse_yaml("a: &x {r: 4}\nb: *x") == {"a": {"r": 4}, "b": {"r": 4}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2", "line 2: the key 'a' stands twice (first on line 1)"),
        ("a: {b: 1, b: 2}", "the key 'b' stands twice"),
        ("a: [1, 2", "line 1"),
        ("a:\tb: 1", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("? {a: 1}\n: 2", "a key must be a plain word"),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r".*") as raised:
        parse_yaml(text)
    assert says in str(raised.value)


def test_an_anchor_bomb_is_refused_at_once() -> None:
    levels = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    with pytest.raises(ConfigError, match="anchors and aliases expand"):
        parse_yaml("\n".join(levels))
    with pytest.raises(ConfigError, match="anchors and aliases expand"):
        parse_yaml("a: &a [*a]")


@pytest.mark.parametrize(
    ("content", "says"), [("", "is empty"), ("- 1", "is a list"), ("5", "is a int"), ("x", "a str")]
)
def test_a_document_must_be_a_mapping(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match="an experiment is a mapping") as raised:
        read_mapping(path)
    assert says in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_file_must_be_text(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_mapping(path)


def test_overrides_are_yaml() -> None:
    assert parse_override("train.learning_rate=1e-4") == ("train.learning_rate", 1e-4)
    assert parse_override("adapter=null") == ("adapter", None)
    assert parse_override("sweep.space={adapter.r: [1, 2]}") == ("sweep.space", {"adapter.r": [1, 2]})
    assert parse_override("data.train=a=b.jsonl") == ("data.train", "a=b.jsonl")
    with pytest.raises(ConfigError, match="write section.key=value"):
        parse_override("train.learning_rate")


def test_set_dotted_makes_sections_and_names_a_wrong_one() -> None:
    tree: dict[str, object] = {"train": {"seed": 1}, "name": "x"}
    set_dotted(tree, "train.learning_rate", 1.0)
    set_dotted(tree, "scale.num_workers", 2)
    set_dotted(tree, "sweep.space.train.learning_rate", [1, 2])
    set_dotted(tree, "sweep.space.adapter.r.max", 8)
    assert tree.pop("sweep") == {"space": {"train.learning_rate": [1, 2], "adapter.r": {"max": 8}}}
    assert tree == {"train": {"seed": 1, "learning_rate": 1.0}, "name": "x", "scale": {"num_workers": 2}}
    with pytest.raises(ConfigError, match="'name' is 'x', not a section"):
        set_dotted(tree, "name.first", 1)
