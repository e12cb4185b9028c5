"""docs/run_directory.md is whole and true: every file, every event with its fields, and examples that ftlib reads.

A block of the page that is marked with a path ("```json trials/000/status.json") is that file of one run directory.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from ftlib.config import Experiment
from ftlib.config.methods import MethodSection
from ftlib.files.json_files import read_json, read_rows
from ftlib.run import layout, manifest
from ftlib.run.commands import Command, Deed, waiting
from ftlib.run.directory import Run, State
from ftlib.run.leaderboard import leaderboard
from ftlib.run.leaderboard_text import to_csv
from tests.conftest import ROOT

PAGE = (ROOT / "docs/run_directory.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```\S+ (\S+)\n((?:.*\n)*?)```$", re.MULTILINE)
NAMES = {name: value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)}
GROUPS = ("OF_RUN", "OF_TRIAL_BY_DRIVER", "OF_TRIAL", "WHOLE", "STAYS")
# What stands in the place of an event's name in the sources, and is none.
OTHERWISE = {
    "EVENT": ("steered",),
    "FAILED": ("evaluation_failed",),
    "event": (),  # handed on by `_tell`
    "f'trial_{state}'": ("trial_finished", "trial_stopped", "trial_failed"),
}
CLONES = ("trial", "cloned_from", "changed")  # what `trials_added` has of a clone alone


def rows_of(*headings: str) -> list[list[str]]:
    """The cells of all tables with these columns."""
    found, wanted = [], "| " + " | ".join(headings) + " |"
    for part in PAGE.split(f"\n{wanted}\n")[1:]:
        lines = part.splitlines()[1:]
        rows = lines[: next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))]
        found += [[cell.strip() for cell in row.removeprefix("|").removesuffix("|").split("|")] for row in rows]
    return found


def names_in(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*\n(?:.*\n)*?```$", "", text, flags=re.MULTILINE))


def values_in(text: str) -> list[Any]:
    """JSON values one after another, each on one line or more."""
    decoder, found, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The run directory that the page shows."""
    for name, text in FENCED.findall(PAGE):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl"):
            text = "".join(json.dumps(value) + "\n" for value in values_in(text))
        file.write_text(text, encoding="utf-8")
    return Run(tmp_path)


# --- files ---------------------------------------------------------------------------------------------------------


def test_every_name_of_the_layout_is_on_the_page() -> None:
    told = {names_in(row[0])[0] for row in rows_of("name", "what it is", "who writes it, and when", "group")}
    assert told == set(NAMES.values()) - {layout.BASE, layout.FIRST}
    assert {layout.BASE, layout.FIRST} <= set(names_in(PAGE))


def test_the_page_says_who_carries_each_file_as_the_layout_does() -> None:
    for name, _, _, group in rows_of("name", "what it is", "who writes it, and when", "group"):
        travels = [candidate for candidate in GROUPS if names_in(name)[0] in getattr(layout, candidate)]
        assert names_in(group) == travels, name
    assert [names_in(row[0])[0] for row in rows_of("group", "who carries it", "when")] == list(GROUPS)


def test_each_file_has_an_example(run: Run) -> None:
    inner = {layout.SIGNATURE, layout.INDEX, layout.TOKENIZER, layout.PACK_ERROR}  # nobody reads them
    wanted = {value for value in NAMES.values() if "." in value} - {
        layout.LEADERBOARD,
        layout.REPORT,
        layout.STUDY,
        *inner,
    }  # told in words
    there = {file.name for file in run.path.rglob("*") if file.is_file()}
    assert wanted - there == set()


def test_the_examples_are_a_run_directory(run: Run) -> None:
    run.check()
    assert {event["event"] for event in run.events()} >= {"created", "started", "trial_started", "ended"}
    assert [trial.state for trial in run.trials()] == ["finished", "stopped"]
    assert run.trial("001").asked_to_leave is not None
    assert read_rows(run.path / "trials" / "001" / layout.WAITS)[0].keys() == {"time", "seconds", "why"}
    assert read_json(run.trial("000").path / layout.PLACE).keys() == {"node", "ip", "pid", "since"}
    ((name, command),) = waiting(run)
    assert (name[:4], command) == ("1795", Command("clone", "000", {"train.learning_rate": 0.001}))
    experiment = Experiment.parse(yaml.safe_load((run.path / layout.EXPERIMENT).read_text()))
    for trial in run.trials():
        assert experiment.resolve_ratios(read_json(trial.path / layout.POINT)) == trial.params
    assert set(run.resolved) | {"parcel"} >= {"experiment", "objective", "base", "data", "seed", "versions"}


