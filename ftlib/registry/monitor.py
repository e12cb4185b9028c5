"""`ftlib monitor NAME`: has what people ask moved away from what the version was trained on?

It reads the endpoint's logs and the profile of the version, and needs neither the endpoint nor the model. Lengths and
words of prompts and of answers are compared with those of training, the model's confidence with that of its evaluation.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import InputError
from ftlib.files.home import home
from ftlib.registry import registry
from ftlib.registry.drift import Texts, expected, measures
from ftlib.registry.profile import Part, read_profile
from ftlib.registry.version import Version

if TYPE_CHECKING:
    from rich.table import Table

ENOUGH = 25  # texts; of fewer nothing is said
# How far above what chance gives (`drift.expectations`) a measure may be. 0.2 is what the population stability index is
# read by everywhere; docs/serving.md has how often each of them is right and wrong.
ALLOWED = {"stability": 0.2, "divergence": 0.05, "unseen": 0.03}
PSI = 0.2  # the scale of `Report.drift`
MEASURES = {  # their names in a report
    "stability index (PSI)": "stability",
    "Jensen-Shannon, bits": "divergence",
    "share not in training": "unseen",
}
LESS_SURE = 0.5  # nats a token below the evaluation's: two tokens of five at a third less probability
FAILING = 0.01  # of the requests
CONFIDENT = ("sft", "pretrain")  # methods whose eval_loss is the mean -log probability of an answer's token


@dataclass(frozen=True)
class Finding:
    """One comparison. `limit` is what it is held against; None where there was nothing to compare with."""

    what: str
    training: str
    traffic: str
    measure: str
    value: float | None
    limit: float | None

    @property
    def drifted(self) -> bool:
        return self.value is not None and self.limit is not None and self.value > self.limit


@dataclass(frozen=True)
class Report:
    """What the logs say of one version."""

    version: str
    requests: int
    statuses: dict[str, int]
    samples: int
    since: float | None  # of the first request
    until: float | None
    damaged: int  # lines that are no JSON
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def drifted(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.drifted]

    @property
    def drift(self) -> float | None:
        """The largest measure of texts above what chance gives, on the scale of the population stability index: above
        0.2, one of them drifted. None where too few requests were sampled. Below 0: less than chance gives."""
        shares = [
            (one.value - one.limit) / ALLOWED[MEASURES[one.measure]] + 1
            for one in self.findings
            if one.measure in MEASURES and one.value is not None and one.limit is not None
        ]
        return PSI * max(shares) if shares else None

    def to_json(self) -> dict[str, Any]:
        findings = [asdict(finding) | {"drifted": finding.drifted} for finding in self.findings]
        return asdict(self) | {"findings": findings, "drifted": bool(self.drifted)}


def logs_folder() -> Path:
    """Where the endpoint writes its logs."""
    return home() / "logs"


def monitor(reference: str, files: Sequence[Path] = (), hours: float | None = None) -> Report:
    """The report of `support` (the version it means now) or `support@3` over the endpoint's logs, or over `files`.

    Raises InputError for an unknown version, for files that are not there, and when no request for it was logged.
    """
    version = registry.resolve(reference)
    files = list(files) or sorted(logs_folder().glob("*.jsonl*"))
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        where = missing[0] if missing else logs_folder()
        raise InputError(f"there is no log in {where}: serve with logs on, or name one with --log FILE.")
    reader = _Reader(version.id, time.time() - hours * 3600 if hours else 0.0)
    rows = list(reader.rows(files))
    if not rows:
        raise InputError(
            f"no request for {version.id} is in {', '.join(map(str, files))}"
            f"{f' of the last {hours:g} hours' if hours else ''}: ask it something, or name another log with --log "
            "FILE."
        )
    return _report(version, rows, reader.damaged)


class _Reader:
    """The rows of one version. A line cut short, or spoiled by a hand, is counted and left out."""

    def __init__(self, version: str, since: float) -> None:
        self.version, self.since, self.damaged = version, since, 0

    def rows(self, files: Iterable[Path]) -> Iterator[dict[str, Any]]:
        for file in files:
            with file.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    row = self._row(line)
                    if row is not None and row["version"] == self.version and row["time"] >= self.since:
                        yield row

    def _row(self, line: str) -> dict[str, Any] | None:
        try:
            row = json.loads(line)
            if isinstance(row["time"] + row["status"], float | int) and "version" in row:
                return row  # type: ignore[no-any-return]
        except (ValueError, TypeError, LookupError):
            pass
        self.damaged += 1
        return None


def _report(version: Version, rows: list[dict[str, Any]], damaged: int) -> Report:
    sampled = [row for row in rows if _is_sample(row)]
    accesses = [row for row in rows if "prompt" not in row] or rows  # a sample alone has the request's line in it
    profile = read_profile(version.path)
    notes = []
    if profile is None:
        notes.append(f"{version.id} has no profile of its training data (it was gone at promotion): promote it again.")
    if len(sampled) < ENOUGH:
        notes.append(f"{len(sampled)} sampled requests are too few to compare texts: {ENOUGH} are needed.")
        profile = None
    findings = [_failures(accesses)]
    for name in ("prompt", "answer"):
        part = (profile or {}).get(name)
        if part is not None:
            findings += _of_texts(name, part, [row for row in sampled if row.get(name)])
        elif profile is not None:
            notes.append(f"the training data has no {name}s of its own, so those of the traffic are not compared.")
    findings += _confidence(version, sampled)
    times = [row["time"] for row in accesses]
    statuses = Counter(str(row["status"]) for row in accesses)
    return Report(
        version.id,
        len(accesses),
        dict(sorted(statuses.items())),
        len(sampled),
        min(times),
        max(times),
        damaged,
        tuple(findings),
        tuple(notes),
    )


def _is_sample(row: dict[str, Any]) -> bool:
    """Whether it holds both texts of a request that was answered, and their tokens."""
    texts, counts = (row.get("prompt"), row.get("answer")), (row.get("prompt_tokens"), row.get("completion_tokens"))
    whole = all(isinstance(text, str) for text in texts) and all(isinstance(count, int) for count in counts)
    return whole and row["status"] == 200


def _failures(rows: list[dict[str, Any]]) -> Finding:
    failed = sum(row["status"] >= 500 for row in rows)
    return Finding("requests", "", f"{failed} of {len(rows)} failed", "share of 5xx", failed / len(rows), FAILING)


def _of_texts(name: str, part: Part, rows: list[dict[str, Any]]) -> list[Finding]:
    """Lengths in tokens as the endpoint counted them, words as the log has them."""
    if len(rows) < ENOUGH:
        return []
    tokens = "prompt_tokens" if name == "prompt" else "completion_tokens"
    texts = Texts.together([Texts.of(int(row[tokens]), row[name]) for row in rows])
    found, chance = measures(part.texts, texts), expected(part.expected, len(rows))
    limits = {measure: chance[measure] + ALLOWED[measure] for measure in found}

    def finding(what: str, training: str, traffic: str, measure: str, label: str) -> Finding:
        return Finding(f"{name} {what}", training, traffic, label, round(found[measure], 4), round(limits[measure], 4))

    return [
        finding("length", _quantiles(part.texts), _quantiles(texts), "stability", "stability index (PSI)"),
        finding("words", _most(part.texts), _most(texts), "divergence", "Jensen-Shannon, bits"),
        finding(
            "new words",
            f"{len(part.texts.words):,} known",
            f"{texts.total:,} in all",
            "unseen",
            "share not in training",
        ),
    ]


def _confidence(version: Version, rows: list[dict[str, Any]]) -> list[Finding]:
    """Only a fall is drift: greedy answers are surer of themselves than of an evaluation's, and that is well."""
    manifest = version.manifest
    sure = [row["mean_logprob"] for row in rows if isinstance(row.get("mean_logprob"), float | int)]
    loss = manifest.get("metrics", {}).get("eval_loss")
    if len(sure) < ENOUGH:
        return []
    mean = statistics.mean(sure)
    traffic = f"{mean:.3f} a token"
    if loss is None or manifest["experiment"]["method"]["type"] not in CONFIDENT:
        return [Finding("confidence", "", traffic, "mean log-probability", None, None)]
    error = 2 * statistics.stdev(sure) / math.sqrt(len(sure))
    fall = round(-loss - mean - error, 4)  # what is left when chance has had its share
    return [Finding("confidence", f"{-loss:.3f} a token", traffic, "nats below evaluation", fall, LESS_SURE)]


def _quantiles(texts: Texts) -> str:
    found = texts.quantiles()
    return f"{found['p50']} tokens ({found['p5']} to {found['p95']})"


def _most(texts: Texts) -> str:
    return " ".join(word for word, _ in texts.words.most_common(4))


def to_table(report: Report) -> Table:
    """The findings as a table for the terminal."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in ("", "in training", "in traffic", "measure", "value", "limit", ""):
        table.add_column(heading, justify="right" if heading in ("value", "limit") else "left", no_wrap=True)
    for finding in report.findings:
        numbers = ["" if number is None else f"{number:.3f}" for number in (finding.value, finding.limit)]
        verdict = "drifted" if finding.drifted else "" if finding.limit is None else "ok"
        cells = (finding.what, finding.training, finding.traffic, finding.measure, *numbers, verdict)
        table.add_row(*cells, style="bold red" if finding.drifted else "")
    return table
