"""Distillation: losses against their formulas in double precision, the cache, every kind trained, resumed, refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, LlamaForSequenceClassification

from ftlib.config import Experiment
from ftlib.errors import ConfigError, TrialError
from ftlib.methods.distill import check
from ftlib.methods.distillation import completions
from ftlib.methods.distillation.losses import angle_loss, distance_loss, feature_distance, softened_kl, with_rest
from ftlib.methods.teacher import Teacher, cached
from ftlib.run.directory import Run, Trial
from ftlib.training.build import build
from tests.support import ranks
from tests.training.test_trial import cut_at_the_second_report, equal, losses, setting, train, weights

from .conftest import labelled

STUDENT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def teacher(base: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base, taught the colours: a trial of a run."""
    return taught(base, tmp_path_factory.mktemp("teacher"), {"type": "sft"}, data_file, max_steps=60)


def taught(
    base: Path, folder: Path, method: dict[str, Any], data: Path, adapter: dict[str, Any] | None = None, **more: Any
) -> Path:
    tree = {
        "name": "teacher",
        "model": {"name_or_path": str(base)},
        "data": {"train": str(data), "max_length": 64, "eval_split": 0.2},
        "method": method,
        "adapter": adapter,
        "train": {"learning_rate": 1e-2, "eval_strategy": "end", "logging_steps": 10, **more},
        "track": {"wandb": None, "tensorboard": False},
    }
    done = setting(tree, folder)
    train(done)
    return Run(Path(done.run)).trial("000").path


@pytest.fixture(scope="session")
def adapter_teacher(base: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lora = {"type": "lora", "r": 2}
    return taught(base, tmp_path_factory.mktemp("teacher"), {"type": "sft"}, data_file, lora, max_steps=2)


@pytest.fixture(scope="session")
def classifier(base: Path, labelled_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(base, tmp_path_factory.mktemp("teacher"), {"type": "classify"}, labelled_file, max_steps=40)


@pytest.fixture
def distill(tree: dict[str, Any], teacher: Path) -> dict[str, Any]:
    """A smaller student, from random weights."""
    tree["model"] |= {"init": "random", "config": STUDENT}
    tree["adapter"] = None
    tree["method"] = {"type": "distill", "teacher": str(teacher), "temperature": 2.0}
    tree["train"].update(max_steps=4, logging_steps=1)
    return tree


def manifest(done: Any) -> dict[str, Any]:
    return Run(Path(done.run)).trial("000").manifest


# --- the losses --------------------------------------------------------------------------------------------------


def reference_kl(student: np.ndarray, teacher: np.ndarray, k: int | None, temperature: float) -> np.ndarray:
    """With `k`: of the teacher's k most likely classes and the rest as one, softened as k + 1 classes."""
    p, q = (np.exp(x - x.max(-1, keepdims=True)) for x in (teacher.astype(np.float64), student.astype(np.float64)))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    if k is not None:
        order = np.argsort(-p, axis=-1)
        p, q = (np.take_along_axis(x, order, -1) for x in (p, q))
        p, q = (np.concatenate([x[:, :k], x[:, k:].sum(-1, keepdims=True)], -1) for x in (p, q))
    p, q = p ** (1 / temperature), q ** (1 / temperature)
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    return (p * np.log(p / q)).sum(-1) * temperature**2


@pytest.mark.parametrize("k", [None, 1, 5])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_is_its_formula(k: int | None, temperature: float) -> None:
    torch.manual_seed(0)
    student, theirs = torch.randn(7, 40) * 3, torch.randn(7, 40) * 3
    log_probs = theirs.log_softmax(-1)
    tokens = None if k is None else log_probs.topk(k).indices
    kept = log_probs if tokens is None else with_rest(log_probs, tokens)
    found = softened_kl(student, kept, tokens, temperature)
    np.testing.assert_allclose(found, reference_kl(student.numpy(), theirs.numpy(), k, temperature), rtol=2e-5)


def test_with_the_rest_as_a_class_the_divergence_bounds_the_whole_one_from_below() -> None:
    torch.manual_seed(0)
    student, theirs = torch.randn(50, 40), torch.randn(50, 40).log_softmax(-1)
    whole = softened_kl(student, theirs, None, 1.0)
    before = torch.zeros(50)
    for k in (1, 4, 16, 39):
        tokens = theirs.topk(k).indices
        part = softened_kl(student, with_rest(theirs, tokens), tokens, 1.0)
        assert (part >= before - 1e-6).all()
        before = part
    torch.testing.assert_close(before, whole)  # 39 of 40 and the rest is all of them


def test_hidden_states_and_relations_are_their_formulas() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(5, 8), torch.randn(5, 12)
    a, b = ours.double().numpy(), theirs.double().numpy()

    def huber(x: np.ndarray) -> float:
        return float(np.where(abs(x) < 1, 0.5 * x**2, abs(x) - 0.5).mean())

    def distances(x: np.ndarray) -> np.ndarray:
        found = np.array([np.linalg.norm(x[i] - x[j]) for i in range(5) for j in range(i + 1, 5)])
        return found / found.mean()

    def angles(x: np.ndarray) -> np.ndarray:
        def cosine(i: int, j: int, k: int) -> float:
            one, other = x[i] - x[j], x[k] - x[j]
            return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

        return np.array([cosine(i, j, k) for j in range(5) for i in range(5) for k in range(5) if len({i, j, k}) == 3])

    assert distance_loss(ours, theirs).item() == pytest.approx(huber(distances(a) - distances(b)), rel=1e-5)
    assert angle_loss(ours, theirs).item() == pytest.approx(huber(angles(a) - angles(b)), rel=1e-5)
    wide = torch.randn(5, 8)
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, wide.double().numpy())]
    np.testing.assert_allclose(feature_distance(ours, wide), ((unit[0] - unit[1]) ** 2).sum(-1), rtol=1e-5)
    alone = ours[:1].requires_grad_()
    assert distance_loss(alone, theirs[:1]).item() == angle_loss(alone, theirs[:1]).item() == 0.0  # a last, short batch


