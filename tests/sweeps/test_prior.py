"""First points and ranges: from published tables, and from earlier runs by quantile."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment, Range
from ftlib.errors import ConfigError
from ftlib.files.atomic import write_json
from ftlib.run.directory import Run
from ftlib.run.layout import POINT
from ftlib.sweeps import published
from ftlib.sweeps.prior import Past, from_past, from_tables, past_runs
from ftlib.sweeps.published import Shape

TREE: dict[str, Any] = {
    "name": "x",
    "model": {"name_or_path": "/models/smol"},
    "data": {"train": "d"},
    "method": {"type": "sft"},
    "adapter": {"type": "lora", "r": 4, "lora_alpha": 8},
}
SPACE: dict[str, Any] = {
    "adapter.r": [4, 8, 16],
    "adapter.lora_alpha": {"ratio_of": "adapter.r", "choices": [1, 2, 4]},
    "train.learning_rate": {"min": 1e-5, "max": 1e-1, "log": True},
}
SMOLLM = Shape("llama", 576)


def experiment(space: dict[str, Any] | None = None, **changes: Any) -> Experiment:
    return Experiment.parse({**TREE, **changes, "sweep": {"space": space or SPACE, "prior": "auto"}})


def test_every_row_of_the_table_has_a_source_and_a_dimension() -> None:
    for row in published.rows():
        assert row.source
        assert published.dimension_of(row, SMOLLM) is not None, row.key


def test_a_rate_depends_on_the_size_of_the_model() -> None:
    row = published.row_for(experiment(), "train.learning_rate")
    assert row is not None
    assert published.value_of(row, Shape("llama", 2000)) == 5e-4
    assert published.value_of(row, SMOLLM) == pytest.approx(1.3e-3)  # 5e-4 * (2000 / 576) ** 0.781
    assert published.value_of(row, Shape("qwen3", 4096)) == pytest.approx(4.7e-4)
    assert published.value_of(row, Shape("gpt2", 768)) == 5e-4  # nothing is published on this family


def test_published_points_stay_within_what_the_user_allows() -> None:
    points, sources = from_tables(experiment(), SMOLLM)
    assert points[0] == {"adapter.r": 16, "adapter.lora_alpha": 2, "train.learning_rate": 1.3e-3}
    assert [point["train.learning_rate"] for point in points[1:]] == pytest.approx([3.9e-3, 1.3e-3 / 3])
    assert any("LoRA Without Regret" in source for source in sources)
    narrow = {"train.learning_rate": {"min": 1e-2, "max": 2e-2}, "adapter.r": [2, 4]}
    assert from_tables(experiment(narrow), SMOLLM)[0] == [{"train.learning_rate": 1e-2, "adapter.r": 4}]
    assert from_tables(experiment({"train.weight_decay": [0.0, 0.1]}), SMOLLM) == ([], [])


def test_auto_takes_the_published_range() -> None:
    found, sentence = published.with_ranges(experiment({"train.learning_rate": "auto", "adapter.r": "auto"}), SMOLLM)
    assert found.sweep is not None
    rate = found.sweep.space["train.learning_rate"]
    assert isinstance(rate, Range)
    assert (rate.min, rate.max, rate.log) == (pytest.approx(1.3e-4), pytest.approx(1.3e-2), True)
    assert "ranges from published tables" in (sentence or "")
    with pytest.raises(ConfigError, match="nothing is published on it"):
        published.with_ranges(experiment({"train.weight_decay": "auto"}), SMOLLM)


def past(best: float, scale: float, seed: int) -> Past:
    """A run whose trials are the better the nearer their rate is to `best`; the scale of its loss does not matter."""
    draw = random.Random(seed)
    points = [{"train.learning_rate": 10 ** draw.uniform(-5, -1), "adapter.r": draw.choice([4, 8])} for _ in range(24)]
    points.sort(key=lambda point: scale * abs(math.log(point["train.learning_rate"] / best)))
    return Past(f"run{seed}", points, [(place + 0.5) / len(points) for place in range(len(points))])


def test_points_are_taken_where_earlier_runs_agree() -> None:
    leaves = experiment().sweep.leaves  # type: ignore[union-attr]
    found = from_past(leaves, [past(1e-3, 1.0, 0), past(2e-3, 1000.0, 1), past(1e-3, 0.01, 2)], 3)
    assert len(found) == 3
    assert 3e-4 < found[0]["train.learning_rate"] < 5e-3
    assert len({point["train.learning_rate"] for point in found}) == 3
    narrow = experiment({"train.learning_rate": {"min": 1e-5, "max": 1e-4}}).sweep.leaves  # type: ignore[union-attr]
    assert all(point["train.learning_rate"] <= 1e-4 for point in from_past(narrow, [past(1e-3, 1.0, 0)], 3))


def test_only_runs_on_the_same_base_and_method_are_read(tmp_path: Path) -> None:
    made = experiment()

    def a_run(name: str, **changes: Any) -> None:
        resolved = {"experiment": experiment(**changes).to_dict(), "objective": ["eval_loss", "min"]}
        run = Run.create(tmp_path, name, "", resolved, directory=name)
        for number in range(6):
            trial = run.trial(f"{number:03d}")
            trial.path.mkdir()
            row = '{"step": 1, "tokens": 1, "seconds": 1.0, "progress": 1.0, "eval_loss": %s}\n'
            trial.metrics_path.write_text(row % (6 - number))
            write_json(trial.path / POINT, {"train.learning_rate": 10.0**-number, "unknown": 1})
            trial.set_state("finished")

    a_run("same")
    a_run("other-base", model={"name_or_path": "/models/else"})
    a_run("other-method", method={"type": "pretrain"})
    a_run("itself")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "resolved.json").write_text("{")
    (found,) = past_runs(made, tmp_path, "itself")
    assert found.name == "same"
    assert found.points[0] == {"train.learning_rate": 1e-5}  # the best, by its loss
    assert found.quantiles[0] == pytest.approx(1 / 12)


def test_a_grid_takes_no_first_points() -> None:
    with pytest.raises(ConfigError, match="prior gives a searcher its first points"):
        Experiment.parse(
            {**TREE, "sweep": {"space": {"adapter.r": [2, 4]}, "prior": "auto", "search": {"type": "grid"}}}
        )
