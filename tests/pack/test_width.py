"""How wide: told by batches and memory before anything is computed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftlib.data import load_prepared
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.pack import width
from ftlib.pack.width import BUSY, COMPARED, Width, depends_on, estimated, places_of
from tests.training.test_trial import setting

PLACES = BUSY["cpu"] // 4  # four trials keep the machine busy


def base(parameters: int = 1000, hidden: int = 1) -> Any:
    config = SimpleNamespace(hidden_size=hidden, num_hidden_layers=1, vocab_size=0)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config))
    return SimpleNamespace(device=torch.device("cpu"), bank=SimpleNamespace(size=parameters), model=model)


@pytest.mark.parametrize(
    ("places", "most", "expected"),
    [
        (PLACES, 64, (4, COMPARED)),
        (PLACES, 3, (3, 3)),  # no more trials than there are
        (PLACES, 9, (5, 5)),  # in waves of like size, and not four in one pass and one in another
        (PLACES, 7, (4, 7)),
        (BUSY["cpu"], 6, (1, 6)),  # one trial keeps the machine busy: they take turns
        (BUSY["cpu"] // 64, 100, (50, 50)),
    ],
)
def test_a_pass_keeps_the_machine_busy(places: int, most: int, expected: tuple[int, int]) -> None:
    found = estimated(base(), places, most)
    assert (found.width, found.slots) == expected
    assert f"pack width {found.width} (estimated): {found.slots} trials t" in found.sentence


def test_memory_bounds_slots_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(width, "_free_bytes", lambda device: 2**30)
    found = estimated(base(hidden=2**10), PLACES, 64)  # 34 MiB a trial's pass
    assert (found.width, found.widest, found.slots) == (4, 8, 8)
    found = estimated(base(hidden=2**12), PLACES, 64)
    assert (found.width, found.widest, found.slots) == (3, 3, 8)
    found = estimated(base(2**23), PLACES, 64)  # 128 MiB a slot
    assert (found.width, found.slots) == (2, 2)
    assert estimated(base(2**30), PLACES, 64).slots == 1


def test_what_was_found_is_known_while_all_is_the_same(tree: dict[str, Any], tmp_path: Path) -> None:
    """Through `pack.json`, as a run that is resumed reads it."""
    made = setting(tree, tmp_path)
    data = load_prepared(Path(made.data))
    found = Width(4, 6, 8, places_of(made, data), "estimated")
    of = depends_on(made, data.hash, 4, "cpu", 1)
    write_json(tmp_path / "pack.json", {**found.to_dict(), "of": of})
    told = read_json(tmp_path / "pack.json")
    assert Width.known(told, of, 8) == found
    assert Width.known(told, of, 3) == Width(3, 3, 3, found.places, "estimated")
    assert Width.known({**told, "width": 2, "rates": {"2": 1.0}}, of, 8) == Width(2, 6, 8, found.places, "measured")
    for other in ({"threads": 2}, {"processor": "another"}, {"rank": 8}, {"data": "other rows"}, {"torch": "3.0"}):
        assert Width.known(told, of | other, 8) is None
    assert Width.known(None, of, 8) is None
