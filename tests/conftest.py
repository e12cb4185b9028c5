"""One tiny model, one Ray, shared by all tests. Nothing is downloaded: the model and the data are made here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before any library is imported: quiet, offline, one thread a process (two cores, several processes). The threads of a
# pack's host sleep where they wait for each other: those that spin take the core from the one that they wait for.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_VERBOSITY="error",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    OMP_WAIT_POLICY="PASSIVE",
    PYTHONWARNINGS="ignore",
    RAY_TRAIN_V2_ENABLED="1",
    WANDB_SILENT="true",
)
# Tests start some two hundred processes: each would compile all of ftlib (two seconds) that keeps no bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.pop("WANDB_API_KEY", None)
os.environ.pop("RAY_ADDRESS", None)

import pytest
from xdist.scheduler import LoadScopeScheduling

from ftlib.pack.mkl import ask_for_bits

ask_for_bits()  # as hosts of packs do
sys.dont_write_bytecode = False

if TYPE_CHECKING:
    from ftlib.config import ModelSection

ROOT = Path(__file__).parents[1]
SMOLLM = ROOT / ".cache" / "models" / "smollm2-135m-instruct" / "SmolLM2-135M-Instruct.Q4_1.gguf"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
COLOURS = ["red", "green", "blue", "yellow", "black", "white", "brown", "pink"]
THINGS = ["apple", "car", "house", "river", "stone", "cloud", "book", "lamp", "horse", "shoe"]


def rows(count: int) -> list[dict[str, str]]:
    """A task that a tiny model learns in a few steps: name the colour that the prompt names."""
    return [
        {
            "prompt": f"The {THINGS[n % len(THINGS)]} number {n} is {COLOURS[n % len(COLOURS)]}. Which colour is it?",
            "completion": f"It is {COLOURS[n % len(COLOURS)]}.",
        }
        for n in range(count)
    ]


def write_jsonl(path: Path, values: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def may_unshare(*options: str) -> bool:
    """Whether a process here may have namespaces of its own: containers often forbid it, and not every system has
    them."""
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(["unshare", *options, "true"], capture_output=True, check=False).returncode
    )


SWEEPING = (
    "sweeps/",
    "registry/test_promotion",
    "cli/test_cli",
    "cluster/",
    "pipelines/test_training",
    "run/test_cost",
    "run/test_tracking",
    "test_experiments",
    "test_recorded",
)
SERVING = (
    "serve/",
    "attacks/test_endpoint",
    "attacks/test_secrets",
    "attacks/test_trust",
    "config/test_comparable",
    "driver/",
    "registry/test_card",
    "remote/",
    "run/test_archive",
    "run/test_layout",
    "run/test_mirror",
    "run/test_signature",
    "test_api",
    "test_lines",
    "test_spine",
)


LONG = ("sweeping", "serving", "test_real_model", "pack/", "models/", "methods/", "report/", "files/", "registry/",
        "training/", "test_matrix", "test_gpu_day")  # fmt: skip


def _scope(nodeid: str) -> str:
    file = nodeid.split("::")[0].removeprefix("tests/")
    return "serving" if file.startswith(SERVING) else "sweeping" if file.startswith(SWEEPING) else file


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, what takes long comes first: short files fill the end, where one worker would wait for the
    other."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: [not _scope(item.nodeid).startswith(long) for long in LONG])


class _Turns(LoadScopeScheduling):
    """Two Rays at most: one worker serves, one sweeps, each one test after the other; the rest, file by file.

    There is one Ray Serve: its tests kill its processes by name.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Turns:
    """Used with `-n 3` (`make test`)."""
    return _Turns(config, log)


@pytest.fixture(scope="session", autouse=True)
def ftlib_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    os.environ["FTLIB_HOME"] = str(home)
    return home


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with random weights and a byte-level BPE tokenizer with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([f"{row['prompt']} {row['completion']}" for row in rows(200)], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", chat_template=CHAT_TEMPLATE
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def smollm() -> ModelSection:
    """The real chat model. Dequantized once a checkout, not once a session: it takes 15 s."""
    from ftlib.config import ModelSection
    from ftlib.models import gguf

    kept = os.environ["FTLIB_HOME"]
    os.environ["FTLIB_HOME"] = str(ROOT / ".cache" / "tests")
    try:
        return ModelSection(name_or_path=str(gguf.as_folder("model.name_or_path", SMOLLM)))
    finally:
        os.environ["FTLIB_HOME"] = kept


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "colours.jsonl", rows(80))


