"""One trial without Ray. The heart: ours = TRL called by hand; interrupted + resumed = uninterrupted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ftlib.config import Experiment
from ftlib.data import prepare
from ftlib.errors import TrialError
from ftlib.models.base import load_tokenizer
from ftlib.run.context import Rungs, Setting
from ftlib.run.directory import Run
from ftlib.training.trial import run_trial
from tests.conftest import rows, write_jsonl
from tests.methods.conftest import labelled, pairs


def setting(tree: dict[str, Any], tmp_path: Path, **more: Any) -> Setting:
    experiment = Experiment.parse(tree)
    data = prepare(experiment.data, experiment.method.rows, load_tokenizer(experiment.model, experiment.method.head))
    run = Run.create(tmp_path, "run", "", {"experiment": experiment.to_dict()})
    run.trial("000").path.mkdir()
    return Setting(run=str(run.path), data=str(data.path), resolved=experiment.to_dict(), **more)


def train(
    setting: Setting, trial: str = "000", params: dict[str, Any] | None = None, **more: Any
) -> list[dict[str, Any]]:
    """Trains, and returns what was reported."""
    reports: list[dict[str, Any]] = []
    (Path(setting.run) / "trials" / trial).mkdir(exist_ok=True)
    run_trial(setting, trial, params or {}, reports.append, **more)
    return reports


def cut_at_the_second_report(setting: Setting) -> list[dict[str, Any]]:
    """Trains until the second report, where Tune ends it, and returns what was reported."""
    heard: list[dict[str, Any]] = []

    def stop(report: dict[str, Any]) -> None:
        heard.append(report)
        if len(heard) == 2:
            raise SystemExit  # how Tune ends a function that it has stopped

    with pytest.raises(SystemExit):
        run_trial(setting, "000", {}, stop)
    return heard


def losses(setting: Setting, trial: str = "000") -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in Run(Path(setting.run)).trial(trial).metrics() if "loss" in row]


def weights(setting: Setting, trial: str = "000") -> dict[str, torch.Tensor]:
    folder = Run(Path(setting.run)).trial(trial).weights
    assert folder is not None
    return load_file(next(folder.glob("*.safetensors")))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_trial_leaves_metrics_checkpoint_adapter_and_manifest(tree: dict[str, Any], tmp_path: Path) -> None:
    done = setting(tree, tmp_path)
    reports = train(done)
    trial = Run(Path(done.run)).trial("000")
    assert [report["finished"] for report in reports] == [False, True]
    assert sorted(path.name for path in trial.path.iterdir()) == [
        "adapter",
        "checkpoint",
        "manifest.json",
        "metrics.jsonl",
    ]
    assert trial.weights == trial.path / "adapter"
    held = {path.name for path in (trial.path / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"} <= held
    assert not held & {"optimizer.pt", "training_args.bin"}  # nothing pickled goes to the registry
    manifest = trial.manifest
    assert manifest["metrics"]["eval_loss"] == reports[-1]["eval_loss"]
    assert manifest["trainable_parameters"] < manifest["total_parameters"]
    assert len(manifest["base"]["fingerprint"]) == 64
    tokens = sum(len(row["input_ids"]) for row in _prepared(done).train)
    assert reports[-1]["tokens"] == tokens


def _prepared(setting: Setting) -> Any:
    from ftlib.data import load_prepared

    return load_prepared(Path(setting.data))


@pytest.mark.parametrize(
    ("lora", "schedule", "loss"),
    [
        ({}, {"lr_scheduler_type": "cosine"}, "nll"),
        (
            {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 4e-3}},
            "dft",
        ),
    ],
    ids=["lora", "modules_to_save"],
)
def test_ours_is_trl_called_by_hand(
    lora: dict[str, Any], schedule: dict[str, Any], loss: str, tree: dict[str, Any], tmp_path: Path, base: Path
) -> None:
    """The same rows through TRL's own tokenization, masking and trainer: the same losses and the same weights."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tree["data"].update(eval=str(tree["data"]["train"]))
    tree["method"]["loss_type"] = loss
    tree["adapter"] |= lora
    tree["train"] |= schedule
    done = setting(tree, tmp_path)
    train(done)
    messages = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in rows(80)
    ]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base),
        args=SFTConfig(
            output_dir=str(tmp_path / "trl"),
            learning_rate=1e-2,
            num_train_epochs=1,
            per_device_train_batch_size=8,
            **schedule,
            optim="adamw_torch",
            loss_type=loss,
            logging_steps=2,
            max_length=64,
            bf16=False,
            activation_checkpointing=False,
            use_cpu=True,
            report_to=[],
            seed=42,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(messages),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear", **lora),
    )
    trainer.train()
    theirs = [(row["step"], row["loss"]) for row in trainer.state.log_history if "loss" in row]
    assert losses(done) == theirs
    trainer.save_model(str(tmp_path / "trl-adapter"))
    torch.testing.assert_close(
        weights(done), load_file(tmp_path / "trl-adapter" / "adapter_model.safetensors"), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("adapter", [{"type": "lora", "r": 4, "lora_dropout": 0.1}, None], ids=["lora", "full"])
def test_interrupted_and_resumed_is_uninterrupted(adapter: Any, tree: dict[str, Any], tmp_path: Path) -> None:
    tree["adapter"] = adapter
    tree["train"].update(eval_strategy="steps", eval_steps=4, learning_rate=1e-3, num_train_epochs=2)
    whole = setting(tree, tmp_path / "whole")
    train(whole)
    cut = setting(tree, tmp_path / "cut")
    heard = cut_at_the_second_report(cut)
    trial = Run(Path(cut.run)).trial("000")
    with trial.metrics_path.open("a") as file:  # a step after the checkpoint, lost with the process
        file.write(json.dumps({"step": 9, "loss": 9.9, "tokens": 1, "seconds": 1.0}) + "\n")
    reports = train(cut)
    assert reports[0]["step"] > heard[-1]["step"]
    assert losses(cut) == losses(whole)
    assert equal(weights(cut), weights(whole))


def test_a_trained_trial_is_not_trained_again(tree: dict[str, Any], tmp_path: Path) -> None:
    done = setting(tree, tmp_path)
    first = train(done)
    metrics = Path(done.run) / "trials/000/metrics.jsonl"
    written = metrics.stat().st_mtime_ns
    again = train(done)
    assert [report["eval_loss"] for report in again] == [first[-1]["eval_loss"]]
    assert again[-1]["finished"]
    assert metrics.stat().st_mtime_ns == written


def test_trials_evaluate_at_the_rungs_whatever_their_batch_size(tree: dict[str, Any], tmp_path: Path) -> None:
    rungs = Rungs("tokens", (500, 1000))
    for batch in (2, 4):
        tree["train"]["per_device_train_batch_size"] = batch
        done = setting(tree, tmp_path / str(batch), rungs=rungs)
        reports = train(done)
        longest = max(len(row["input_ids"]) for row in _prepared(done).train)
        for report, mark in zip(reports, rungs.marks, strict=False):
            assert mark <= report["tokens"] < mark + batch * longest
        assert len(reports) == 4  # two rungs, the end, and the word that it is finished


def test_the_weights_kept_are_those_of_the_best_evaluation(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(eval_strategy="steps", eval_steps=2, learning_rate=0.3, lr_scheduler_type="constant")
    done = setting(tree, tmp_path, mode="max")  # the largest loss: the weights before the last ones
    train(done)
    trial = Run(Path(done.run)).trial("000")
    evaluations = trial.evaluations("eval_loss")
    best = max(evaluations, key=lambda row: row["eval_loss"])
    assert best is not evaluations[-1]
    assert trial.manifest["step"] == best["step"]
    assert trial.checkpoint is not None
    state = json.loads((trial.checkpoint / "trainer_state.json").read_text())
    assert state["global_step"] == evaluations[-1]["step"]
    assert not equal(weights(done), load_file(trial.checkpoint / "adapter_model.safetensors"))


def test_the_base_is_what_a_fresh_adapter_computes(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"]["learning_rate"] = 1e-12
    done = setting(tree, tmp_path, baseline=True)
    report = train(done)[-1]
    base = Run(Path(done.run)).trial("base")
    assert base.state == "finished"
    assert base.metrics()[0]["eval_loss"] == pytest.approx(report["eval_loss"], rel=1e-5)
    train(done)
    assert len(base.metrics()) == 1  # once a run


def test_a_donor_gives_weights_and_the_trial_its_own_learning_rate(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(eval_strategy="steps", eval_steps=4, lr_scheduler_type="constant")
    tree["sweep"] = {"space": {"train.learning_rate": [1e-2, 5e-3]}, "search": {"type": "random"}}
    done = setting(tree, tmp_path)

    def stop(report: dict[str, Any]) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        run_trial(done, "000", {"train.learning_rate": 1e-2}, stop)
    train(done, "001", {"train.learning_rate": 5e-3}, donor="000")
    rates = [row["learning_rate"] for row in Run(Path(done.run)).trial("001").metrics() if "learning_rate" in row]
    steps = [row["step"] for row in Run(Path(done.run)).trial("001").metrics()]
    assert min(steps) > 4
    assert set(rates) == {5e-3}


def test_a_donor_at_its_end_gives_its_result(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["sweep"] = {"space": {"train.learning_rate": [1e-2, 5e-3]}, "search": {"type": "random"}}
    done = setting(tree, tmp_path)
    given = train(done, "000", {"train.learning_rate": 1e-2})[-1]
    taken = train(done, "001", {"train.learning_rate": 5e-3}, donor="000")[-1]
    assert taken["finished"]
    assert taken["eval_loss"] == pytest.approx(given["eval_loss"])
    assert equal(weights(done, "001"), weights(done, "000"))


def test_a_loss_that_is_no_number_ends_the_trial(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(learning_rate=1e30, max_grad_norm=0)
    with pytest.raises(TrialError, match=r"train.learning_rate 1e\+30 is too high"):
        train(setting(tree, tmp_path))


def test_an_empty_adapter_is_no_result(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(learning_rate=1e-45, lr_scheduler_type="constant", adam_epsilon=1e30)
    with pytest.raises(TrialError, match="the adapter is empty"):
        train(setting(tree, tmp_path))


def test_an_unknown_metric_names_those_there_are(tree: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="sweep.metric is 'eval_los', but an evaluation gives: .*eval_loss"):
        train(setting(tree, tmp_path, metric="eval_los"))


def test_a_point_that_changes_the_data_trains_on_other_data(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["data"]["eval"] = str(write_jsonl(tmp_path / "held-out.jsonl", rows(90)[80:]))
    few = str(write_jsonl(tmp_path / "few.jsonl", rows(30)))
    tree["sweep"] = {"space": {"data.train": [tree["data"]["train"], few]}}
    done = setting(tree, tmp_path)
    long = train(done, "000", {})[-1]
    short = train(done, "001", {"data.train": few})[-1]
    assert short["tokens"] < long["tokens"]
    assert Run(Path(done.run)).trial("001").manifest["data_hash"] != _prepared(done).hash
    with pytest.raises(TrialError, match="it would be evaluated on other rows than the other trials"):
        train(done, "002", {"data.max_length": 16})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["scale"] = {"resources_per_worker": {"CPU": 1, "GPU": 1}}
    with pytest.raises(TrialError, match="asks for a GPU, but torch sees none"):
        train(setting(tree, tmp_path))


def test_packing_trains(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["data"]["packing"] = True
    reports = train(setting(tree, tmp_path))
    assert reports[-1]["finished"]


def stopping(tree: dict[str, Any], threshold: float = 10.0) -> dict[str, Any]:
    """No evaluation is ten nats better than the first: the second in vain is the third of all."""
    tree["train"].update(eval_strategy="steps", eval_steps=2, max_steps=20)
    tree["train"].update(early_stopping_patience=2, early_stopping_threshold=threshold)
    return tree


def test_a_trial_that_no_longer_improves_is_finished(tree: dict[str, Any], tmp_path: Path) -> None:
    done = setting(stopping(tree), tmp_path)
    reports = train(done)
    assert [(report["step"], report["finished"]) for report in reports[-2:]] == [(6, False), (6, True)]
    assert [report["progress"] for report in reports] == [0.1, 0.2, 1.0, 1.0]
    trial = Run(Path(done.run)).trial("000")
    assert trial.manifest["step"] == min(trial.evaluations("eval_loss"), key=lambda row: row["eval_loss"])["step"]
    written = trial.metrics_path.stat().st_mtime_ns
    assert train(done)[-1]["finished"]  # the conductor died: it is not trained again
    assert trial.metrics_path.stat().st_mtime_ns == written


def test_patience_outlives_an_interruption(tree: dict[str, Any], tmp_path: Path) -> None:
    done = setting(stopping(tree), tmp_path)
    cut_at_the_second_report(done)
    assert train(done)[-1]["step"] == 6


def test_a_trial_that_improves_goes_on(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"]["learning_rate"] = 1e-3
    assert train(setting(stopping(tree, threshold=0.0), tmp_path))[-1]["step"] == 20


@pytest.mark.parametrize(
    "method",
    ["sft", "dpo", "classify", *(pytest.param(name, marks=pytest.mark.matrix) for name in ("kto", "simpo", "reward"))],
)
def test_without_held_out_rows_the_last_weights_are_kept(method: str, tree: dict[str, Any], tmp_path: Path) -> None:
    values = {"classify": labelled(16)} | dict.fromkeys(("dpo", "simpo", "reward"), pairs(16))
    if method == "kto":
        kto = [
            {"prompt": row["prompt"], "completion": row["chosen"], "label": n % 2} for n, row in enumerate(pairs(16))
        ]
        values["kto"] = kto
    tree["data"] |= {"train": str(write_jsonl(tmp_path / "x.jsonl", values.get(method) or rows(16))), "eval_split": 0}
    tree["method"] = {"type": method}
    tree["train"] |= {"logging_steps": 1, "eval_strategy": "epoch", "num_train_epochs": 2}
    experiment = Experiment.parse(tree)
    assert experiment.objective == ("train_loss", "min")
    done = setting(tree, tmp_path, metric="train_loss")
    reports = train(done)
    trial = Run(Path(done.run)).trial("000")
    assert [report["finished"] for report in reports] == [False, True]
    last = trial.metrics()[-1]
    assert (last["train_loss"], trial.manifest["step"]) == (last["loss"], 4)
    assert trial.manifest["metrics"] == {}
    assert train(done)[-1]["finished"]  # it is not trained again


def test_a_trial_without_memory_says_what_to_lower(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("transformers.Trainer.training_step", full)
    with pytest.raises(TrialError, match=r"out of memory: lower train\.per_device_train_batch_size \(8\)"):
        train(setting(tree, tmp_path))
