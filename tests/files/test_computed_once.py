"""What processes make once, each for all others."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ftlib.files.computed_once import cached, shared_out


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path))


def test_who_need_the_same_parts_at_once_share_the_work() -> None:
    parts = [{"part": number} for number in range(6)]
    both, made = threading.Barrier(2, timeout=30), list[tuple[int, int]]()
    met = dict[int, bool]()

    def work(who: int) -> list[Path]:
        def build(number: int, folder: Path) -> None:
            made.append((who, number))
            if not met.setdefault(who, False):  # neither has more than its first part before both have one
                met[who] = True
                both.wait()
            (folder / "text").write_text(str(number))

        return shared_out("test", parts, build)

    found = dict[int, list[Path]]()
    threads = [threading.Thread(target=lambda who=who: found.update({who: work(who)})) for who in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for _, number in made) == list(range(6))  # each part once
    assert {who for who, _ in made} == {0, 1}
    assert found[0] == found[1]
    assert [(folder / "text").read_text() for folder in found[0]] == list("012345")


def test_a_part_that_fails_leaves_nothing_and_the_others_stay() -> None:
    def build(number: int, folder: Path) -> None:
        (folder / "text").write_text("half")
        if number == 1:
            raise KeyError("broken")

    with pytest.raises(KeyError):
        shared_out("test", [{"part": 0}, {"part": 1}], build)
    assert cached("test", {"part": 0}, lambda folder: pytest.fail("it was made")).is_dir()
    again = cached("test", {"part": 1}, lambda folder: None)
    assert not list(again.iterdir())