@pytest.fixture
def tree(base: Path, data_file: Path, tmp_path: Path) -> dict[str, Any]:
    """An experiment as a mapping, small enough to train in a second. Tests change what they need."""
    return {
        "name": "colours",
        "model": {"name_or_path": str(base)},
        "data": {"train": str(data_file), "max_length": 64, "eval_split": 0.2},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 4, "lora_alpha": 8},
        "train": {
            "learning_rate": 1.0e-2,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 8,
            "logging_steps": 2,
            "eval_strategy": "end",
        },
        "track": {"wandb": None, "tensorboard": False},
        "storage": str(tmp_path / "runs"),
    }


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One Ray of two CPUs for all tests of a session."""
    import ray

    from ftlib.cluster.session import start_ray

    start_ray(cpus=2)
    yield
    ray.shutdown()


def ftlib(*args: Any) -> tuple[int, str]:
    """Runs the command line in this process: (exit status, all that was printed)."""
    import contextlib
    import io
    from unittest import mock

    from ftlib import cli

    out = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["ftlib", *map(str, args)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        pytest.raises(SystemExit) as exited,
    ):
        cli.main()
    code = exited.value.code
    return (code if isinstance(code, int) else 0), out.getvalue()


OURS = re.compile(
    r"""\s*$ | \ [ #–─\d] | \ (version|base|trial|\S+@\d+)\b |  # tables
    \s*(-\ )?[a-z_.]+:(\ |$) | \s*-\ \S | \s+CPU:\ |  # YAML
    [⠀-⣿]\ preparing\ data | (data|tokens|parameters|a\ trial|memory|a\ sweep|cost|gate|error|warning):\ | run\ / |
    trial\ \S+\ (started|finished|stopped|failed|preempted|of) | pack\ width\ \d | no\ trial\ is\ stopped\ early: |
    \d+/\d+\ trials\ done | interrupted |
    vs\ base:\ | trials\ are\ compared\ on\ \d | finished\ trials\ are\ ranked |
    promote\ the\ winner: | \ \ ftlib\ | serve\ it:\ | base\ \S+@\d | merged\ into\ | serving\ |
    stopping$""",
    re.VERBOSE,
)


def foreign(output: str) -> list[str]:
    """The lines of a command's output that are not ours."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)
    return [line for line in re.split(r"[\r\n]+", plain) if not OURS.match(line)]


def write_experiment(path: Path, tree: dict[str, Any]) -> Path:
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def only_run(storage: Any) -> Any:
    from ftlib.run.directory import Run

    (path,) = Path(storage).iterdir()
    return Run.open(path)


@pytest.fixture(scope="session")
def swept(base: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> tuple[Any, str]:
    """One sweep of four trials with every tracker on: (its run, what was printed). Read it, do not change it."""
    storage = tmp_path_factory.mktemp("runs")
    tree = {
        "name": "swept",
        "model": {"name_or_path": str(base)},
        "data": {"train": str(data_file), "max_length": 64, "eval_split": 0.2},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 4, "lora_alpha": 8},
        "train": {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "logging_steps": 2,
            "eval_strategy": "steps",
            "eval_steps": 8,
        },
        "sweep": {
            "space": {
                "adapter.r": [2, 4],
                "adapter.lora_alpha": {"ratio_of": "adapter.r", "choices": [1, 2]},
                "train.learning_rate": {"min": 1e-3, "max": 1e-1, "log": True},
            },
            "num_samples": 4,
            "scheduler": {"type": "none"},
        },
        "track": {
            "wandb": {"project": "tests", "name": "try", "group": "colours", "tags": ["a", "b"], "notes": "a note"},
            "tensorboard": True,
        },
        "storage": str(storage),
    }
    status, output = ftlib("sweep", write_experiment(tmp_path_factory.mktemp("yaml") / "swept.yaml", tree))
    assert status == 0, output
    return only_run(storage), output
