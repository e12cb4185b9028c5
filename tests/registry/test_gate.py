"""The gate on real trials: what agrees passes, each thing that can be wrong is found, and the worse version stays
out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftlib.errors import DataError, FtlibError
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.models.plain_lora import PlainLora
from ftlib.registry import agreement, gate, registry
from ftlib.registry.answer_loss import Loss
from ftlib.registry.gate import Comparison, pass_gate
from ftlib.registry.version import Version
from ftlib.run.directory import Run, Trial
from tests.models.test_adapters import ALL, with_adapter
from tests.training.test_trial import setting, train

from ..conftest import ROOT, rows, write_jsonl
from ..pack.conftest import pack_of
from ..pack.conftest import train as train_packed


@pytest.fixture(scope="module")
def two_trials(base: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`000`, and `001` that learned less. Without Ray."""
    tree = {
        "name": "gate",
        "model": {"name_or_path": str(base)},
        "data": {"train": str(data_file), "max_length": 64, "eval_split": 0.2},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 4, "lora_alpha": 8},
        "train": {"learning_rate": 1e-2, "num_train_epochs": 1, "per_device_train_batch_size": 8},
    }
    done = setting(tree, tmp_path_factory.mktemp("gate"))
    run = Run(Path(done.run))
    for trial, rate in (("000", 1e-2), ("001", 1e-3)):
        train(done, trial, {"train.learning_rate": rate})
        run.trial(trial).set_state("finished")
    return run


@pytest.fixture
def run(two_trials: Run, tmp_path: Path) -> Run:
    """A copy, which a test may spoil."""
    shutil.copytree(two_trials.path, tmp_path / "run")
    return Run(tmp_path / "run")


def staged(trial: Trial) -> Version:
    return Version("support", 0, trial.path)


def best_and_worst(run: Run) -> tuple[Trial, Trial]:
    trials = sorted(run.trials(), key=lambda trial: trial.manifest["metrics"]["eval_loss"])
    return trials[0], trials[-1]


def promoted(run: Run, trial: Trial, name: str) -> Version:
    return registry.register(run, trial, name)


def spoil(trial: Trial, change: Any) -> None:
    """Other tensors in the place of the adapter's."""
    file = trial.path / "adapter" / "adapter_model.safetensors"
    tensors = change(load_file(file))
    file.unlink()
    save_file(tensors, file)


def test_a_trained_adapter_agrees_in_every_way(run):
    found = pass_gate(staged(run.trial("000")), "trial 000").found
    assert found["passed"] is True
    assert found["chat_template"] == "as in training"
    assert found["probes"] == "4 evaluation rows"
    assert found["dtype"] == "float32"
    assert max(found["bank"], found["merged"]) < 1e-5 < found["tolerance"] < 1e-2 < found["effect"]


def test_without_its_data_built_in_texts_are_the_probes(run):
    manifest = run.trial("000").manifest
    write_json(run.trial("000").path / "manifest.json", manifest | {"data_hash": "gone"})
    assert pass_gate(staged(run.trial("000")), "trial 000").found["probes"] == "4 built-in texts"


def test_a_bank_that_computes_something_else_is_found(run, monkeypatch):
    read = agreement.read_lora

    def read_wrongly(*given: Any) -> PlainLora:
        lora = read(*given)
        return replace(lora, state={name: part * 1.01 for name, part in lora.state.items()})

    monkeypatch.setattr(agreement, "read_lora", read_wrongly)
    with pytest.raises(FtlibError, match=r"trial 000: in the bank that serves it, the adapter gives other logits"):
        pass_gate(staged(run.trial("000")), "trial 000")


def test_a_merge_that_computes_something_else_is_found(run, monkeypatch):
    def merge(model: PeftModel, **_: Any) -> Any:
        return model.unload()

    monkeypatch.setattr(PeftModel, "merge_and_unload", merge, raising=False)
    with pytest.raises(FtlibError, match=r"merged into its base, the adapter gives other logits"):
        pass_gate(staged(run.trial("000")), "trial 000")


