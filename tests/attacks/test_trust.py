"""Code that comes with what others have made: a run, a version, a base. It runs where the user says --trust, and
nowhere else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftlib.errors import FtlibError, InputError
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.models import adapter_files
from ftlib.models.base import base_of, fingerprint
from ftlib.registry import backend, registry
from ftlib.run import manifest, signature
from ftlib.run.directory import Run

from ..conftest import ftlib
from .conftest import made, put
from .conftest import weights as lora


def with_code(folder: Path, base: Path, mark: Path) -> Path:
    """A model whose own Python leaves a mark when it is loaded with trust_remote_code."""
    shutil.copytree(base, folder)
    config = read_json(folder / "config.json")
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Model"}}
    write_json(folder / "config.json", config)
    (folder / "evil.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class Evil(LlamaConfig):\n    model_type = 'evil'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Evil\n"
    )
    return folder


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


@pytest.fixture
def foreign(swept: tuple[Run, str], base: Path, tmp_path: Path, mark: Path) -> Run:
    """A sweep of somebody else: its manifests say that the base's code may run, and that the base is theirs."""
    run = Run(Path(shutil.copytree(swept[0].path, tmp_path / "theirs" / swept[0].name)))
    evil = with_code(tmp_path / "theirs" / "base", base, mark)
    for trial in run.trials():
        told = trial.manifest
        told["experiment"]["model"] |= {"name_or_path": str(evil), "trust_remote_code": True}
        told["base"] = {"name_or_path": str(evil), "revision": None, "fingerprint": fingerprint(evil)}
        write_json(trial.path / "manifest.json", told)
    return run


def test_a_run_from_elsewhere_runs_nothing_at_promotion(foreign: Run, mark: Path) -> None:
    for options in ((), ("--merged",), ("--no-gate", "--merged")):
        status, output = ftlib("promote", foreign.path, "000", "--as", "theirs", *options)
        assert status != 0
        assert "was not made by you on this machine" in output
        assert "--trust" in output
        assert not mark.exists()
    assert "theirs" not in registry.names()
    status, output = ftlib("merge", foreign.trial("000").path / "adapter", foreign.path / "out")
    assert (status != 0, mark.exists(), "defect" in output) == (True, False, False)


def test_what_is_not_believed_is_not_written_down_as_ours(foreign: Run, mark: Path) -> None:
    """Promoted without the gate, nothing is loaded; the version must not say, in our name, that its code may run."""
    status, output = ftlib("promote", foreign.path, "000", "--as", "quiet", "--no-gate")
    assert status == 0, output
    told = read_json(registry.current("quiet").path / "manifest.json")
    assert told["experiment"]["model"]["trust_remote_code"] is False
    from serve.engine.model import Loaded

    with pytest.raises(FtlibError):
        Loaded(registry.current("quiet"))
    assert not mark.exists()


def test_trust_is_the_users_word(foreign: Run, mark: Path) -> None:
    status, output = ftlib("promote", foreign.path, "000", "--as", "trusted", "--trust")
    assert status == 0, output
    assert mark.exists()  # so the refusals are what kept it from running
    assert manifest.asks_for_code(registry.current("trusted").manifest)  # promoted by us, on our word


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Run:
    return made(str(tmp_path / "runs"), tmp_path / "runs")


ASKS = {"experiment": {"model": {"name_or_path": "x", "trust_remote_code": True}}}


def test_a_version_of_others_is_not_believed(run: Run, home: Path) -> None:
    """Somebody who can write to the registry says that code may run, or brings some."""
    signature.sign(run)
    lora(run.trial("000"), **ASKS)
    ours = registry.register(run, run.trial("000"), "x")
    assert manifest.asks_for_code(ours.manifest)  # our own run, our own word
    file = ours.path / "manifest.json"
    told = read_json(file)
    for change in ({"step": 4}, {"signature": ""}, {"signature": "0" * 64}, {"signature": None}):
        file.chmod(0o644)
        write_json(file, told | change)
        assert not manifest.asks_for_code(registry.current("x").manifest)
        with registry.trusting():
            assert manifest.asks_for_code(registry.current("x").manifest)
    write_json(file, told)
    assert manifest.asks_for_code(registry.current("x").manifest)
    (ours.weights / "tokenizer.py").write_text("")
    assert not manifest.asks_for_code(registry.current("x").manifest)
    with pytest.raises(InputError, match=r"x@1 holds tokenizer.py, .*--trust"):
        registry.check_loadable(registry.current("x"))


def test_no_section_is_made_of_a_foreign_manifest_with_its_trust(run: Run) -> None:
    lora(run.trial("000"), **ASKS, base={"name_or_path": "x", "revision": None, "fingerprint": None})
    version = registry.register(run, run.trial("000"), "x")  # the run is not signed
    assert base_of(version.manifest, "x").trust_remote_code is False


def _python(folder: Path) -> None:
    (folder / "modeling.py").write_text("print('ran')")


def _deep_python(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "X.PY").write_text("")


