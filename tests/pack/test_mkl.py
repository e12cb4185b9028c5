"""On other machines: a host asks for bits before MKL is loaded, and where it promises them, certificate 1 holds.

Other machines are emulated by the variables that choose kernels. A process of its own each: they are read once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ftlib.pack.mkl import STRICT, ask_for_bits
from ftlib.run.context import Setting

ROOT = Path(__file__).parents[2]
HOST = """
import json, pathlib, sys
asked = json.loads(sys.stdin.read())
from ftlib.pack import mkl
if asked["maker"]:
    mkl.PROCESSOR = pathlib.Path(asked["maker"])
from ftlib.sweeps.pack_host import Host
Host()
from ftlib.pack.isolation import probe
from ftlib.run.context import Setting
from tests.pack import test_isolation as certificate
from tests.pack.conftest import left_behind, pack_of, train, trial
setting, threads = Setting(**asked["setting"]), asked["threads"]
train(pack := pack_of(setting, threads=threads), {**certificate.crowd(), "watched": certificate.WATCHED})
one, among = certificate.alone(setting, threads), left_behind(trial(setting, "watched"))
try:
    certificate.assert_same_bits(one, among)
    same = True
except AssertionError:
    same = False
print(json.dumps({"isolation": probe(pack.base).to_dict(), "same": same}))
"""
INTEL = {"MKL_VERBOSE": "1"}
STRICTEST = {**STRICT, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
OLDEST = {"MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
OTHERS = [
    pytest.param(INTEL, 2, id="intel"),
    pytest.param(OLDEST, 1, id="oldest", marks=pytest.mark.matrix),
    pytest.param(STRICTEST, 1, id="avx2", marks=pytest.mark.matrix),
    pytest.param({}, 2, id="this one", marks=pytest.mark.matrix),
]


def processor(folder: Path, maker: str) -> Path:
    (folder / "cpuinfo").write_text(f"vendor_id\t: {maker}\n")
    return folder / "cpuinfo"


def host(made: Setting, threads: int, variables: dict[str, str], maker: Path | None) -> tuple[dict[str, Any], str]:
    """What a host says where these variables are set, and what MKL said of itself."""
    environment = {name: value for name, value in os.environ.items() if name not in STRICT}
    setting = {name: getattr(made, name) for name in ("run", "data", "resolved")}
    done = subprocess.run(
        [sys.executable, "-c", HOST],
        input=json.dumps({"setting": setting, "threads": threads, "maker": maker and str(maker)}),
        env={**environment, **variables, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    *rest, last = done.stdout.strip().splitlines()
    return json.loads(last), "\n".join(rest)


@pytest.mark.parametrize(("variables", "threads"), OTHERS)
def test_what_a_host_promises_on_another_machine_is_true(
    made: Setting,
    variables: dict[str, str],
    threads: int,
    tmp_path: Path,
) -> None:
    """MKL itself says which mode it is in, so that a host that asked too late is seen."""
    intel = variables is INTEL
    found, mkl = host(made, threads, variables, processor(tmp_path, "GenuineIntel") if intel else None)
    assert found["same"] or found["isolation"]["promise"] == "rounding"
    if variables.get("MKL_CBWR") != "COMPATIBLE":
        assert found["isolation"]["promise"] == "bits"
    if intel and torch.backends.mkl.is_available():
        assert "CNR:AUTO,STRICT" in mkl
        assert "CNR:OFF" not in mkl


@pytest.mark.parametrize(
    ("maker", "set_by_user", "told"),
    [("GenuineIntel", None, "AUTO,STRICT"), ("GenuineIntel", "AVX2", "AVX2"), ("AuthenticAMD", None, None)],
)
def test_mkl_is_told_on_its_makers_processors(
    maker: str, set_by_user: str | None, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MKL_CBWR", raising=False)
    if set_by_user:
        monkeypatch.setenv("MKL_CBWR", set_by_user)
    monkeypatch.setattr("ftlib.pack.mkl.PROCESSOR", processor(tmp_path, maker))
    ask_for_bits()
    told_now = os.environ.pop("MKL_CBWR", None)  # before monkeypatch puts back what was there
    assert told_now == told
