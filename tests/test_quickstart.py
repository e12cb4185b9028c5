"""The quickstart's rows: the held-out ones are in other words."""

import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "experiments" / "quickstart"


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"quickstart_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_rows_are_the_same_each_time_and_say_what_their_ticket_says(tmp_path: Path) -> None:
    prepare = script("prepare")
    prepare.main(tmp_path / "one")
    prepare.main(tmp_path / "two")
    for name in ("tickets.jsonl", "held_out.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        rows = [json.loads(line) for line in (tmp_path / "one" / name).read_text().splitlines()]
        answers = [json.loads(row["completion"]) for row in rows]
        for row, answer in zip(rows, answers, strict=True):
            assert list(answer) == ["category", "priority", "order"]
            assert answer["order"] is None or answer["order"] in row["prompt"]
        assert {answer["category"] for answer in answers} == {"billing", "delivery", "return", "account"}
        assert {answer["priority"] for answer in answers} == {"high", "normal"}
        assert any(answer["order"] is None for answer in answers)
        assert len({row["prompt"] for row in rows}) > 0.98 * len(rows)


def test_no_sentence_of_the_held_out_tickets_was_trained_on() -> None:
    prepare = script("prepare")
    trained, unseen = prepare.TRAINING, prepare.UNSEEN
    for kind in ("problems", "priorities"):
        for name, sentences in getattr(unseen, kind).items():
            assert not set(sentences) & set(getattr(trained, kind)[name])
    assert not set(unseen.orders) & set(trained.orders)


def test_numbers_stay_whole_in_a_mess() -> None:
    prepare = script("prepare")
    assert all("55120" in prepare.mess(random.Random(seed), "my order 55120 is late") for seed in range(300))