def _library(folder: Path) -> None:
    (folder / "kernel.so").write_bytes(b"\x7fELF")


def _says(name: str, value: dict[str, Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        file = folder / name
        write_json(file, {**(read_json(file) or {}), **value})

    return write


CODE = {
    "modeling.py": _python,
    "X.PY": _deep_python,
    "kernel.so": _library,
    "auto_map in its config.json": _says("config.json", {"auto_map": {"AutoModel": "evil--x.Y"}}),
    "auto_map in its tokenizer_config.json": _says(
        "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.Y", None]}}
    ),
    "auto_map in its adapter_config.json": _says("adapter_config.json", {"a": [{"auto_map": {"x": "y"}}]}),
    "megatron_config in its adapter_config": _says("adapter_config.json", {"megatron_config": {"x": 1}}),
    "attn_implementation": _says("config.json", {"_attn_implementation": "evil/kernel"}),
}


@pytest.mark.parametrize("what", CODE)
def test_code_beside_weights_is_refused(
    run: Run, home: Path, url: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    CODE[what](lora(run.trial("000")))
    with pytest.raises(InputError, match=rf"trial 000 of .*{what}.*--trust"):
        registry.register(run, run.trial("000"), "x")
    assert registry.names() == []
    signature.sign(run)  # our own: a model that was trained with code of its own is saved with it
    version = registry.register(run, run.trial("000"), "x")
    registry.check_loadable(version)
    monkeypatch.setenv(backend.VARIABLE, url)  # the same, written there by others
    put(f"{url}/current/x.json", '{"version": 1, "history": [1]}')
    told = read_json(version.path / "manifest.json") | {"files": "x-1", "signature": "0" * 64}
    put(f"{url}/versions/x/1.json", json.dumps(told))
    for file in version.weights.rglob("*"):
        if file.is_file():
            put(f"{url}/files/x-1/adapter/{file.relative_to(version.weights)}", file.read_bytes())
    with pytest.raises(InputError, match=rf"x@1 .*{what}.*--trust"):
        registry.check_loadable(registry.current("x"))
    with registry.trusting():
        registry.check_loadable(registry.current("x"))
    status, output = ftlib("merge", "x", run.path / "out")
    assert (status, "--trust" in output) == (2, True), output


def test_names_in_an_experiment_bring_no_code(run: Run, home: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    """A base, a teacher, a reward model or a start by its name in the registry."""
    from ftlib.config import Experiment
    from ftlib.registry import bases

    signature.sign(run)
    _python(lora(run.trial("000")))
    version = registry.register(run, run.trial("000"), "x")
    file = version.path / "manifest.json"
    file.chmod(0o644)
    write_json(file, read_json(file) | {"signature": "0" * 64})
    named = {"model": {"name_or_path": "registry:x"}}
    start = {"adapter": {"type": "lora", "from": "registry:x"}}
    teacher = {"method": {"type": "distill", "kind": "logit", "teacher": "registry:x"}, "adapter": None}
    for change in (named, start, teacher):
        with pytest.raises(FtlibError, match=r"x@1 holds modeling.py.*--trust"):
            bases.resolved(Experiment.parse({**tree, **change}))


HEADER = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
BROKEN = {
    "empty": b"",
    "no JSON": (3).to_bytes(8, "little") + b"{{{",
    "cut short": json.dumps(HEADER).encode(),
    "another size": {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
    "overlapping": HEADER | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
    "a hole": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
    "no dtype": {"a": {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]}},
    "negative": {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, -8]}},
    "a text": {"a": {"dtype": "F32", "shape": "2", "data_offsets": "08"}},
    "more": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
}


@pytest.mark.parametrize("what", BROKEN)
def test_damaged_safetensors_are_named(tmp_path: Path, what: str) -> None:
    content = BROKEN[what]
    if isinstance(content, dict):
        text = json.dumps(content).encode()
        content = len(text).to_bytes(8, "little") + text + b"\0" * 8
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model.safetensors is no safetensors file, or was cut short or damaged"):
        adapter_files.tensors(tmp_path / "model.safetensors")


def test_damaged_weights_of_a_base_are_named(base: Path, tmp_path: Path) -> None:
    from ftlib.config import ModelSection
    from ftlib.errors import ConfigError
    from ftlib.models.base import load_model

    folder = Path(shutil.copytree(base, tmp_path / "base"))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"model.name_or_path: .*model.safetensors is no safetensors file"):
        load_model(ModelSection(name_or_path=str(folder)))


def test_a_base_with_code_is_said_in_our_words(base: Path, tmp_path: Path, mark: Path) -> None:
    from ftlib.config import ModelSection
    from ftlib.errors import ConfigError
    from ftlib.models.base import load_config, load_model

    folder = with_code(tmp_path / "evil", base, mark)
    with pytest.raises(ConfigError, match=r"model.trust_remote_code"):
        load_config(ModelSection(name_or_path=str(folder)))
    assert not mark.exists()
    load_model(ModelSection(name_or_path=str(folder), trust_remote_code=True))  # the user's own word, in their own file
    assert mark.exists()
