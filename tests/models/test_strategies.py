"""The heart: every strategy computes what one worker does, goes on where it stopped, and is really in use."""

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import transformers.trainer
from safetensors.torch import load_file

from ftlib.config import Experiment
from ftlib.errors import ConfigError, TrialError
from ftlib.models import strategies
from ftlib.run.context import Setting
from ftlib.run.directory import Run
from tests.conftest import ftlib, only_run, rows, write_experiment, write_jsonl
from tests.support import ranks

LORA = {"type": "lora", "r": 4, "lora_alpha": 8}
# What is trained: each a change of the `tree` fixture. Add a method here and every strategy is held to it.
TRIALS: dict[str, dict[str, Any]] = {
    "full": {"adapter": None},
    "lora": {"adapter": LORA},
    "dpo": {"adapter": LORA, "method": {"type": "dpo"}},
    "dpo-full": {"adapter": None, "method": {"type": "dpo"}},
    "accumulated": {"adapter": LORA, "train": {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1}},
    "checkpointed": {"adapter": LORA, "train": {"activation_checkpointing": True}},
}
SCALES: dict[str, dict[str, Any]] = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    "zero1": {"strategy": "deepspeed", "stage": 1},
    "zero2": {"strategy": "deepspeed", "stage": 2},
    # At this size nothing would be cut: what is small stays whole, unless the threshold is 0.
    "zero3": {
        "strategy": "deepspeed",
        "stage": 3,
        "deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 0}},
    },
    "zero3-offload": {"strategy": "deepspeed", "stage": 3, "offload": "cpu"},
}
# In `make test` each strategy but ZeRO 1 trains all weights or LoRA, those that cut weights both, and one of them DPO.
USUAL = {"full": ("fsdp", "zero2", "zero3"), "lora": ("ddp", "fsdp", "zero3"), "dpo": ("fsdp",)}
CASES = [
    pytest.param(trial, scale, id=f"{trial}-{scale}", marks=() if scale in USUAL.get(trial, ()) else pytest.mark.matrix)
    for trial in TRIALS
    for scale in SCALES
]
BATCH = 8  # of all workers together


def experiment(trial: str, scale: str, base: Path, folder: Path) -> Experiment:
    change = TRIALS[trial]
    is_dpo = change.get("method", {}).get("type") == "dpo"
    values: list[Any] = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": "It is grey."} if is_dpo else row
        for row in rows(81)
    ]
    workers = 1 if scale == "single" else 2
    train = {
        "learning_rate": 1e-3,
        "max_steps": 12,
        "per_device_train_batch_size": BATCH // workers,
        "per_device_eval_batch_size": 8 if workers == 1 else 5,  # of 17 rows: two workers cannot share them evenly
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 6,
    }
    return Experiment.parse(
        {
            "name": "colours",
            "model": {"name_or_path": str(base)},
            "data": {"train": str(write_jsonl(folder / "rows.jsonl", values)), "max_length": 64, "eval_split": 0.21},
            "method": {"type": "sft"},
            "track": {"wandb": None, "tensorboard": False},
            **change,
            "train": train | change.get("train", {}),
            "scale": {"num_workers": workers, **SCALES.get(scale, {})},
        }
    )


Trained = tuple[Setting, list[dict[str, Any]]]


@pytest.fixture(scope="session")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Trained]:
    """A trial under a strategy, trained once a session: (its setting, a note of each rank)."""
    done: dict[tuple[str, str], Trained] = {}

    def train(trial: str, scale: str) -> Trained:
        if (trial, scale) not in done:
            folder = tmp_path_factory.mktemp("trial")
            setting = ranks.setting(experiment(trial, scale, base, folder), folder)
            done[trial, scale] = setting, ranks.train(setting)
        return done[trial, scale]

    return train


def losses(setting: Setting) -> list[float]:
    return [row["loss"] for row in Run(Path(setting.run)).trial("000").metrics() if "loss" in row]


def evaluated(setting: Setting) -> dict[str, float]:
    """The last evaluation's numbers, without how long it took."""
    row = Run(Path(setting.run)).trial("000").evaluations("eval_loss")[-1]
    others = ("_runtime", "_per_second", "_time", "_parts")
    return {key: value for key, value in row.items() if key.startswith("eval_") and not key.endswith(others)}


def weights(setting: Setting) -> dict[str, torch.Tensor]:
    folder = Run(Path(setting.run)).trial("000").weights
    assert folder is not None
    return load_file(next(folder.glob("*.safetensors")))


def errors(notes: list[dict[str, Any]]) -> list[str]:
    return [note["error"] for note in notes if note["error"]]


