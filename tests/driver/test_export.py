"""Which winner a name means for an export, and whether the artifact still does its tasks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ftlib.driver.export import export_winner, opened
from ftlib.errors import FtlibError, InputError
from ftlib.export.peft_folder import PeftFolder
from ftlib.export.source import Source
from ftlib.files.json_files import read_json
from ftlib.registry.promotion import Conditions, promote
from ftlib.run.directory import Run
from tests.export.conftest import trial as trial_of_export

trial = trial_of_export


def test_a_trial_and_a_version_are_exported_alike(trial: Path, tmp_path: Path) -> None:
    """By the run's best, and by its name in the registry; the tasks are done, the card says what was found."""
    run, said = Run(trial.parents[1]), list[str]()
    version = promote(run, run.trial("000"), "out", Conditions(gate=False), said.append)
    for number, name in enumerate((str(trial), "out", "registry:out@1")):
        done = export_winner(name, "peft", tmp_path / str(number), said.append, rows=4)
        assert done.figures["apart"] < 1e-5
        task = done.figures["tasks"]["colours"]
        assert (task["rows"], task["same_answers"]) == (4, 4)
        assert task["numbers"]["exported"] == task["numbers"]["trained"]
    assert read_json(tmp_path / "1" / "export.json")["of"] == version.id
    assert "gate: run by peft" in (tmp_path / "1" / "README.md").read_text()
    assert not [*tmp_path.glob(".staged*")]


def test_the_task_alone_refuses_what_the_probes_let_through(
    trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a gate that is blind to logits and layers: an artifact that has lost the tune cannot do its task."""
    write = PeftFolder.write

    def lose(self: PeftFolder, source: Source, folder: Path, dtype: str | None) -> None:
        write(self, source, folder, dtype)
        from safetensors.torch import load_file, save_file

        file = folder / "adapter_model.safetensors"
        save_file({name: part * 0 for name, part in load_file(file).items()}, file, metadata={"format": "pt"})

    monkeypatch.setattr(PeftFolder, "write", lose)
    monkeypatch.setattr("ftlib.export.export.check_logits", lambda *given: _Blind())
    monkeypatch.setattr("ftlib.export.export.check_layers", lambda *given: None)
    with pytest.raises(FtlibError, match=r"has lost the tune: on colours its token_f1 is"):
        export_winner(str(trial), "peft", tmp_path / "it", lambda _: None, rows=20)


class _Blind:
    def to_json(self) -> dict[str, float]:
        return {"apart": 0.0, "effect": 1.0, "kept": 1.0, "tokens": 1.0, "decided": 1.0}


def test_names_that_mean_nothing_and_weights_of_others(trial: Path, tmp_path: Path) -> None:
    for name in ("../../etc", "a/b", "nobody", "/"):
        with pytest.raises(InputError):
            export_winner(name, "merged", tmp_path / "it", lambda _: None)
    copied = tmp_path / "run"
    shutil.copytree(trial.parents[1], copied)
    (copied / "trials" / "000" / "adapter" / "run.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(InputError, match=r"holds run\.py, which would run"), opened(str(copied / "trials/000"), print):
        pass
    (copied / "trials" / "000" / "adapter" / "run.py").unlink()
    (copied / "trials" / "000" / "adapter" / "adapter_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match="may be a pickle"), opened(str(copied / "trials/000"), print):
        pass
