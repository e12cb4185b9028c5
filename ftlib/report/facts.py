"""What the run was made of: its data, its environment, and the command that does it again."""

from __future__ import annotations

import shlex
from typing import Any

from ftlib.files.json_files import read_json
from ftlib.report.shapes import Line, Section, Table
from ftlib.report.words import count, duration
from ftlib.run.directory import Run
from ftlib.run.layout import EXPERIMENT, PACK_FILE
from ftlib.run.leaderboard import Leaderboard

COUNTS = {
    "rows_read": "Rows read",
    "train_rows": "Rows for training",
    "eval_rows": "Rows for evaluation",
    "train_tokens": "Tokens for training",
    "trained_tokens": "Tokens trained on",
    "truncated": "Rows cut to the maximum",
    "dropped": "Rows with nothing to train on",
    "skipped": "Rows that cannot be used",
    "unweighted": "Rows of weight 0",
}
ALWAYS = ("rows_read", "train_rows", "eval_rows", "train_tokens", "trained_tokens")
TEXTS = {
    "rows": "Kind of rows",
    "format": "Format",
    "template": "Chat template",
    "max_length": "Maximum tokens of a row",
}
OVERRIDE, SMOKE = "# override: ", "# --smoke"


def data_report(run: Run) -> Section | None:
    """What became of the rows; None where the run says nothing of its data."""
    data = run.resolved.get("data")
    if not isinstance(data, dict):
        return None
    facts = [(told, str(data[key])) for key, told in TEXTS.items() if data.get(key)]
    for key, told in COUNTS.items():
        amount = data.get(key)
        if isinstance(amount, int) and (amount or key in ALWAYS):
            facts.append((told, f"{amount:,}"))
    lengths = data.get("lengths")
    if isinstance(lengths, dict):
        facts.append(("Tokens of a row", ", ".join(f"{name} {value}" for name, value in lengths.items())))
    if data.get("hash"):
        facts.append(("Hash", str(data["hash"])))
    facts += [(key, f"{told['version']}, hash {told['hash']}") for key, told in run.data_versions.items()]
    notes = [str(note) for key in ("odd", "skipped_rows") for note in data.get(key) or []]
    return Section("data", "Data", facts=facts, tables=_labels(data.get("label_counts")), notes=notes)


def _labels(counts: Any) -> list[Table]:
    if not isinstance(counts, dict) or not counts:
        return []
    lines = [Line([name, *(f"{rows:,}" for rows in pair)]) for name, pair in counts.items()]
    return [Table("Rows of each label", ["Label", "For training", "For evaluation"], lines, frozenset([1, 2]))]


def environment(run: Run, board: Leaderboard) -> Section | None:
    """Versions, commit, machine, seed, base; None where the run says none of them."""
    resolved, experiment = run.resolved, run.resolved.get("experiment", {})
    facts = [(name, str(version)) for name, version in (resolved.get("versions") or {}).items()]
    facts += [("Base", str((resolved.get("base") or {}).get("name_or_path") or board.model or ""))]
    facts += [(told, str((experiment.get(key) or {}).get("type") or "")) for key, told in KINDS.items()]
    facts += [("Seed", str(resolved.get("seed", ""))), ("Git commit", resolved.get("git_commit") or "")]
    facts += [("Machine", ", ".join(_hosts(run))), ("Processor", _processor(run)), ("Packs", board.isolation or "")]
    told = [(name, value) for name, value in facts if value]
    return Section("environment", "Environment", facts=told) if told else None


KINDS = {"method": "Method", "adapter": "Adapter"}


def _hosts(run: Run) -> list[str]:
    told = [
        str(event["host"]) for event in run.events() if event["event"] in ("started", "resumed") and "host" in event
    ]
    return list(dict.fromkeys(told))


def _processor(run: Run) -> str:
    match read_json(run.path / PACK_FILE):
        case {"found": {"of": {"processor": str(name), "threads": int(threads)}}}:
            return f"{name}, {count(threads, 'thread')}"
    return ""


def reproduced_by(run: Run) -> list[str]:
    """The commands that do the run again, from its own `experiment.yaml`."""
    text = experiment_text(run)
    overrides = [line.removeprefix(OVERRIDE) for line in text.splitlines() if line.startswith(OVERRIDE)]
    trained = "sweep=null" in overrides or not run.resolved.get("experiment", {}).get("sweep")
    words = ["ftlib", "train" if trained else "sweep", EXPERIMENT]
    words += [override for override in overrides if not (trained and override == "sweep=null")]
    words += ["--smoke"] if SMOKE in text.splitlines() else []
    commit = run.resolved.get("git_commit")
    first = [shlex.join(["git", "checkout", str(commit)])] if commit else []
    return [*first, shlex.join(words)]


def experiment_text(run: Run) -> str:
    """The experiment as its author wrote it; empty where it is gone."""
    file = run.path / EXPERIMENT
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def took(run: Run) -> str:
    """The time from the first event to the last, in words."""
    events = run.events()
    return duration(events[-1]["time"] - events[0]["time"]) if events else ""