def test_the_leaderboard_on_the_page_is_that_of_the_examples(run: Run) -> None:
    header, *lines = csv.reader(io.StringIO(to_csv(leaderboard(run))))
    told = rows_of("column", "the base", "trial 000", "trial 001", "what it is")
    assert [names_in(row[0])[0] for row in told] == header
    assert [row[1:4] for row in told] == [list(cells) for cells in zip(*lines, strict=True)]


def test_a_manifest_has_the_keys_that_the_page_explains(run: Run) -> None:
    shown = run.trial("000").manifest
    assert manifest.why_none(shown, ("kind", "base", "experiment", "metrics")) is None
    told = PAGE.partition("### manifest.json")[2].partition("### error.txt")[0]
    explained = {key for line in told.splitlines() if line.startswith("| `") for key in names_in(line.split("|")[1])}
    assert set(shown) <= explained
    assert set(manifest.KEYS) <= set(names_in(told))
    (wrote,) = (
        node
        for node in ast.walk(ast.parse((ROOT / "ftlib/training/recorder.py").read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "_manifest"
    )
    keys = {key.value for node in ast.walk(wrote) if isinstance(node, ast.Dict)
            for key in node.keys if isinstance(key, ast.Constant)}  # fmt: skip
    assert keys <= set(shown)


def test_every_state_is_on_the_page() -> None:
    assert [names_in(row[0])[0] for row in rows_of("state", "what it means", "`reason`")] == [
        "pending", "running", "preempted", "finished", "stopped", "failed"
    ]  # fmt: skip
    assert {names_in(row[0])[0] for row in rows_of("state", "what it means", "`reason`")} == set(get_args(State))


def test_the_metrics_of_every_method_are_on_the_page() -> None:
    table: dict[str, list[str]] = {}
    methods: list[str] = []
    for first, keys in rows_of("`method.type`", "keys that trials can be compared by"):
        methods = names_in(first.partition(", and")[0]) or methods  # a line without a name goes on with the one before
        for name in methods:
            table[name] = table.get(name, []) + names_in(keys)
    for section in get_args(get_args(MethodSection)[0]):
        (name,) = get_args(section.model_fields["type"].annotation)
        if name in ("grpo", "rloo"):  # each reward has a name of its own
            assert "eval_reward" in table[name]
            continue
        told = [key for key in table[name] if key.startswith("eval_")]
        told += table["dpo"] if "dpo" in table[name] else []
        assert set(told) == set(section.model_construct(type=name, task="language").metrics), name


# --- events --------------------------------------------------------------------------------------------------------


def logged() -> dict[str, set[str]]:
    """The events that the sources log, with the fields of each."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "ftlib").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr != "log_event" and ast.unparse(node.func) != "self.tell":
                    continue
                fields = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                if any(keyword.arg is None for keyword in node.keywords) and "host" in fields:
                    fields |= {"width", "age_s", "isolation"}  # `host_opened` says them by a mapping
                for name in names_of(node.args[0]):
                    found.setdefault(name, set()).update(fields)
    return found


def names_of(node: ast.expr) -> tuple[str, ...]:
    if isinstance(node, ast.Constant):
        return (str(node.value),)
    if isinstance(node, ast.IfExp):
        return names_of(node.body) + names_of(node.orelse)
    return OTHERWISE[ast.unparse(node)]  # a KeyError is a new way to name an event: teach this test, and tell the page


def test_every_event_is_on_the_page_with_its_fields() -> None:
    told = {names_in(first)[0]: set(names_in(fields)) for first, fields, _ in rows_of("event", "fields", "when")}
    sources = logged()
    assert len(sources) > 25
    assert told == sources


def test_each_field_of_an_event_in_the_examples_is_one(run: Run) -> None:
    sources = logged()
    for event in run.events():
        assert set(event) - {"time", "event"} == sources[event["event"]], event


def test_what_a_command_may_do_is_on_the_page() -> None:
    told = next(text for field, text in rows_of("field", "what it is") if field == "`do`")
    assert set(names_in(told)) == set(get_args(Deed))


def test_lines_are_short() -> None:
    assert [line for line in PAGE.splitlines() if len(line) > 120] == []
