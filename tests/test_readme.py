"""The README's commands are those that are run: by the quickstart, or by the doors."""

import importlib.util
import itertools
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from ftlib import cli
from ftlib.config import Experiment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def quickstart() -> Any:
    spec = importlib.util.spec_from_file_location("quickstart", ROOT / "experiments/quickstart/run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_first_screen_shows_the_two_commands() -> None:
    first = README[: README.index("## The words")]
    assert "make quickstart" in first
    assert "make test" in first


def test_the_quickstart_runs_the_commands_of_the_readme() -> None:
    block = next(block for block in blocks("bash") if "prepare.py" in block)
    lines = [line.partition("#")[0].strip() for line in block.splitlines()]
    story = quickstart().REAL
    assert lines[1:] == [*itertools.chain(*story.stages.values()), story.serve]
    assert story.question in README


def test_the_files_that_the_quickstarts_name_are_there() -> None:
    run = quickstart()
    for story in (run.REAL, run.TINY):
        for command in itertools.chain(*story.stages.values()):
            for word in shlex.split(command):
                if word.endswith((".yaml", ".py")):
                    assert (ROOT / word).exists(), word


def test_the_experiment_in_the_readme_is_one() -> None:
    experiment = Experiment.parse(yaml.safe_load(blocks("yaml")[0]))
    assert experiment.sweep is not None


def test_every_command_named_is_a_door_and_every_door_is_named() -> None:
    named = set(re.findall(r"`ftlib ([a-z]+)", README))
    assert named == set(cli.cli.commands)
    for command in re.findall(r"^ftlib .*?(?=\s+#|$)", "\n".join(blocks("bash")), re.MULTILINE):
        assert shlex.split(command)[1] in cli.cli.commands
        for word in shlex.split(command):
            if word.endswith(".yaml"):
                assert (ROOT / word).exists()


def test_make_knows_the_targets_that_are_named() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= targets
    assert {"install", "quickstart", "test", "check", "bench", "help"} <= targets
    assert "make check test" in (ROOT / ".ci" / "run").read_text()