@pytest.mark.parametrize(("trial", "scale"), CASES)
def test_a_strategy_computes_what_one_worker_does(trial: str, scale: str, trained: Callable[..., Trained]) -> None:
    alone, notes = trained(trial, "single")
    assert not errors(notes)
    spread, notes = trained(trial, scale)
    assert not errors(notes)
    assert len(losses(spread)) == 12
    assert losses(spread) == pytest.approx(losses(alone), rel=1e-4)
    assert evaluated(spread) == pytest.approx(evaluated(alone), rel=2e-4, abs=1e-5)
    torch.testing.assert_close(weights(spread), weights(alone), rtol=1e-3, atol=1e-4)
    shares = [note["held"] / note["whole"] for note in notes]
    assert shares == pytest.approx([0.5, 0.5] if scale in ("fsdp", "zero3", "zero3-offload") else [1, 1], abs=0.02)
    manifests = [Run(Path(setting.run)).trial("000").manifest for setting in (alone, spread)]
    for key in ("total_parameters", "trainable_parameters", "kind"):
        assert manifests[0][key] == manifests[1][key]


@pytest.mark.parametrize(
    ("trial", "scale"),
    [
        pytest.param(
            trial, scale, marks=() if (trial, scale) in (("full", "fsdp"), ("lora", "zero3")) else pytest.mark.matrix
        )
        for trial in ("full", "lora")
        for scale in SCALES
    ],
)
def test_cut_and_resumed_is_uncut(
    trial: str, scale: str, trained: Callable[..., Trained], base: Path, tmp_path: Path
) -> None:
    cut = ranks.setting(experiment(trial, scale, base, tmp_path), tmp_path)
    assert all(note["stopped"] for note in ranks.train(cut, stop_at=1))
    assert len(losses(cut)) == 6
    assert not errors(ranks.train(cut))
    whole, _ = trained(trial, scale)
    assert losses(cut) == pytest.approx(losses(whole), rel=1e-6)
    torch.testing.assert_close(weights(cut), weights(whole), rtol=1e-5, atol=1e-6)


def test_what_is_published_loads_without_the_strategy(trained: Callable[..., Trained], base: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for scale in ("fsdp", "zero3"):
        for trial, kind in (("full", "model"), ("lora", "adapter")):
            folder = Run(Path(trained(trial, scale)[0].run)).trial("000").weights
            assert folder is not None
            assert folder.name == kind
            suffixes = {path.suffix for path in folder.iterdir()}
            assert suffixes <= {".json", ".safetensors", ".jinja"}
            if trial == "full":
                AutoModelForCausalLM.from_pretrained(folder)
            else:
                PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)


def _fsdp_is_forgotten() -> None:
    strategies.FSDP.prepare = lambda self, trainer: None  # type: ignore[method-assign]  # as transformers does on a CPU


def _deepspeed_is_forgotten() -> None:
    strategies.DeepSpeed.arguments = lambda self: {}  # type: ignore[method-assign]


def _the_group_is_forgotten() -> None:
    torch.distributed.destroy_process_group()
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        del os.environ[name]


@pytest.mark.parametrize(
    ("scale", "forget", "says"),
    [
        ("fsdp", _fsdp_is_forgotten, "scale.strategy is 'fsdp', but it is not in use: .* is whole on every worker"),
        ("zero2", _deepspeed_is_forgotten, "scale.strategy is 'deepspeed', .* ZeRO stage 0 is in use, not 2"),
        ("ddp", _the_group_is_forgotten, "scale.strategy is 'ddp', .* 1 of 2 workers train together"),
    ],
)
def test_a_strategy_that_is_not_in_use_fails(
    scale: str, forget: Callable[[], None], says: str, base: Path, tmp_path: Path
) -> None:
    setting = ranks.setting(experiment("full", scale, base, tmp_path), tmp_path)
    failed = errors(ranks.train(setting, before=forget))
    assert len(failed) == 2
    assert all(error.startswith("TrialError") and re.search(says, error) for error in failed)
    assert not losses(setting)


def _the_second_worker_is_late() -> None:
    look = transformers.trainer.sort_checkpoints

    def late(output_dir: str, **kwargs: Any) -> Any:
        time.sleep(2 * int(os.environ["RANK"]))
        assert Path(output_dir).is_dir()
        return look(output_dir, **kwargs)

    transformers.trainer.sort_checkpoints = late


def test_a_worker_may_be_late_at_the_end(base: Path, tmp_path: Path) -> None:
    """The trainer lists its folder once more: an error, where the first worker tidies it away just then."""
    setting = ranks.setting(experiment("lora", "ddp", base, tmp_path), tmp_path)
    assert not errors(ranks.train(setting, before=_the_second_worker_is_late))


