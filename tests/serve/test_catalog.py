"""Names follow the registry; trouble with one leaves it, and the others, as they were."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from ftlib.registry import registry
from ftlib.registry.version import Version
from ftlib.run.directory import Run
from serve.engine.messages import Refused
from serve.engine.options import Endpoint
from serve.front.catalog import Catalog
from serve.front.engines import Engines


@pytest.fixture
def run(promoted: None, tmp_path: Path) -> Run:
    return Run.open(next((tmp_path / "runs").iterdir()))


def test_all_names_means_those_to_come_too(run: Run) -> None:
    every, one = Catalog([]), Catalog(["one"])
    for catalog in (every, one):
        catalog.refresh()
    registry.register(run, run.trial("two"), "three")
    registry.register(run, run.trial("two"), "one")
    for catalog in (every, one):
        catalog.refresh()
    assert [entry.name for entry in every.entries()] == ["one", "three", "two"]
    assert [(entry.name, entry.version.id) for entry in one.entries()] == [("one", "one@2")]
    assert [one.route(f"one@{number}").id for number in (1, 2)] == ["one@1", "one@2"]
    for wrong in ("one@3", "one@0", "one@01", "one@", "one@+1", "one@1@1", "one@../1", "two@1"):
        with pytest.raises(Refused, match="is not served here"):
            one.route(wrong)


def test_a_version_by_number_is_there_for_ever_and_one_that_must_not_be_loaded_never(run: Run) -> None:
    registry.register(run, run.trial("two"), "one")
    asked: list[str] = []

    def reach(version: Version) -> bool:
        asked.append(version.id)
        registry.check_loadable(version)
        return True

    catalog = Catalog(["one"], reach=reach)
    catalog.refresh()
    assert catalog.route("one@1").id == catalog.route("one@1").id == "one@1"
    assert asked == ["one@1"]  # it never changes, so it is looked up once
    (registry.resolve("one@1").weights / "adapter_model.bin").write_bytes(b"pickled")
    other = Catalog(["one"], reach=reach)
    other.refresh()
    with pytest.raises(Refused, match="'one@1' is not served here"):
        other.route("one@1")
    shutil.rmtree(registry.resolve("one@1").path)
    with pytest.raises(Refused, match="'one@1' is not served here"):
        catalog.route("one@1")


def test_a_refusal_names_what_the_key_opens_and_nothing_else(run: Run) -> None:
    catalog = Catalog([])
    catalog.refresh()
    with pytest.raises(Refused) as caught:
        catalog.route("one@9", lambda name: name.startswith("one"))
    assert "two" not in caught.value.refusal.message
    assert "There is one." in caught.value.refusal.message


def test_a_canary_gets_its_share(run: Run, base: Path) -> None:
    registry.register(run, run.trial("two"), "one", canary=0.25)
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
    registry.register(run, run.trial("two"), "one")
    catalog.refresh()
    assert catalog.route("one").id == "one@1"
    ready.add("one@2")
    catalog.refresh()
    assert catalog.route("one").id == "one@2"


def test_a_damaged_name_stays_as_it_was(run: Run) -> None:
    catalog = Catalog(["one", "two"])
    catalog.refresh()
    registry.register(run, run.trial("two"), "two")
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


def test_an_engine_that_no_name_means_is_started_where_there_is_room(run: Run) -> None:
    version = registry.resolve("one")
    engines = Engines(Endpoint(max_extra_engines=0), {})
    assert not engines.reach(version)
    assert not engines.answers(version)
    assert engines._starting == {}


def test_so_many_engines_that_no_name_means_and_no_more(run: Run) -> None:
    engines = Engines(Endpoint(), {})
    engines._started["first"] = time.monotonic()
    assert engines._make_room()
    engines._started["second"] = time.monotonic()
    assert not engines._make_room()
    assert not engines.reach(registry.resolve("one"))
    assert engines._starting == {}
    engines.meant = {"second"}  # a name means it by now
    assert engines._make_room()
