"""Names follow the registry; trouble with one leaves it, and the others, as they were."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from ftlib.registry import registry
from ftlib.registry.registry import Version
from ftlib.runs import Run
from serve.catalog import Catalog
from serve.protocol import Refused


@pytest.fixture
def run(promoted: None, tmp_path: Path) -> Run:
    return Run.open(next((tmp_path / "runs").iterdir()))


def test_all_names_means_those_to_come_too(run: Run) -> None:
    every, one = Catalog([]), Catalog(["one"])
    for catalog in (every, one):
        catalog.refresh()
    registry.promote(run, run.trial("two"), "three")
    registry.promote(run, run.trial("two"), "one")
    for catalog in (every, one):
        catalog.refresh()
    assert [each.name for each in every.entries()] == ["one", "three", "two"]
    assert [(each.name, each.version.id) for each in one.entries()] == [("one", "one@2")]
    assert one.route("one@2").id == "one@2"
    with pytest.raises(Refused, match="'one@1' is not served here"):
        one.route("one@1")


def test_a_canary_gets_its_share(run: Run, base: Path) -> None:
    registry.promote(run, run.trial("two"), "one", canary=0.25)
    catalog = Catalog(["one"])
    catalog.refresh()
    counts = Counter(catalog.route("one").id for _ in range(4000))
    assert set(counts) == {"one@1", "one@2"}
    assert 0.2 < counts["one@2"] / 4000 < 0.3
    registry.rollback("one")
    catalog.refresh()
    assert {catalog.route("one").id for _ in range(100)} == {"one@1"}


def test_a_name_keeps_its_version_until_the_next_is_ready(run: Run) -> None:
    ready: set[str] = {"one@1", "two@1"}

    def answers(version: Version) -> bool:
        return version.id in ready

    catalog = Catalog(["one", "two"], answers)
    catalog.refresh()
    registry.promote(run, run.trial("two"), "one")
    catalog.refresh()
    assert catalog.route("one").id == "one@1"
    ready.add("one@2")
    catalog.refresh()
    assert catalog.route("one").id == "one@2"


def test_a_damaged_name_stays_as_it_was(run: Run) -> None:
    catalog = Catalog(["one", "two"])
    catalog.refresh()
    registry.promote(run, run.trial("two"), "two")
    current = registry.current("one").path.parent / "current.json"
    content = current.read_text()
    current.write_text("{")
    catalog.refresh()
    assert catalog.route("one").id == "one@1"
    assert catalog.route("two").id == "two@2"
    current.write_text(content)
    shutil.rmtree(registry.resolve("two").path)
    catalog.refresh()
    assert catalog.route("one").id == "one@1"