def built(tree: dict[str, Any], tmp_path: Path) -> Any:
    """The trainer of an experiment, before its first step."""
    done = setting(tree, tmp_path)
    return build(Experiment.parse(tree), done, Run(Path(done.run)).trial("000"))[0]


def gradients(trainer: Any, sizes: list[int]) -> dict[str, torch.Tensor]:
    """After one optimizer step's worth of batches of these sizes, made as transformers makes them."""
    trainer.create_optimizer_and_scheduler(1)
    trainer.current_gradient_accumulation_steps = len(sizes)
    trainer.model.train()
    trainer.model.zero_grad()
    rows, start, batches = trainer.train_dataset, 0, []
    for size in sizes:
        batches.append(trainer.data_collator(rows.select(range(start, start + size)).to_list()))
        start += size
    items = trainer._get_num_items_in_batch(batches, trainer.args.device)
    for batch in batches:
        trainer.training_step(trainer.model, batch, items)
    return {name: part.grad.clone() for name, part in trainer.model.named_parameters() if part.grad is not None}


@pytest.mark.parametrize("top_k", [None, 8])
def test_the_loss_is_the_formula_on_the_teachers_live_logits(
    distill: dict[str, Any], tmp_path: Path, teacher: Path, home: Path, top_k: int | None
) -> None:
    """What is cached is what the teacher says now; labelled tokens alone count; each at the position before it."""
    distill["method"] |= {"top_k": top_k, "alpha": 0.3}
    trainer = built(distill, tmp_path)
    model = LlamaForCausalLM.from_pretrained(teacher / "model")
    total, count = 0.0, 0
    examples = trainer.train_dataset.select(range(6)).to_list()
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor([example["input_ids"]])
            ours, theirs = (network(ids).logits[0].double().numpy() for network in (trainer.model.eval(), model))
            for position, label in enumerate(example["labels"][1:]):
                if label != -100:
                    hard = -torch.tensor(ours[position]).log_softmax(-1)[label].item()
                    total += 0.3 * reference_kl(ours[[position]], theirs[[position]], top_k, 2.0)[0] + 0.7 * hard
                    count += 1
    loss = trainer.compute_loss(trainer.model.train(), trainer.data_collator(examples))
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_peers_teach_each_other(distill: dict[str, Any], tmp_path: Path, teacher: Path) -> None:
    """Both losses in one: each has the labels', and the divergence of the other's distribution from its own."""
    distill["method"] |= {"kind": "mutual", "alpha": 0.3}
    trainer = built(distill, tmp_path)
    peer = LlamaForCausalLM.from_pretrained(teacher / "model")
    totals, count = [0.0, 0.0], 0
    examples = trainer.train_dataset.select(range(6)).to_list()
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor([example["input_ids"]])
            logits = [network(ids).logits[0].double().numpy() for network in (trainer.model.eval(), peer)]
            for position, label in enumerate(example["labels"][1:]):
                for who, (own, other) in enumerate((logits, logits[::-1]) if label != -100 else ()):
                    hard = -torch.tensor(own[position]).log_softmax(-1)[label].item()
                    totals[who] += 0.3 * reference_kl(own[[position]], other[[position]], None, 2.0)[0] + 0.7 * hard
                count += label != -100
    loss = trainer.compute_loss(trainer.model.train(), trainer.data_collator(examples))
    assert loss.item() == pytest.approx(sum(totals) / count, rel=1e-5)
    assert float(trainer.objective.of_peer.detach()) == pytest.approx(totals[1], rel=1e-5)
    groups = trainer.create_optimizer().param_groups
    held = {id(part) for group in groups for part in group["params"]}
    assert held == {id(part) for model in (trainer.model, trainer.peer) for part in model.parameters()}


