"""TensorBoard's tab HPARAMS, read back with TensorBoard's own parser."""

from pathlib import Path
from typing import Any

import pytest

from ftlib.config import TrackSection
from ftlib.run.tracking import following
from tests.run.tracking.ended import ended


def test_hparams_show_the_points_with_the_objective(tmp_path: Path, tree: dict[str, Any]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    run = ended(tmp_path, tree, {})
    with following(run, TrackSection(wandb=None), pytest.fail):
        pass
    points, best, shown = {}, {}, set()
    for trial in ("base", "000", "001", "002"):
        events = EventAccumulator(str(run.path / "tensorboard" / trial))
        events.Reload()
        try:
            tags = events.PluginTagToContent("hparams")
        except KeyError:
            continue
        start = metadata.parse_session_start_info_plugin_data(tags["_hparams_/session_start_info"])
        points[trial] = {name: value.number_value for name, value in start.hparams.items()}
        experiment = metadata.parse_experiment_plugin_data(tags["_hparams_/experiment"])
        shown |= {info.name.tag for info in experiment.metric_infos}
        if "objective" in events.Tags()["scalars"]:
            best[trial] = events.Scalars("objective")[-1].value
    assert points == {name: {"r": r, "learning_rate": 1e-3} for name, r in (("000", 2), ("001", 4), ("002", 8))}
    assert shown == {"objective"}
    assert best == {"000": pytest.approx(2.0), "001": pytest.approx(2.8)}  # the best, not the last; none of a failure