def test_no_compiler_is_one_sentence(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies.shutil, "which", lambda name: None)
    there = experiment("full", "zero3", base, tmp_path)
    assert strategies.strategy_of(there)  # nothing of it is built
    offloads = there.scale.model_copy(update={"offload": "nvme", "nvme_path": "/disk"})
    with pytest.raises(TrialError, match=r"the worker has no ninja and no c\+\+: install a C\+\+ compiler and ninja"):
        strategies.strategy_of(there.model_copy(update={"scale": offloads}))


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        ({"strategy": "ddp", "num_workers": 2, "stage": 2}, "stage has no effect with strategy 'ddp'"),
        ({"strategy": "fsdp", "num_workers": 2, "offload": "cpu"}, "offload has no effect with strategy 'fsdp'"),
        ({"cpu_offload": True}, "cpu_offload has no effect with strategy 'single'"),
        ({"strategy": "fsdp"}, "strategy 'fsdp' needs num_workers of 2 or more"),
        ({"strategy": "fsdp", "num_workers": 2, "cpu_offload": True}, "cpu_offload moves weights from a GPU"),
        ({"strategy": "deepspeed", "offload": "nvme", "stage": 3}, "offload 'nvme' needs nvme_path"),
        ({"strategy": "deepspeed", "nvme_path": "/disk"}, "nvme_path has no effect while offload is 'none'"),
        ({"strategy": "deepspeed", "deepspeed": "none.json"}, "deepspeed is 'none.json', which is no readable JSON"),
        ({"strategy": "deepspeed", "deepspeed": {"optimizer": {"type": "AdamW"}}}, "is said by train.optim"),
        (
            {"strategy": "deepspeed", "stage": 1, "deepspeed": {"zero_optimization": {"stage": 3}}},
            "stage is 1, but deepspeed.zero_optimization.stage is 3",
        ),
        ({"strategy": "zero3"}, "must be one of: single, ddp, fsdp, deepspeed"),
    ],
)
def test_what_has_no_effect_is_refused(scale: dict[str, Any], says: str, tree: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        Experiment.parse({**tree, "scale": scale})
    assert says in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_deepspeed_file_is_read_into_the_run(tree: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "zero3.json"
    file.write_text('{"zero_optimization": {"stage": 3, "overlap_comm": false}, "train_batch_size": "auto"}')
    tree["scale"] = {"strategy": "deepspeed", "num_workers": 2, "deepspeed": str(file)}
    parsed = Experiment.parse(tree)
    assert parsed.scale.stage == 3
    file.unlink()
    again = Experiment.parse(parsed.to_dict())
    assert again == parsed
    config = strategies.strategy_of(again).arguments()["deepspeed"]
    assert config["zero_optimization"]["overlap_comm"] is False
    assert config["zero_optimization"]["stage"] == 3
    assert config["train_batch_size"] == 16


def _kill_a_worker(storage: str, killed: list[int], over: threading.Event) -> None:
    while not killed and not over.wait(0.2):
        if list(Path(storage).glob("*/trials/000/checkpoint")):
            ours = psutil.Process().children(recursive=True)
            workers = [process for process in ours if any("RayTrainWorker" in part for part in process.cmdline())]
            if workers:
                workers[0].kill()
                killed.append(workers[0].pid)


@pytest.mark.usefixtures("ray_local")
@pytest.mark.matrix
def test_a_killed_worker_of_two_costs_no_step(tree: dict[str, Any], tmp_path: Path) -> None:
    """`ftlib train` with FSDP on Ray; one of its two workers is killed once there is a checkpoint."""
    tree["train"].update(num_train_epochs=10, per_device_train_batch_size=4, eval_strategy="steps", eval_steps=20)
    tree["scale"] = {"strategy": "fsdp", "num_workers": 2, "max_failures": 1}
    killed: list[int] = []
    thread = threading.Thread(target=_kill_a_worker, args=(tree["storage"], killed, over := threading.Event()))
    thread.start()
    status, output = ftlib("train", write_experiment(tmp_path / "x.yaml", tree))
    over.set()
    thread.join()
    assert killed
    assert status == 0, output
    run = only_run(tree["storage"])
    assert [trial.state for trial in run.trials()] == ["finished"]
    steps = [row["step"] for row in run.trials()[0].metrics() if "loss" in row]
    assert steps == sorted(set(steps))  # no step is there twice
    assert [event["event"] for event in run.events()].count("trial_started") == 1  # mended inside the job


@pytest.mark.usefixtures("ray_local")
@pytest.mark.matrix
def test_asha_stops_trials_of_two_workers(tree: dict[str, Any], tmp_path: Path) -> None:
    """A stopped trial's workers are given back: the next trial starts, although Ray leaves their place standing."""
    tree["train"].update(num_train_epochs=6, per_device_train_batch_size=4)
    tree["scale"] = {"strategy": "ddp", "num_workers": 2}
    tree["sweep"] = {
        "space": {"train.learning_rate": [1e-2, 1e-7, 1e-8]},
        "search": {"type": "grid"},
        "baseline": False,
        "scheduler": {"type": "asha", "reduction_factor": 4},
    }
    status, output = ftlib("sweep", write_experiment(tmp_path / "x.yaml", tree))
    assert status == 0, output
    states = [trial.state for trial in only_run(tree["storage"]).trials()]
    assert states.count("stopped") >= 2
    assert "finished" in states