def test_layers_of_their_own_rank_and_scale_agree(run):
    """The bank has one scale for all layers; PEFT one a layer."""
    folder = run.trial("000").path / "adapter"
    config = read_json(folder / "adapter_config.json")
    some = {"r": 2, "lora_alpha": 6, "use_rslora": True, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 1}}
    write_json(folder / "adapter_config.json", config | some)

    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        ranks = {name: 3 if "q_proj" in name else 2 for name in tensors}
        return {
            name: torch.randn(ranks[name], part.shape[1]) if "lora_A" in name else torch.randn(len(part), ranks[name])
            for name, part in tensors.items()
        }

    spoil(run.trial("000"), change)
    found = pass_gate(staged(run.trial("000")), "trial 000").found
    assert max(found["bank"], found["merged"]) < 1e-5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda parts: {name.replace("layers.", "strata."): part for name, part in parts.items()}, "changes no logit"),
        (lambda parts: {name: part * float("nan") for name, part in parts.items()}, "no numbers"),
        (
            lambda parts: {name: part[:1] if "lora_A" in name else part for name, part in parts.items()},
            "PEFT cannot put",
        ),
    ],
)
def test_adapters_that_fit_no_base(run, change, reason):
    spoil(run.trial("000"), change)
    with pytest.raises(FtlibError, match=f"trial 000: .*{reason}"):
        pass_gate(staged(run.trial("000")), "trial 000")


def test_another_chat_template_is_found(run):
    file = run.trial("000").path / "adapter" / "chat_template.jinja"
    text = file.read_text()
    file.unlink()
    file.write_text(text.replace("<|assistant|>", "<|user|>"))
    with pytest.raises(FtlibError, match="chat template that is saved with its weights is not the one"):
        pass_gate(staged(run.trial("000")), "trial 000")


def test_a_packed_trial_of_a_base_without_a_template_passes(base: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    """Packs save the tokenizer with the template that training used, as solo trials do."""
    bare = tmp_path / "bare"
    shutil.copytree(base, bare, ignore=shutil.ignore_patterns("chat_template.jinja"))
    assert AutoTokenizer.from_pretrained(bare).chat_template is None
    tree["model"]["name_or_path"] = str(bare)
    short = write_jsonl(tmp_path / "short.jsonl", [{"prompt": f"{n}?", "completion": "It is."} for n in range(40)])
    tree["data"] |= {"train": str(short), "max_length": 128}
    packed = setting(tree, tmp_path)
    assert train_packed(pack_of(packed), {"000": {}}) == {}
    trial = Run(Path(packed.run)).trial("000")
    assert trial.manifest["packed"] is True
    assert pass_gate(staged(trial), "trial 000").found["chat_template"] == "as in training"


@pytest.fixture
def whole(run: Run, base: Path) -> Trial:
    """Trial `000` as full training leaves one."""
    trial = run.trial("000")
    (trial.path / "adapter").rename(trial.path / "model")
    for file in (trial.path / "model").glob("adapter_*"):
        file.unlink()
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(trial.path / "model")
    write_json(trial.path / "manifest.json", trial.manifest | {"kind": "model"})
    return trial


def test_a_whole_model_is_read_back_and_computes_numbers(whole):
    assert pass_gate(staged(whole), "trial 000").found["reloaded"] == "finite logits"
    file = whole.path / "model" / "model.safetensors"
    tensors = {name: part * float("nan") for name, part in load_file(file).items()}
    file.unlink()
    with pytest.raises(FtlibError):
        pass_gate(staged(whole), "trial 000")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(FtlibError, match="trial 000: some of its logits are no numbers"):
        pass_gate(staged(whole), "trial 000")


def test_the_limits_are_those_of_the_documentation():
    page = (ROOT / "docs" / "serving.md").read_text()
    cells = [line.split("|") for line in page.splitlines() if line.startswith(("| float", "| bfloat"))]
    plain = {str(dtype).removeprefix("torch."): limit for dtype, limit in agreement.TOLERANCE.items()}
    quantized = {f"float32, {kind} base": limit for kind, limit in agreement.QUANTIZED.items() if kind}
    assert {row[1].strip(): float(row[4]) for row in cells} == plain | quantized
    assert f"the last {agreement.LAST} positions" in " ".join(page.split())


# --- no worse on a file -----------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "held.jsonl", rows(90)[80:])


def by_hand(trial: Trial, base: Path, file: Path) -> float:
    """The mean loss of an answer's token, by transformers and PEFT alone."""
    tokenizer = AutoTokenizer.from_pretrained(trial.path / "adapter")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), trial.path / "adapter").eval()
    total, tokens = 0.0, 0
    for row in map(json.loads, file.read_text().splitlines()):
        turns = [{"role": "user", "content": row["prompt"]}]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        start = len(tokenizer(prompt)["input_ids"])
        ids = torch.tensor([tokenizer(prompt + row["completion"] + tokenizer.eos_token)["input_ids"]])
        labels = ids.clone()
        labels[:, :start] = -100
        with torch.no_grad():
            loss = model(input_ids=ids, labels=labels).loss
        total, tokens = total + float(loss) * (ids.shape[1] - start), tokens + ids.shape[1] - start
    return total / tokens


