"""Gathers the wheels that a bare CUDA machine lacks, with the versions of constraints.txt: `make gpu-kit`.

    python benchmarks/gpu_kit.py [--python 3.12] [--into .kit]

The machine has torch, transformers, peft, accelerate and what they need, and no way to the internet. Ray is not in the
kit: the engine of packs, a trial alone and the engine of the endpoint work without it. Of bitsandbytes, only the
libraries for the CPU and for CUDA 13.0 are kept: whole, it is 41 MiB.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = (
    "annotated-types",
    "bitsandbytes",
    "datasets",
    "dill",
    "httpx",
    "multiprocess",
    "pydantic",
    "pydantic_core",
    "tokenizers",
    "transformers",
    "trl",
    "typing-inspection",
    "typing_extensions",
)
LIBRARIES = ("libbitsandbytes_cpu.so", "libbitsandbytes_cuda130.so")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
MOST = 64 * 2**20  # bytes that travel to the machine, the repository included
USE = """{kit}: {count} wheels, {size:.0f} MiB (at most 64 travel, with the repository). On the machine:

python3 -m pip install -q --no-index --no-deps --no-compile --target /tmp/site {kit}/*.whl &&
PYTHONPATH=/tmp/site PYTHONUNBUFFERED=1 python3 benchmarks/gpu_day.py --out $OUT"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="3.12", help="the Python of the machine")
    parser.add_argument("--into", type=Path, default=ROOT / ".kit")
    options = parser.parse_args()
    shutil.rmtree(options.into, ignore_errors=True)
    options.into.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", options.python]
    command += [f"--platform={name}" for name in PLATFORMS]
    subprocess.run([*command, "-d", str(options.into), *pinned()], check=True)
    (large,) = options.into.glob("bitsandbytes-*.whl")
    keep_libraries(large)
    size = sum(wheel.stat().st_size for wheel in options.into.iterdir())
    if size > MOST:
        sys.exit(f"benchmarks/gpu_kit.py: the kit has {size / 2**20:.0f} MiB, but at most 64 can travel.")
    kit = options.into.relative_to(ROOT) if options.into.is_relative_to(ROOT) else options.into
    print(USE.format(kit=kit, count=len(list(options.into.iterdir())), size=size / 2**20))


def pinned() -> list[str]:
    """`name==version` of each wheel."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = dict(line.split("==") for line in lines if "==" in line)
    return [f"{name}=={versions[name]}" for name in NAMES]


def keep_libraries(wheel: Path) -> None:
    """Takes all libraries but LIBRARIES out of a wheel, and writes its RECORD anew."""
    whole = wheel.rename(wheel.with_suffix(".whole"))
    record = []
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as new:
        names = [name for name in old.namelist() if not name.endswith(".so") or Path(name).name in LIBRARIES]
        (last,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        for name in names:
            if name == last:
                continue
            content = old.read(name)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}")
            new.writestr(name, content)
        new.writestr(last, "\n".join([*record, f"{last},,", ""]))
    whole.unlink()


if __name__ == "__main__":
    main()
