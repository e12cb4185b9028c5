"""The ranges of pyproject.toml are true: what they allow at the least is what `make install` installs and the suite
runs."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
PINNED = {canonicalize_name(name): Version(version) for name, version in PINS.items()}


def test_the_least_version_is_the_one_that_is_tested() -> None:
    """A private name of Ray, or a default of TRL's, may be another one release earlier."""
    extras = [
        extra
        for name in ("qlora", "deepspeed", "metrics", "mlflow", "dashboards")
        for extra in PROJECT["optional-dependencies"][name]
    ]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        pinned = PINNED[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned), requirement
        least = [Version(specifier.version) for specifier in requirement.specifier if specifier.operator == ">="]
        if least:
            assert [bound.release[:2] for bound in least] == [pinned.release[:2]], requirement
