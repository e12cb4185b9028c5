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
COMMANDS = (ROOT / "docs" / "commands.md").read_text()


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
    first = README[: README.index("## What you get")]
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
    named = set(re.findall(r"`ftlib ([a-z-]+)", COMMANDS))
    assert named == set(cli.cli.commands)
    assert set(re.findall(r"`ftlib ([a-z-]+)", README)) <= named
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


def test_every_link_of_a_page_leads_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page.name not in index] == []


def test_every_environment_variable_is_told() -> None:
    inner = {"FTLIB_VAULT", "FTLIB_ANY_VERSIONS", "FTLIB_SHARE_PATIENCE_S", "FTLIB_COMPLETE"}
    found = {
        name for file in (ROOT / "ftlib").rglob("*.py") for name in re.findall(r"FTLIB_[A-Z_]+[A-Z]", file.read_text())
    }
    assert found - inner <= set(re.findall(r"FTLIB_[A-Z_]+[A-Z]", COMMANDS))


def test_lines_of_a_page_fit() -> None:
    """At most 120 characters, but for tables and what a program has written."""
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        if page.name in ("keys.md", "compatibility.md", "matrix.md"):
            continue
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        long = [line for line in text.splitlines() if len(line) > 120 and not line.lstrip().startswith("|")]
        assert long == [], page.name
