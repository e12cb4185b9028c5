"""A recipe's rows: the same bytes however they are made, every dropped row with its reason, nothing done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ftlib.config.recipe import Recipe
from ftlib.curate import passes
from ftlib.curate.on_ray import OnRay
from ftlib.curate.result import write_notes, write_rows
from ftlib.curate.rows import FROM, ID
from ftlib.curate.runner import Build, build
from ftlib.curate.sources import all_parts
from ftlib.curate.workers import Here, Workers
from ftlib.errors import DataError
from tests.curate.conftest import write_lines

LABELS = ["Account", "account ", "ACCOUNT", "shipping", "refund"]
STEPS: list[Any] = [
    {"clean": {}},
    {"filter": {"min_chars": 20}},
    {"labels": {"case": "fold", "map": {"refund": "money"}}},
    {"dedupe": {}},
    {"balance": {"by": "label", "at_most": "2x"}},
    {"split": {"test": 0.1, "eval": 0.1, "stratify": "label"}},
]


def tickets(count: int) -> list[dict[str, Any]]:
    return [
        {"text": "x" if number % 50 == 7 else f"my ticket {number % 150} says caf\u00c3\u00a9 \n\n\n\nbye",
         "label": LABELS[number % 5]}
        for number in range(count)
    ]  # fmt: skip


def bytes_of(built: Build, folder: Path) -> dict[str, bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(built, folder)
    write_notes(built, folder)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def recipe_of(tmp_path: Path, storage: str, **more: Any) -> Recipe:
    tree = {"name": "t", "from": [str(tmp_path / "t.jsonl")], "steps": STEPS, "storage": str(tmp_path / storage)}
    return Recipe.parse({**tree, **more})


def done(recipe: Recipe, workers: Workers | None = None) -> Build:
    return build(recipe, all_parts(recipe), workers or Here())


@pytest.mark.usefixtures("small_blocks")
def test_the_steps_do_what_they_say(tmp_path: Path) -> None:
    write_lines(tmp_path / "t.jsonl", [*tickets(200), "no object"])
    built = done(recipe_of(tmp_path, "store"))
    files = bytes_of(built, tmp_path / "out")
    rows = {name: [json.loads(line) for line in files[name].splitlines()] for name in files if name.endswith("jsonl")}
    assert rows.keys() == {"train.jsonl", "eval.jsonl", "test.jsonl"}
    every = [row for name in rows for row in rows[name]]
    assert len(built.blocks) > 5
    assert {row["label"] for row in every} == {
        "Account",
        "shipping",
        "money",
    }  # most rows that are left have that spelling
    assert all(row["text"].endswith("says café\n\nbye") for row in every)
    assert len({row["text"] for row in every}) == len(every) == built.rows
    assert built.counts["read"]["dropped"] == {"unreadable": 1}
    assert built.counts["filter"]["dropped"] == {"min_chars": 4}
    (first, *_) = pq.read_table(tmp_path / "out" / "dropped" / "filter.parquet").to_pylist()
    assert (first[FROM], first["reason"], first["detail"]) == ("t.jsonl:8", "min_chars", "1 characters")
    assert json.loads(first["fields"]) == {"text": "x", "label": "ACCOUNT"}
    (bad,) = pq.read_table(tmp_path / "out" / "dropped" / "read.parquet").to_pylist()
    assert (bad[FROM], bad["detail"]) == ("t.jsonl:201", "it is a str, not an object with named fields")
    duplicate = pq.read_table(tmp_path / "out" / "dropped" / "dedupe.parquet").to_pylist()[0]
    assert duplicate["detail"].startswith("like t.jsonl:")
    kept = {row[ID] for row in every}
    dropped = [
        row for file in (tmp_path / "out" / "dropped").glob("*.parquet") for row in pq.read_table(file).to_pylist()
    ]
    assert len(kept) + len(dropped) == 201
    assert not kept & {row[ID] for row in dropped}


@pytest.mark.usefixtures("ray_local")
def test_the_bytes_are_those_of_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlib.curate.sources.PIECE", 4096)  # of this process, which cuts; workers have their own
    write_lines(tmp_path / "t.jsonl", tickets(160))
    alone = bytes_of(done(recipe_of(tmp_path, "one")), tmp_path / "out1")
    assert bytes_of(done(recipe_of(tmp_path, "two"), OnRay(2)), tmp_path / "out2") == alone
    other = bytes_of(done(recipe_of(tmp_path, "three", seed=1)), tmp_path / "out3")
    assert other["train.jsonl"] != alone["train.jsonl"]


KILLED = """
import sys, time
import ftlib.curate.blocks as blocks, ftlib.curate.sources as sources, ftlib.curate.passes as passes
blocks.BLOCK_ROWS, sources.PIECE = 20, 2048
from ftlib.config.recipe import Recipe
from ftlib.curate.runner import build
from ftlib.curate.workers import Here
work, count = passes._work, 0
def slow(*given):
    global count
    count += 1
    if count == 20:
        print("stuck", flush=True)
        time.sleep(60)
    return work(*given)
