"""Three tiny adapters and a tiny full model, promoted, and the real Serve application over them, once for this
folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", RAY_USAGE_STATS_ENABLED="0")

import openai
import pytest
import ray
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from ftlib.cluster.session import start_ray
from ftlib.files.atomic import write_json
from ftlib.models.base import fingerprint
from ftlib.registry import registry
from ftlib.registry.version import Version
from ftlib.run.directory import Run, Trial
from serve.front import app

CONTEXT = 4096  # tokens; the tiny model needs seconds to fill it, which a hang-up must not have to wait for
KEY = "tiny-key"
ENGINE = {"num_cpus": 0.25}  # of each engine of the world
LABELS = ["bad", "so-so", "good"]
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'alien' %}{{ raise_exception('no aliens here') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "größe straße übung",
    "日本語の文章",
    "select name from users;",
] * 20


@dataclass(frozen=True)
class World:
    """What the endpoint serves, and where."""

    url: str
    base: Path
    served: dict[str, Version]
    home: Path
    run: Run

    def client(self, api_key: str = KEY, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, timeout=60, **options)

    def reference(self, name: str, text: str, new_tokens: int, special: bool = True) -> tuple[str, list[int]]:
        """(text, token ids) that transformers and PEFT give without a server, greedily."""
        version = self.served[name]
        if version.kind == "adapter":
            model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(self.base), version.weights)
        else:
            model = AutoModelForCausalLM.from_pretrained(version.weights)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(version.weights)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=special, return_token_type_ids=False)
        answer = model.eval().generate(**inputs, do_sample=False, max_new_tokens=new_tokens)[
            0, inputs.input_ids.shape[1] :
        ]
        return tokenizer.decode(answer, skip_special_tokens=True), answer.tolist()

    def rendered(self, *turns: tuple[str, str]) -> str:
        return "".join(f"<|{role}|>{content}\n" for role, content in turns) + "<|assistant|>"


def tiny_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """A byte-level BPE: one character of another script is several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = template
    return fast


def tiny_model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data[config.eos_token_id] = 0  # some other logit is above 0: greedy answers end by length
    return model


def adapter_trial(run: Run, trial_id: str, base: Path, seed: int, template: str | None = TEMPLATE) -> Trial:
    """A trial as training leaves it, its LoRA matrices random and large enough to change the answer."""
    trial = run.trial(trial_id)
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(trial.path / "adapter")
    tiny_tokenizer(template).save_pretrained(trial.path / "adapter")
    finish(trial, "adapter", base)
    return trial


def sorter_trial(run: Run, base: Path) -> Trial:
    """A classifier of three labels: a LoRA adapter with its head."""
    trial = run.trial("sorter")
    torch.manual_seed(4)
    config = LoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear", modules_to_save=["score"])
    model = get_peft_model(AutoModelForSequenceClassification.from_pretrained(base, num_labels=3), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(trial.path / "adapter")
    tiny_tokenizer(None).save_pretrained(trial.path / "adapter")
    finish(trial, "adapter", base, labels=LABELS)
    return trial


def finish(trial: Trial, kind: str, base: Path, **facts: Any) -> None:
    identity = {"name_or_path": str(base), "revision": None, "fingerprint": fingerprint(base)}
    model = {"name_or_path": str(base), "dtype": "float32"}
    manifest = {"kind": kind, "base": identity, "experiment": {"model": model}, **facts}
    write_json(trial.path / "manifest.json", manifest)
    trial.set_state("finished")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    tiny_model(seed=0).save_pretrained(path)
    tiny_tokenizer(TEMPLATE).save_pretrained(path)
    return path


@pytest.fixture(scope="package")  # other tests want the CPUs back
def world(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    run = Run.create(folder / "runs", "tiny", "", {})
    full = run.trial("full")
    tiny_model(seed=9).save_pretrained(full.path / "model")
    tiny_tokenizer(TEMPLATE).save_pretrained(full.path / "model")
    finish(full, "model", base)
    mine = not ray.is_initialized()
    if mine:
        start_ray(cpus=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTLIB_HOME", str(folder / "home"))
        served = {
            "support@1": registry.register(run, adapter_trial(run, "a", base, seed=1), "support"),
            "support": registry.register(run, adapter_trial(run, "b", base, seed=2), "support"),
            "bare": registry.register(run, adapter_trial(run, "c", base, seed=3, template=None), "bare"),
            "full.model": registry.register(run, full, "full.model"),
            "sorter": registry.register(run, sorter_trial(run, base), "sorter"),
        }
        files = {"keys": str(folder / "home" / "keys.json"), "logs": {"sample": 1.0}}
        url = app.start(list(served), port=free_port(), api_key=KEY, replicas=ENGINE, base=True, **files)
    yield World(url, base, served, folder / "home", run)
    app.stop()
    if mine:
        ray.shutdown()


@pytest.fixture
def promoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path) -> None:
    """A registry of its own with `one` and `two`, which a test may spoil."""
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    run = Run.create(tmp_path / "runs", "tiny", "", {})
    for seed, name in enumerate(("one", "two")):
        registry.register(run, adapter_trial(run, name, base, seed), name)


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Callable[[int], list[Version]]:
    """The first `count` of a row of promoted adapters, in a registry of their own."""
    folder = tmp_path_factory.mktemp("adapters")
    run, made = Run.create(folder / "runs", "tiny", "", {}), []

    def first(count: int) -> list[Version]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FTLIB_HOME", str(folder / "home"))
            for number in range(len(made), count):
                trial = adapter_trial(run, f"t{number}", base, seed=100 + number)
                made.append(registry.register(run, trial, f"a{number}"))
        return made[:count]

    return first


@pytest.fixture(scope="package")
def client(world: World) -> openai.OpenAI:
    return world.client()
