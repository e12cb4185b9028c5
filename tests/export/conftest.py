"""One trained trial as a source, and what its training has left to compare with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ftlib.errors import InputError
from ftlib.export import llama_cpp_program as llama_cpp
from ftlib.export.export import Tasks, run
from ftlib.export.formats import Format, check_dtype, format_of
from ftlib.export.gate import Trained
from ftlib.export.source import Source
from ftlib.registry.gate import Candidate
from ftlib.registry.version import Version
from ftlib.run.directory import Run
from tests.training.test_trial import setting, train

from ..conftest import ROOT

ENVIRONMENT = ROOT / ".cache" / "environments" / "llama-cpp" / "bin" / "python"


@pytest.fixture(scope="session", autouse=True)
def llama_cpp_of_this_checkout() -> None:
    if ENVIRONMENT.is_file():
        os.environ.setdefault("FTLIB_LLAMA_CPP", str(ENVIRONMENT))


@pytest.fixture(scope="session")
def needs_llama_cpp(llama_cpp_of_this_checkout: None) -> None:
    """Skips where llama.cpp is not here: to compile it takes half an hour."""
    try:
        llama_cpp.python()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def trial(base: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a trial: LoRA of rank 4 and alpha 12, in all linear layers."""
    tree = {
        "name": "out",
        "model": {"name_or_path": str(base)},
        "data": {"train": str(data_file), "max_length": 64, "eval_split": 0.2},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 4, "lora_alpha": 12, "target_modules": ".*_proj"},
        "train": {"learning_rate": 1e-2, "num_train_epochs": 1, "per_device_train_batch_size": 8},
        "evaluation": {
            "tasks": [{"name": "colours", "data": str(data_file), "max_new_tokens": 12, "metrics": ["token_f1"]}]
        },
    }
    done = setting(tree, tmp_path_factory.mktemp("out"))
    train(done)
    run = Run(Path(done.run))
    run.trial("000").set_state("finished")
    return run.trial("000").path


@pytest.fixture(scope="session")
def source(trial: Path) -> Source:
    return Source(Candidate(Version("colours", 1, trial), "colours@1"), "colours-1")


@pytest.fixture(scope="session")
def trained(source: Source) -> Trained:
    return source.trained()


Written = Callable[[str, str | None], Path]


@pytest.fixture(scope="session")
def written(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Writes a format once, and gives its folder, which a test may spoil: it is a copy."""
    import shutil

    kept: dict[tuple[str, str | None], Path] = {}

    def write(to: str, dtype: str | None = None) -> Path:
        if (to, dtype) not in kept:
            kept[to, dtype] = tmp_path_factory.mktemp("written")
            format_of(to).write(source, kept[to, dtype], check_dtype(to, format_of(to), dtype))
        copy = tmp_path_factory.mktemp("copy") / "artifact"
        shutil.copytree(kept[to, dtype], copy)
        return copy

    return write


def ran(to: str, source: Source, folder: Path, trained: Trained, dtype: str | None = None) -> dict[str, object]:
    """What the gate says of a folder."""
    format: Format = format_of(to)
    return run(format, source, folder, trained, check_dtype(to, format, dtype), Tasks())