passes._work = slow
recipe = Recipe.load(sys.argv[1])
build(recipe, sources.all_parts(recipe), Here())
"""


@pytest.mark.usefixtures("small_blocks")
def test_a_killed_build_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path / "t.jsonl", tickets(200))
    killed = recipe_of(tmp_path, "killed")
    (tmp_path / "r.yaml").write_text(json.dumps({**killed.to_dict(), "storage": str(tmp_path / "killed")}))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "r.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"stuck\n"
        os.kill(process.pid, signal.SIGKILL)
    calls = counted(monkeypatch)
    resumed = bytes_of(done(killed), tmp_path / "out1")
    after = len(calls)
    calls.clear()
    assert bytes_of(done(recipe_of(tmp_path, "whole")), tmp_path / "out2") == resumed
    assert len(calls) - after == 19  # those that were done before the kill
    calls.clear()
    done(killed)
    assert not calls


@pytest.mark.usefixtures("small_blocks")
def test_a_later_step_leaves_the_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path / "t.jsonl", tickets(100))
    calls = counted(monkeypatch)
    done(recipe_of(tmp_path, "store"))
    whole = len(calls)
    calls.clear()
    done(recipe_of(tmp_path, "store", steps=[*STEPS[:-1], {"split": {"test": 0.2}}]))
    assert 0 < len(calls) < whole / 2
    calls.clear()
    write_lines(tmp_path / "t.jsonl", tickets(120))  # rows at the end: the blocks before are those that were
    done(recipe_of(tmp_path, "store", steps=STEPS[:2]))
    done(recipe_of(tmp_path, "store", steps=STEPS[:2]))
    assert len(calls) <= 9


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The passes over blocks that are really done from now on."""
    calls: list[Any] = []
    work = passes._work

    def call(*given: Any) -> Any:
        calls.append(given)
        return work(*given)

    monkeypatch.setattr(passes, "_work", call)
    return calls


def test_a_line_without_end_is_refused_unread(tmp_path: Path, made: Callable[..., Build]) -> None:
    for name in ("a.jsonl", "a.csv"):
        with (tmp_path / name).open("wb") as file:
            file.write(b"text\n")
            file.seek(500 * 2**20)  # 500 MB of zeros, which take no disk
            file.write(b"\n")
        begun = time.process_time()
        with pytest.raises(DataError, match=rf"{name}:\d: the line has more than 16 MiB"):
            made(tmp_path / name, "clean")
        assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"jsonl": "empty.jsonl"}, "empty.jsonl is empty"),
        ({"csv": "folder"}, "the folder .* holds no .csv file"),
        ({"jsonl": "tickts.jsonl"}, r"there is no file .*\. Did you mean 'tickets.jsonl'\?"),
        ({"jsonl": "wide.jsonl"}, "UTF-16 text: save it as UTF-8"),
        ({"jsonl": "mongo.jsonl"}, "its columns _id and _from are not ftlib's"),
        ({"jsonl": "tickets.jsonl", "columns": {"text": "bodi"}}, "'bodi' is no column .* Did you mean 'body'?"),
        ({"jsonl": "tickets.jsonl", "only": ["label"]}, "only: 'label' is no column"),
        ({"jsonl": "bad.jsonl"}, "no row could be read"),
    ],
)
def test_bad_sources_are_refused_in_a_sentence(
    source: dict[str, Any], said: str, tmp_path: Path, made: Callable[..., Build]
) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "wide.jsonl").write_text('{"text": "a"}\n', encoding="utf-16")
    (tmp_path / "bad.jsonl").write_text("{\nNaN\n[]\n")
    write_lines(tmp_path / "mongo.jsonl", [{"_id": 7, "text": "a"}])
    write_lines(tmp_path / "tickets.jsonl", [{"body": "a"}])
    kind, name = next(iter(source.items()))
    with pytest.raises(DataError, match=said):
        made({**source, kind: str(tmp_path / name)}, "clean")


def test_tables_folders_and_texts_are_read(tmp_path: Path, made: Callable[..., Build]) -> None:
    (tmp_path / "wiki" / "a").mkdir(parents=True)
    (tmp_path / "wiki" / "a" / "one.md").write_text("# One\n\nIt is long enough.")
    (tmp_path / "wiki" / "two.txt").write_text("Two is a text, too.")
    (tmp_path / "t.csv").write_text("body,category\nhello there,x\nmy text,y\n")
    table = {"csv": str(tmp_path / "t.csv"), "columns": {"text": "body"}, "only": ["text"]}
    built = made(table, "clean")
    assert write_rows(built, tmp_path)["train.jsonl"]["rows"] == 2
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [{**line, ID: ""} for line in lines] == [
        {ID: "", FROM: "t.csv:2", "text": "hello there"},
        {ID: "", FROM: "t.csv:3", "text": "my text"},
    ]
    write_rows(made({"text": str(tmp_path / "wiki")}, "clean"), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line[FROM] for line in lines] == ["a/one.md", "two.txt"]
    write_rows(made({"text": str(tmp_path / "wiki" / "**" / "*.md")}, "clean"), tmp_path)
    (line,) = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert line[FROM] == "a/one.md"
