"""The table that people read says what the code does."""

from pathlib import Path

from ftlib.config import compat_table, methods
from ftlib.config.compat import RULES
from tests.conftest import ftlib

DOCS = Path(__file__).parents[2] / "docs" / "compatibility.md"


def test_the_page_is_what_the_code_says() -> None:
    assert DOCS.read_text(encoding="utf-8") == compat_table.markdown(), (
        "run: ftlib methods --markdown > docs/compatibility.md"
    )


def test_every_method_has_a_row() -> None:
    named = {section["type"] for section in compat_table.METHODS.values()}
    union = methods.MethodSection.__args__[0].__args__  # type: ignore[attr-defined]
    assert named == {section.model_fields["type"].annotation.__args__[0] for section in union}


def test_every_adapter_has_a_column() -> None:
    from ftlib.config import adapters

    union = adapters.AdapterSection.__args__[0].__args__  # type: ignore[attr-defined]
    named = {section["adapter"]["type"] for section in compat_table.ADAPTERS.values() if "adapter" in section}
    assert named == {section.model_fields["type"].annotation.__args__[0] for section in union}


def test_methods_prints_it() -> None:
    status, output = ftlib("methods")
    assert status == 0
    assert "distill on_policy" in output
    for rule in RULES:
        assert rule.sentence in output