def test_a_peer_learns_and_is_not_kept(distill: dict[str, Any], tmp_path: Path, teacher: Path) -> None:
    distill["method"]["kind"] = "mutual"
    done = setting(distill, tmp_path)
    train(done)
    trial = Run(Path(done.run)).trial("000")
    logged = [row for row in trial.metrics() if "peer_loss" in row]
    assert logged[-1]["loss"] == pytest.approx((logged[-1]["distill_loss"] + logged[-1]["label_loss"]) / 2)
    before = load_file(teacher / "model" / "model.safetensors")
    after = load_file(trial.path / "checkpoint" / "peer.safetensors")
    assert after.keys() == before.keys()
    assert all(not torch.equal(after[name], part) for name, part in before.items())
    assert not (trial.path / "model" / "peer.safetensors").exists()
    assert manifest(done)["total_parameters"] < manifest(done)["teacher"]["teacher_parameters"]


@pytest.mark.parametrize("kind", ["logit", "feature", "mutual"])
def test_accumulated_batches_are_one_big_batch(distill: dict[str, Any], tmp_path: Path, kind: str) -> None:
    distill["method"]["kind"] = kind
    trainer = built(distill, tmp_path)
    whole, parts = gradients(trainer, [8]), gradients(trainer, [1, 2, 5])
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6)