def test_the_loss_is_the_mean_of_the_answers_tokens(run, file, base):
    found = pass_gate(staged(run.trial("000")), "trial 000", Comparison(file)).beside(None)
    assert found["loss"]["new"] == pytest.approx(by_hand(run.trial("000"), base, file), rel=1e-5)
    assert found["loss"]["reference"] is None


def test_a_worse_version_is_held_back_and_both_losses_are_named(run, file):
    best, worst = best_and_worst(run)
    current = promoted(run, best, "gate-worse")
    new, old = (pass_gate(staged(trial), "x", Comparison(file)).beside(None)["loss"]["new"] for trial in (worst, best))
    assert new > old
    with pytest.raises(
        FtlibError, match=rf"is worse than gate-worse@1 on .*: its loss is {new:.4f}, .* has {old:.4f}"
    ) as error:
        pass_gate(staged(worst), "trial w", Comparison(file)).beside(current)
    assert error.value.exit_status == 1
    slack = new / old - 1 + 1e-4
    assert pass_gate(staged(worst), "trial w", Comparison(file, slack)).beside(current)["loss"]["old"] == old
    with pytest.raises(FtlibError, match="slack"):
        pass_gate(staged(worst), "trial w", Comparison(file, slack / 2)).beside(current)


def test_a_better_version_and_the_same_one_pass(run, file):
    best, worst = best_and_worst(run)
    found = pass_gate(staged(best), "trial b", Comparison(file)).beside(promoted(run, worst, "gate-better"))
    assert found["loss"]["new"] < found["loss"]["old"]
    found = pass_gate(staged(best), "trial b", Comparison(file)).beside(promoted(run, best, "gate-same"))
    assert found["loss"]["new"] == found["loss"]["old"]


def test_a_file_that_is_none(run, tmp_path):
    with pytest.raises(DataError, match=r"other\.jsonl: .*its columns \(x\) fit no format"):
        pass_gate(staged(run.trial("000")), "x", Comparison(write_jsonl(tmp_path / "other.jsonl", [{"x": 1}])))


def test_losses_on_other_tokens_are_compared_by_the_answer():
    mine, theirs = Loss(20.0, 10, 5, "a"), Loss(30.0, 20, 5, "b")
    assert mine.beside(theirs) == (4.0, 6.0)
    assert mine.beside(Loss(30.0, 20, 5, "a")) == (2.0, 1.5)


def test_one_model_at_a_time(run, file, monkeypatch):
    """When a model is loaded, none from before is alive."""
    import gc
    import weakref

    alive: list[weakref.ref[Any]] = []
    load = gate.load_model

    def counted(*given: Any) -> Any:
        gc.collect()
        assert not [reference for reference in alive if reference() is not None]
        model = load(*given)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(gate, "load_model", counted)
    best, worst = best_and_worst(run)
    pass_gate(staged(best), "trial b", Comparison(file)).beside(promoted(run, worst, "gate-memory"))
    assert len(alive) == 2


@pytest.mark.matrix
@pytest.mark.parametrize(("name", "quantization"), ALL)
def test_every_adapter_passes(tree, file, tmp_path, name, quantization):
    done = setting(with_adapter(tree, name, quantization), tmp_path)
    train(done)
    trial = Run(Path(done.run)).trial("000")
    assert pass_gate(staged(trial), "trial 000", Comparison(file)).found["passed"]
