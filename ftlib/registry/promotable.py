"""Which weights of a trial can be promoted, and their copy."""

from __future__ import annotations

import shutil
from pathlib import Path

from ftlib.errors import InputError
from ftlib.files.atomic import write_json
from ftlib.models.adapter_files import moves_its_base, tensors
from ftlib.run import manifest as manifests
from ftlib.run.directory import Trial
from ftlib.run.layout import MANIFEST, STATUS

FOUND_AT_PROMOTION = ("gate", "evaluation")  # a trial's own manifest does not say these of itself


def promotable(trial: Trial) -> Path:
    """The folder of the trial's weights, checked. Raises InputError, with what is wrong, for weights that cannot be
    promoted."""
    if trial.state == "failed":
        reason = trial.status.get("reason") or f"see its {STATUS}"
        raise InputError(f"{trial.id} failed ({reason}), so it cannot be promoted: choose another trial.")
    folder = trial.weights
    if folder is None:
        raise InputError(f"{trial.id} has saved no weights (it is {trial.state}), so there is nothing to promote.")
    if folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*")):
        raise InputError(f"{folder} holds a symbolic link: put the file itself there, since a version must not change.")
    files = sorted(folder.glob("*.safetensors"))
    if not any(tensors(file)[0] for file in files):
        raise InputError(f"{folder} holds no tensors in safetensors files, so there is nothing to promote.")
    if (folder / "adapter_config.json").exists() and not any(moves_its_base(file) for file in files):
        raise InputError(
            f"{trial.id}'s adapter changes nothing (its lora_B matrices are all zero): it was never trained."
        )
    return folder


def copy_weights(trial: Trial, origin: Path, target: Path, trusted: bool) -> None:
    """Copies the weights; hard links would change with the trial's files. Raises InputError where a running trial
    replaces its weights meanwhile: the copy would mix two states."""
    before = origin.stat().st_ino
    shutil.copytree(origin, target)
    if trial.weights is None or trial.weights.stat().st_ino != before:
        raise InputError(f"{trial.id} saved new weights while they were being copied: promote it again.")
    manifest = trial.manifest if trusted else manifests.without_code(trial.manifest)
    told = {key: value for key, value in manifest.items() if key not in FOUND_AT_PROMOTION}
    write_json(target.parent / MANIFEST, told)
