"""What must not be loaded from a version, however it came there, and what an engine cannot serve."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ftlib.errors import InputError
from ftlib.models import adapter_files
from ftlib.registry import registry
from ftlib.registry.version import Version

PLAIN = {"peft_type": "LORA", "r": 8, "bias": "none", "modules_to_save": None, "use_dora": False, "rank_pattern": {}}


@pytest.fixture
def version(tmp_path: Path) -> Version:
    """An adapter of rank 8 as a version."""
    path = tmp_path / "support" / "3"
    (path / "adapter").mkdir(parents=True)
    tensors = {
        "model.q_proj.lora_A.weight": np.ones((8, 16), "f4"),
        "model.q_proj.lora_B.weight": np.ones((16, 8), "f4"),
    }
    save_file(tensors, path / "adapter" / "adapter_model.safetensors")
    configure(path, {})
    (path / "adapter" / "chat_template.jinja").write_text("{{ messages }}")
    return Version("support", 3, path)


def configure(path: Path, changes: dict[str, object]) -> None:
    (path / "adapter" / "adapter_config.json").write_text(json.dumps(PLAIN | changes))


def test_a_plain_adapter_is_for_both_engines(version):
    for engine in ("bank", "vllm"):
        registry.check_loadable(version, engine=engine, max_rank=8)


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Harmful()))
    return out.getvalue()


ATTACKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a link to a file": ("symbolic link", lambda path: (path / "adapter" / "x.json").symlink_to("/etc/passwd")),
    "a link to a folder": ("symbolic link", lambda path: (path / "adapter" / "x").symlink_to("/etc")),
    "a link that leads nowhere": ("symbolic link", lambda path: (path / "x").symlink_to("nowhere")),
    "a linked manifest": ("symbolic link", lambda path: (path / "manifest.json").symlink_to("/etc/passwd")),
    "pytorch_model.bin": ("only safetensors", lambda path: (path / "adapter" / "pytorch_model.bin").write_bytes(b"x")),
    "a deep .PT": (
        "only safetensors",
        lambda path: ((path / "adapter" / "a").mkdir(), (path / "adapter" / "a" / "x.PT").write_bytes(b"x")),
    ),
    "a pickle in disguise": (
        "only safetensors",
        lambda path: (path / "adapter" / "vocab.json").write_bytes(pickle.dumps(Harmful())),
    ),
    "torch.save in disguise": ("only safetensors", lambda path: (path / "adapter" / "x.txt").write_bytes(zipped())),
    "a pickle as safetensors": (
        "is no safetensors",
        lambda path: (path / "adapter" / "adapter_model.safetensors").write_bytes(pickle.dumps(Harmful())),
    ),
    "a header that promises a lot": (
        "is no safetensors",
        lambda path: (path / "adapter" / "adapter_model.safetensors").write_bytes(
            (2**60).to_bytes(8, "little") + b"{}"
        ),
    ),
    "tensors past the end": (
        "cut short",
        lambda path: (path / "adapter" / "adapter_model.safetensors").write_bytes(
            len(text := b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}').to_bytes(8, "little") + text
        ),
    ),
    "no weights": ("no safetensors", lambda path: (path / "adapter" / "adapter_model.safetensors").unlink()),
    "no config": ("no adapter_config.json", lambda path: (path / "adapter" / "adapter_config.json").unlink()),
    "a huge config": (
        "more than 1,048,576 bytes",
        lambda path: (path / "adapter" / "adapter_config.json").write_text(" " * 2**20 + "{}"),
    ),
    "a config that is none": (
        "no JSON object",
        lambda path: (path / "adapter" / "adapter_config.json").write_text("[1]"),
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_never_loaded(version, attack, capsys):
    reason, spoil = ATTACKS[attack]
    spoil(version.path)
    with pytest.raises(InputError, match=reason):
        registry.check_loadable(version)
    assert "executed" not in capsys.readouterr().out


def test_a_version_that_is_itself_a_link(version, tmp_path):
    (tmp_path / "4").symlink_to(version.path)
    with pytest.raises(InputError, match="symbolic link"):
        registry.check_loadable(Version("support", 4, tmp_path / "4"))


def test_a_rank_above_the_maximum_is_found_in_the_config_and_in_the_tensors(version):
    with pytest.raises(InputError, match="support@3 has rank 8, and this engine's maximum is 4"):
        registry.check_loadable(version, max_rank=4)
    configure(version.path, {"r": 2})  # it lies
    with pytest.raises(InputError, match="rank 8"):
        registry.check_loadable(version, max_rank=4)
    configure(version.path, {"rank_pattern": {"q_proj": 1024}})
    with pytest.raises(InputError, match="rank 1024, and this engine's maximum is 512"):
        registry.check_loadable(version, engine="vllm")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_dora": True}, "is a DoRA adapter"),
        ({"modules_to_save": ["lm_head"]}, r"trains whole modules besides LoRA \(modules_to_save: lm_head\)"),
        ({"bias": "all"}, "trains biases"),
        ({"lora_bias": True}, "trains biases"),
        ({"peft_type": "IA3"}, r"is no LoRA adapter \(peft_type IA3\)"),
    ],
)
def test_what_vllm_does_not_serve(version, changes, reason):
    configure(version.path, changes)
    registry.check_loadable(version)
    with pytest.raises(
        InputError,
        match=f"support@3 {reason}, which vLLM does not serve: use the bank engine, or promote it with --merged",
    ):
        registry.check_loadable(version, engine="vllm")
    assert adapter_files.why_not_banked("support@3", version.weights)


def test_what_a_bank_holds(version):
    assert adapter_files.why_not_banked("support@3", version.weights) is None
    configure(version.path, {"fan_in_fan_out": True})  # GPT-2's Conv1D
    assert adapter_files.why_not_banked("support@3", version.weights) is None
    configure(version.path, {"target_parameters": ["mlp.experts.gate_up_proj"]})
    assert "target_parameters" in adapter_files.why_not_banked("support@3", version.weights)
    configure(version.path, {})
    tensors = {f"model.q_proj.lora_embedding_{part}": np.ones((2, 2), "f4") for part in "AB"}
    save_file(tensors, version.weights / "adapter_model.safetensors")
    assert "lora_embedding_A" in adapter_files.why_not_banked("support@3", version.weights)


def test_a_whole_model_needs_no_adapter_config(tmp_path):
    path = tmp_path / "full" / "1"
    (path / "model").mkdir(parents=True)
    save_file({"w": np.ones(2, "f4")}, path / "model" / "model.safetensors")
    registry.check_loadable(Version("full", 1, path), engine="vllm")