def test_without_the_teachers_share_it_is_supervised_fine_tuning(distill: dict[str, Any], tmp_path: Path) -> None:
    distill["method"]["alpha"] = 0.0
    alone = setting(distill, tmp_path / "distill")
    report = train(alone)[-1]
    plain = setting(distill | {"method": {"type": "sft"}}, tmp_path / "sft")
    expected = train(plain)[-1]
    assert [step for step, _ in losses(alone)] == [step for step, _ in losses(plain)]
    np.testing.assert_allclose(losses(alone), losses(plain), rtol=1e-5)
    assert report["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-5)


# --- the cache ---------------------------------------------------------------------------------------------------


def test_the_teacher_runs_once(
    distill: dict[str, Any], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other trials read what the first has written, at any temperature; they do not even load the teacher."""
    distill["train"]["max_steps"] = 1
    loaded = []
    load = Teacher.load
    monkeypatch.setattr(Teacher, "load", lambda *args: loaded.append(args) or load(*args))
    train(setting(distill, tmp_path / "first"))
    assert len(loaded) == 1
    entries = sorted(path.name for path in (home / "cache" / "teacher").iterdir() if path.is_dir())
    distill["method"]["temperature"] = 4.0
    train(setting(distill, tmp_path / "second"))
    assert len(loaded) == 1
    distill["method"]["top_k"] = 3
    train(setting(distill, tmp_path / "third"))
    assert len(loaded) == 2
    now = sorted(path.name for path in (home / "cache" / "teacher").iterdir() if path.is_dir())
    assert set(entries) < set(now)
    assert not [name for name in now if name.startswith(".")]


def test_a_build_that_fails_leaves_nothing_and_two_at_once_leave_one(home: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached({"one": 1}, broken)
    made = []

    def build(folder: Path) -> None:
        made.append(folder)
        (folder / "whole").write_text("whole")

    threads = [threading.Thread(target=cached, args=({"one": 1}, build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (cached({"one": 1}, build) / "whole").read_text() == "whole"
    assert len([path for path in (home / "cache" / "teacher").iterdir() if path.is_dir()]) == 1


# --- whole trials ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["logit", "feature", "relation", "sequence"])
def test_a_student_learns_and_the_manifest_says_what_it_kept(
    distill: dict[str, Any], tmp_path: Path, teacher: Path, kind: str
) -> None:
    distill["method"] |= {"kind": kind, "max_completion_length": 8}
    distill["train"]["max_steps"] = 8
    done = setting(distill, tmp_path, baseline=True)
    report = train(done)[-1]
    trial, base = (Run(Path(done.run)).trial(name) for name in ("000", "base"))
    assert base.state == "finished", base.status
    assert report["eval_loss"] < base.metrics()[0]["eval_loss"]
    told = trial.manifest["teacher"]
    assert told["teacher_eval_loss"] == pytest.approx(Trial(teacher).manifest["metrics"]["eval_loss"], rel=1e-4)
    assert told["student_eval_loss"] == report["eval_loss"]
    assert told["retained"] == pytest.approx(np.exp(told["teacher_eval_loss"] - told["student_eval_loss"]))
    assert told["parameter_ratio"] == trial.manifest["total_parameters"] / told["teacher_parameters"] < 1
    assert told["forward_speedup"] > 0
    assert not (trial.path / "model" / "projections.safetensors").exists()
    assert not [name for name in weights(done) if "projection" in name]
    LlamaForCausalLM.from_pretrained(trial.path / "model")


@pytest.mark.parametrize("kind", ["logit", "feature", "mutual"])
def test_interrupted_and_resumed_is_uninterrupted(distill: dict[str, Any], tmp_path: Path, kind: str) -> None:
    distill["method"]["kind"] = kind
    distill["train"].update(eval_strategy="steps", eval_steps=2, max_steps=6)
    whole, cut = setting(distill, tmp_path / "whole"), setting(distill, tmp_path / "cut")
    train(whole)
    cut_at_the_second_report(cut)
    train(cut)
    assert losses(cut) == losses(whole)
    assert equal(weights(cut), weights(whole))


@pytest.mark.parametrize("kind", ["logit", "feature", "self", "on_policy"])
def test_an_adapter_learns_from_a_teacher_that_is_an_adapter(
    tree: dict[str, Any], tmp_path: Path, adapter_teacher: Path, kind: str
) -> None:
    tree["method"] = {"type": "distill", "kind": kind, "teacher": str(adapter_teacher), "max_completion_length": 4}
    tree["train"].update(max_steps=2)
    check(Experiment.parse(tree))
    done = setting(tree, tmp_path)
    assert train(done)[-1]["finished"]
    assert manifest(done)["teacher"]["adapter_fingerprint"]
    assert manifest(done)["kind"] == "adapter"


def test_on_policy_trains_and_is_evaluated_on_the_known_answers(
    tree: dict[str, Any], tmp_path: Path, teacher: Path
) -> None:
    tree["adapter"] = None
    tree["method"] = {"type": "distill", "kind": "on_policy", "teacher": str(teacher), "max_completion_length": 8}
    tree["train"].update(max_steps=3, learning_rate=1e-12)
    done = setting(tree, tmp_path)
    report = train(done)[-1]
    assert report["step"] == 3
    plain = setting(tree | {"method": {"type": "sft"}}, tmp_path / "sft")
    assert report["eval_loss"] == pytest.approx(train(plain)[-1]["eval_loss"], rel=1e-4)


@pytest.mark.parametrize(("kind", "steps"), [("logit", 40), ("feature", 3), ("relation", 3)])
def test_a_classifier_learns_from_a_classifier(
    distill: dict[str, Any], tmp_path: Path, classifier: Path, labelled_file: Path, kind: str, steps: int
) -> None:
    distill["data"]["train"] = str(labelled_file)
    distill["method"] |= {"kind": kind, "task": "classify", "teacher": str(classifier)}
    distill["train"].update(max_steps=steps)
    check(Experiment.parse(distill))
    done = setting(distill, tmp_path)
    report = train(done)[-1]
    told = manifest(done)["teacher"]
    assert told["teacher_eval_accuracy"] == Trial(classifier).manifest["metrics"]["eval_accuracy"]
    assert told["retained"] == report["eval_accuracy"] / told["teacher_eval_accuracy"]
    assert len(manifest(done)["labels"]) == 8
    if kind == "logit":
        assert report["eval_accuracy"] > 0.6


def test_a_classifier_reads_its_teachers_classes_by_name_and_the_text_in_its_tokens(
    distill: dict[str, Any], tmp_path: Path, base: Path, other: Path, labelled_file: Path
) -> None:
    """The teacher has another tokenizer and another order of classes: its cached rows are in the data's order."""
    names = sorted({row["label"] for row in labelled(80)}, reverse=True)
    LlamaForSequenceClassification.from_pretrained(
        other, num_labels=8, id2label=dict(enumerate(names)), label2id={name: n for n, name in enumerate(names)}
    ).save_pretrained(tmp_path / "classifier")
    AutoTokenizer.from_pretrained(other).save_pretrained(tmp_path / "classifier")
    distill["data"]["train"] = str(labelled_file)
    distill["method"] |= {"task": "classify", "teacher": str(tmp_path / "classifier")}
    trainer = built(distill, tmp_path)
    example = trainer.train_dataset[3]
    found = trainer.data_collator([example])["teacher_values"][0]
    text = AutoTokenizer.from_pretrained(base).decode(example["input_ids"])
    model = LlamaForSequenceClassification.from_pretrained(tmp_path / "classifier")
    read = AutoTokenizer.from_pretrained(other)(text, return_tensors="pt")
    expected = model(input_ids=read["input_ids"]).logits[0].log_softmax(-1).flip(0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# --- vocabularies ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def other(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the base's shape whose tokenizer has other ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("other")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|end|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["some other words"], trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>").save_pretrained(
        folder
    )
    model = LlamaForCausalLM.from_pretrained(base)
    model.config.pad_token_id = 1
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["logit", "feature", "self", "on_policy", "mutual"])
def test_another_tokenizer_is_refused_before_anything_starts(tree: dict[str, Any], other: Path, kind: str) -> None:
    tree["method"] = {"type": "distill", "kind": kind, "teacher": str(other)}
    tree["adapter"] = None if kind == "mutual" else tree["adapter"]
    with pytest.raises(ConfigError, match=f"another tokenizer than the student.*kind '{kind}'.*use kind: sequence"):
        check(Experiment.parse(tree))


@pytest.mark.parametrize("kind", ["relation", "sequence"])
def test_another_tokenizer_teaches_by_relations_and_by_writing(
    tree: dict[str, Any], tmp_path: Path, other: Path, kind: str
) -> None:
    tree["method"] = {"type": "distill", "kind": kind, "teacher": str(other), "max_completion_length": 6}
    tree["train"]["max_steps"] = 2
    check(Experiment.parse(tree))
    done = setting(tree, tmp_path)
    assert train(done)[-1]["finished"]
    told = manifest(done)["teacher"]
    assert told["parameter_ratio"] if "parameter_ratio" in told else told["teacher_eval_loss"] is None


@pytest.mark.parametrize("kind", ["logit", "on_policy"])
def test_a_padded_vocabulary_is_cut(tree: dict[str, Any], tmp_path: Path, teacher: Path, kind: str) -> None:
    """Qwen's models of one tokenizer have 151,936 or 152,064 rows: what lies beyond the tokenizer says nothing."""
    tree["method"] = {"type": "distill", "kind": kind, "max_completion_length": 4}
    tree["train"]["max_steps"] = 2
    found = []
    for name, rows in (("plain", 400), ("padded", 464)):
        model = AutoModelForCausalLM.from_pretrained(teacher / "model")
        model.resize_token_embeddings(rows)
        if rows > 400:
            model.lm_head.weight.data[400:] = 100.0
        model.save_pretrained(tmp_path / name)
        AutoTokenizer.from_pretrained(teacher / "model").save_pretrained(tmp_path / name)
        tree["method"]["teacher"] = str(tmp_path / name)
        check(Experiment.parse(tree))
        done = setting(tree, tmp_path / f"run-{name}")
        train(done)
        found.append(losses(done))
    assert found[0] == found[1]
    if kind == "on_policy":
        student = tmp_path / "padded"
        tree["model"]["name_or_path"], tree["method"]["teacher"] = str(student), str(tmp_path / "plain")
        with pytest.raises(ConfigError, match="smaller than the student's"):
            check(Experiment.parse(tree))


# --- sequence ----------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """OpenAI's chat API, as far as a teacher needs it. `replies` are used up first: a status instead of an answer."""

    def __init__(self) -> None:
        self.replies: list[int] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.add(self.headers["Authorization"])
        self.server.asked.append(body)
        status = self.server.replies.pop(0) if self.server.replies else 200
        if "number 7 " in body["messages"][-1]["content"]:
            status = 400
        colour = body["messages"][-1]["content"].split(" is ")[1].split(".")[0]
        message = {"role": "assistant", "content": f"{colour}!", "reasoning_content": f"I read {colour}."}
        reply = json.dumps({"choices": [{"message": message}]} if status == 200 else {"error": "no"}).encode()
        self.send_response(status if self.path == "/v1/chat/completions" else 404)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(completions, "PAUSE", 0.01)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def remote(tree: dict[str, Any], server: Server) -> dict[str, Any]:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    tree["method"] = {"type": "distill", "kind": "sequence", "teacher": url, "teacher_name": "gpt"}
    tree["train"]["max_steps"] = 2
    return tree


def test_a_server_teaches(
    remote: dict[str, Any], server: Server, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Busy twice: asked again. One prompt refused: left out, counted, told. The second trial asks nothing."""
    monkeypatch.setenv("OPENAI_API_KEY", "another server's")
    monkeypatch.setenv("TEACHER_KEY", "secret")
    remote["method"]["teacher_api_key_env"] = "TEACHER_KEY"
    server.replies = [429, 503]
    remote["data"]["eval_split"] = 0.2
    done = setting(remote, tmp_path)
    trainer = build(Experiment.parse(remote), done, Run(Path(done.run)).trial("000"))[0]
    texts = [trainer.processing_class.decode(row["input_ids"]) for row in trainer.train_dataset]
    assert all(text.rstrip().removesuffix("<|end|>").endswith("!") for text in texts)
    assert [body["model"] for body in server.asked] == ["gpt"] * len(server.asked)
    assert server.keys == {"Bearer secret"}
    asked = len(server.asked)
    assert asked == 64 + 2
    train(done)
    assert len(server.asked) == asked
    told = manifest(done)["teacher"]
    assert (told["prompts"], told["failed"], told["first_failure"]) == (64, 1, "HTTP 400 Bad Request")
    assert len(texts) == 63
    held_out = trainer.processing_class.decode(trainer.eval_dataset[0]["input_ids"])
    assert "It is" in held_out  # its own answer, not the teacher's


def test_reasoning_is_asked_for_and_learned(remote: dict[str, Any], server: Server, tmp_path: Path, home: Path) -> None:
    remote["method"]["reasoning"] = True
    trainer = built(remote, tmp_path)
    text = trainer.processing_class.decode(trainer.train_dataset[0]["input_ids"])
    assert "<think>\nI read " in text
    assert "Think step by step" not in text
    assert "Think step by step" in server.asked[0]["messages"][0]["content"]


def test_a_server_that_fails_keeps_what_it_answered(
    remote: dict[str, Any], server: Server, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "AT_ONCE", 1)
    server.replies = [200] * 40 + [404] * 24
    with pytest.raises(TrialError, match=r"answered 39 of 64 prompts \(first failure: HTTP 4.. .*start again"):
        built(remote, tmp_path)
    asked = len(server.asked)
    built(remote, tmp_path)
    assert len(server.asked) == asked + 25


def test_a_server_that_wants_a_key_says_so(remote: dict[str, Any], server: Server, tmp_path: Path, home: Path) -> None:
    server.replies = [401] * 64
    with pytest.raises(TrialError, match="name its key in method.teacher_api_key_env"):
        built(remote, tmp_path)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method.teacher": "http://127.0.0.1:1/v1"}, "a teacher at a URL only writes: use kind: sequence"),
        ({"method.teacher": "http://x/v1", "method.kind": "sequence"}, "teacher_name must say which model"),
        ({"method.task": "classify", "method.kind": "on_policy"}, "needs a model that writes"),
        ({"data.packing": True}, "use packing: false"),
        ({"method.kind": "relation", "train.per_device_train_batch_size": 2}, "three at a time"),
        ({"method.kind": "self"}, "earlier generation of the same model, but hidden_size is 32 there and 16 here"),
        ({"method.kind": "feature", "method.layer_map": {1: 9}}, "layer 1 on 9, but the student has layers 1 to 1"),
        ({"method.teacher": "/no/such/folder"}, "method.teacher: '/no/such/folder' is neither a folder nor a model"),
        ({"method.teacher": "registry:gone"}, "cannot be one of a sweep's values"),
    ],
)
def test_what_cannot_teach_is_refused_with_its_reason(
    distill: dict[str, Any], change: dict[str, Any], sentence: str
) -> None:
    for path, value in change.items():
        section, key = path.split(".")
        distill[section][key] = value
    with pytest.raises(ConfigError, match=sentence):
        check(Experiment.parse(distill))


def test_a_teacher_without_a_head_and_one_of_other_classes_are_refused(
    distill: dict[str, Any], tmp_path: Path, base: Path, labelled_file: Path
) -> None:
    distill["data"]["train"] = str(labelled_file)
    distill["method"] |= {"task": "classify", "teacher": str(base)}
    with pytest.raises(ConfigError, match="has no classification head"):
        check(Experiment.parse(distill))
    LlamaForSequenceClassification.from_pretrained(base, num_labels=3).save_pretrained(tmp_path / "three")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "three")
    distill["method"]["teacher"] = str(tmp_path / "three")
    with pytest.raises(ConfigError, match="knows the classes LABEL_0, LABEL_1, LABEL_2, but the data has black"):
        built(distill, tmp_path)


# --- several workers ---------------------------------------------------------------------------------------------

SCALES: dict[str, dict[str, Any]] = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    **{f"zero{stage}": {"strategy": "deepspeed", "stage": stage} for stage in (1, 2, 3)},
}


@pytest.mark.matrix
@pytest.mark.parametrize(("kind", "scale"), [*(("logit", scale) for scale in SCALES), ("feature", "ddp")])
def test_two_workers_compute_what_one_does(distill: dict[str, Any], tmp_path: Path, kind: str, scale: str) -> None:
    distill["method"]["kind"] = kind
    if scale == "zero3":  # random weights are drawn in parts there, and so are others
        distill["model"] = {"name_or_path": distill["model"]["name_or_path"]}
    distill["train"].update(max_steps=6, learning_rate=1e-3)
    one = setting(distill, tmp_path / "one")
    train(one)
    distill["train"]["per_device_train_batch_size"] = 4
    distill["scale"] = {"num_workers": 2, **SCALES[scale]}
    two = ranks.setting(Experiment.parse(distill), tmp_path / "two")
    notes = ranks.train(two)
    assert [note["error"] for note in notes] == [None, None]
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["relation", "on_policy", "sequence"])
def test_two_workers_train(tree: dict[str, Any], tmp_path: Path, teacher: Path, kind: str) -> None:
    """What is compared within a batch, or written by chance, differs from one worker's."""
    tree["method"] = {"type": "distill", "kind": kind, "teacher": str(teacher), "max_completion_length": 4}
    tree["train"]["max_steps"] = 3
    tree["scale"] = {"num_workers": 2, "strategy": "ddp"}
    done = ranks.setting(Experiment.parse(tree), tmp_path)
    assert [note["error"] for note in ranks.train(done)] == [None, None]
    assert manifest(done)["teacher"]["retained"] > 0
