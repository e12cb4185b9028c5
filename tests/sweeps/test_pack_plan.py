"""Who trains: the engine of packs, also one trial alone, or the method's trainer; and how many hosts."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ftlib.config import Experiment
from ftlib.data import load_prepared
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.run.directory import Run
from ftlib.run.layout import PACK_FILE
from ftlib.sweeps import pack_plan
from ftlib.sweeps.pack_plan import _guessed, _worth, first_hosts, is_packed, open_packs
from tests.conftest import ftlib, only_run, write_experiment
from tests.pack import conftest as packs
from tests.training.test_trial import setting
from tests.training.test_trial import train as train_by_trl

SPACE = {"train.learning_rate": [1e-3, 1e-2]}


def interrupt_when(folder: Path, pattern: str) -> threading.Thread:
    """Ctrl-C for this process, once a file is there."""

    def wait() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not list(folder.glob(pattern)):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture
def threads_after() -> Iterator[None]:
    """A test may set the threads of this process; those that come after compare bits of one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_training_is_a_pack_of_one_and_trls_interrupted_or_not(
    tree: dict[str, Any], tmp_path: Path, ray_local: None, threads_after: None
) -> None:
    """A run that Ctrl-C breaks off and that goes on leaves the bits of a pack that nothing disturbs, and TRL's
    losses."""
    tree["train"].update(max_steps=48, logging_steps=1, eval_strategy="steps", eval_steps=8)
    tree["adapter"]["lora_alpha"] = 16
    waits = interrupt_when(tmp_path / "runs", "*/trials/000/checkpoint")
    status, output = ftlib("train", write_experiment(tmp_path / "x.yaml", tree))
    waits.join()
    assert status == 130, output
    assert "pack width" not in output
    run = only_run(tree["storage"])
    assert run.trial("000").state == "preempted"
    assert ftlib("resume", run.path)[0] == 0
    assert [event["repeats"] for event in run.events() if event["event"] == "trial_continued"] == [0]
    assert run.trial("000").manifest["packed"] is True
    assert run.trial("base").state == "finished"
    threads = read_json(run.path / PACK_FILE)["found"]["threads"]
    assert threads == 2  # all cores of the machine, and a trial asks for one

    alone = setting(tree, tmp_path / "alone")
    packs.train(packs.pack_of(alone, slots=1, rank=4, threads=threads, shares=threads), {"000": {}})
    packs.assert_same_bits(packs.left_behind(run.trial("000")), packs.left_behind(packs.trial(alone, "000")))
    by_trl = setting(tree, tmp_path / "trl")
    train_by_trl(by_trl)
    for key in ("loss", "eval_loss"):
        theirs = packs.losses(packs.trial(by_trl, "000"), key)
        assert packs.losses(run.trial("000"), key) == pytest.approx(theirs, abs=1e-4)


def test_a_run_goes_on_with_the_engine_that_it_began_with(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "x", "", {})
    assert is_packed(run)  # nothing has begun
    run.new_trial()
    assert not is_packed(run)  # its checkpoint is TRL's
    write_json(run.path / PACK_FILE, {})
    assert is_packed(run)


@pytest.mark.parametrize(
    ("changes", "why", "said"),
    [
        ({"scale": {"engine": "trainer"}}, "the method's trainer was asked for: use scale.engine: auto", False),
        ({"adapter": {"type": "ia3"}}, "only LoRA adapters share their base's products: use adapter.type: lora", False),
        ({"scale": {"resources_per_worker": {"GPU": 1}}}, "on a GPU, the engine of packs is for several trials", False),
        ({"sweep": {"space": SPACE, "pack": "off"}}, "sweep.pack: off", False),
        (
            {"sweep": {"space": SPACE}, "adapter": {"type": "lora", "init_lora_weights": "olora"}},
            "slots begin with a B of zeros: use init_lora_weights: true or gaussian",
            True,
        ),
        ({"sweep": {"space": SPACE}, "data": {"packing": True}}, "a pack computes no padding anyway: use", True),
    ],
)
def test_what_the_methods_trainer_trains_is_noted(
    changes: dict[str, Any], why: str, said: bool, tree: dict[str, Any], tmp_path: Path
) -> None:
    """It is said to whom hoped for packs: neither to whom trains one trial, nor to whom asked for no pack."""
    tree["data"] |= changes.pop("data", {})
    experiment = Experiment.parse(tree | changes)
    assert first_hosts(experiment) == []
    run, sentences = Run.create(tmp_path, "x", "", {}), []
    nothing: Any = None
    assert open_packs([], experiment, nothing, run, nothing, sentences.append) is None
    (told,) = [event["why"] for event in run.events() if event["event"] == "not_packed"]
    assert why in told
    assert [why in sentence for sentence in sentences] == [True] * said


# --- how many hosts -----------------------------------------------------------------------------------------------


@pytest.fixture
def swept(tree: dict[str, Any]) -> dict[str, Any]:
    space = {"train.learning_rate": [1e-3, 1e-2]}
    return {**tree, "sweep": {"space": space, "search": {"type": "grid"}, "scheduler": {"type": "none"}}}


def test_hosts_are_guessed_from_steps_and_files(swept: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_plan, "WORTH_SECONDS", 1e-9)
    swept["train"].pop("max_steps", None)
    assert _guessed(Experiment.parse(swept)) == 1  # how many rows an epoch has is not known yet
    swept["train"]["max_steps"] = 8
    assert _guessed(Experiment.parse(swept)) > 1
    monkeypatch.setattr(pack_plan, "WORTH_SECONDS", 1e9)
    assert _guessed(Experiment.parse(swept)) == 1


def test_work_makes_hosts_up_to_what_fits(
    swept: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None
) -> None:
    made = packs.setting(swept, tmp_path)
    data = load_prepared(Path(made.data))
    assert _worth(made.experiment(), data) == 1
    monkeypatch.setattr(pack_plan, "WORTH_SECONDS", 1e-9)
    assert _worth(made.experiment(), data) == 2
