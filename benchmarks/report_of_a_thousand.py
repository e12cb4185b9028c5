"""How large `report.html` of a sweep of 1,000 trials is, and how long it takes to write and to open.

    python benchmarks/report_of_a_thousand.py --trials 1000 --times 3

Nothing is trained: the points and the losses are drawn. Everything else is the real code. Ray Tune's files apart, the
run directory has all that a sweep on four machines with prices leaves behind, by the writers that a sweep uses: 40 rows
of metrics a trial, events, states, the evaluation of two tasks with each of their answers.

Printed are the report's bytes, and of each opening in a new headless Chromium the seconds from asking for the file to
its `load` (the page is there, with its tables), to the first chart below the first screen, and of drawing all charts
when a reader scrolls through.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from ftlib.config import Experiment, TaskSection
from ftlib.driver.evaluate import write
from ftlib.evaluation.results import Contender, TaskResult, done
from ftlib.evaluation.task import Answer, Question
from ftlib.evaluation.trial_ties import tied_trials
from ftlib.evaluation.verdict import verdict
from ftlib.files.atomic import write_json
from ftlib.files.json_files import append_row
from ftlib.methods.table import PARTS_OF
from ftlib.report.page import write_report
from ftlib.run import layout
from ftlib.run.context import versions
from ftlib.run.directory import Run, Trial
from ftlib.run.leaderboard import leaderboard

MACHINES = 4
EVALUATIONS, LOGS = 8, 32  # rows of metrics of a trial that is not stopped
STEPS = 4  # from a row to the next
ROWS = {"tickets": 200, "general": 100}  # of the tasks
LABELS = ("billing", "account", "other")
EXPERIMENT = f"""
name: tickets
model: {{name_or_path: HuggingFaceTB/SmolLM2-135M-Instruct}}
data: {{train: data/train.jsonl, eval_split: 0.1}}
method: {{type: sft}}
adapter: {{type: lora}}
train: {{max_steps: {STEPS * LOGS}, eval_strategy: steps, eval_steps: {STEPS * LOGS // EVALUATIONS}}}
scale: {{resources_per_worker: {{CPU: 1}}, price_per_hour: {{CPU: 0.04}}}}
evaluation:
  tasks:
    - {{name: tickets, data: data/test.jsonl, metrics: [exact_match]}}
    - {{name: general, data: data/other.jsonl, metrics: [exact_match], role: regression}}
sweep:
  space:
    adapter.r: [4, 8, 16, 32]
    adapter.lora_dropout: {{min: 0.0, max: 0.2}}
    train.learning_rate: {{min: 1.0e-5, max: 1.0e-2, log: true}}
    train.lr_scheduler_type: [linear, cosine]
  scheduler: {{type: asha}}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--times", type=int, default=3, help="how often the report is opened, each in a new browser")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = drawn_run(Path(folder), given.trials, random.Random(0))
        began = time.perf_counter()
        file = write_report(run)
        took = time.perf_counter() - began
        print(f"{given.trials:,} trials: {file.stat().st_size / 1e6:.2f} MB, written in {took:.1f} s")
        for _ in range(given.times):
            print(opened(file))


def drawn_run(folder: Path, trials: int, drawn: random.Random) -> Run:
    """A sweep that has ended, evaluated."""
    text = folder / "tickets.yaml"
    text.write_text(EXPERIMENT)
    experiment = Experiment.load(text)
    resolved = {
        "experiment": experiment.to_dict(),
        "objective": experiment.objective,
        "data": {"hash": "0" * 16, "train_rows": 1800, "eval_rows": 200},
        "versions": versions(),
    }
    run = Run.create(folder, experiment.name, EXPERIMENT, resolved)
    _write_rows(_made(run, layout.BASE), [2.4], drawn)
    for number in range(trials):
        _train(run, number, drawn)
    run.log_event("ended", states={trial.id: trial.state for trial in run.trials()})
    _evaluate(run, experiment, drawn)
    return run


def _made(run: Run, name: str) -> Trial:
    trial = run.trial(name)
    trial.path.mkdir()
    trial.set_state("finished")
    return trial


def _train(run: Run, number: int, drawn: random.Random) -> None:
    """One trial: the nearer its rate is to 1e-3, the faster its loss falls. ASHA stops two of three early."""
    trial, rate, rank = run.new_trial(), 10 ** drawn.uniform(-5, -2), drawn.choice([4, 8, 16, 32])
    dropout, schedule = drawn.uniform(0, 0.2), drawn.choice(["linear", "cosine"])
    point = {"adapter.r": rank, "adapter.lora_dropout": dropout, "train.learning_rate": rate}
    write_json(trial.path / layout.PARAMS, {**point, "train.lr_scheduler_type": schedule})
    machine = number % MACHINES
    write_json(trial.path / layout.PLACE, {"node": f"node{machine}", "ip": f"192.0.2.{machine}", "pid": number})
    speed = math.exp(-((math.log10(rate) + 3) ** 2)) * (1 + rank / 64)
    kept = EVALUATIONS if number % 3 == 0 else drawn.randint(1, EVALUATIONS - 1)
    _write_rows(trial, [0.2 + 2.2 * math.exp(-4 * speed * at / EVALUATIONS) for at in range(1, kept + 1)], drawn)
    trial.set_state("finished" if kept == EVALUATIONS else "stopped")
    _on_its_machine(run, trial, number // MACHINES, kept)


def _on_its_machine(run: Run, trial: Trial, before: int, kept: int) -> None:
    """Its events, at times of a sweep that took hours."""
    events, start = run.path / layout.EVENTS, (run.path / layout.RESOLVED).stat().st_mtime + 40 * before
    append_row(events, {"time": start, "event": "trial_started", "trial": trial.id, "host": None, "failures": 0})
    append_row(events, {"time": start + 4 * kept, "event": f"trial_{trial.state}", "trial": trial.id, "reason": None})


def _write_rows(trial: Trial, losses: Sequence[float], drawn: random.Random) -> None:
    """The logs and the evaluations of a trial."""
    logs = LOGS // EVALUATIONS
    for at, loss in enumerate(losses):
        for log in range(logs):
            step = STEPS * (at * logs + log + 1)
            append_row(trial.metrics_path, _row(step, loss=loss * drawn.uniform(0.9, 1.1), learning_rate=1e-4))
        parts = [loss * drawn.uniform(0.8, 1.2) for _ in range(16)]
        append_row(trial.metrics_path, _row(step, eval_loss=loss, **{f"eval_loss{PARTS_OF}": parts}))


def _row(step: int, **values: Any) -> dict[str, Any]:
    done = step / (STEPS * LOGS)
    return {"step": step, "epoch": done, "tokens": 640 * step, "seconds": 0.25 * step, "progress": done, **values}


def _evaluate(run: Run, experiment: Experiment, drawn: random.Random) -> None:
    """Both tasks, done by three who know so much of the answers."""
    best = leaderboard(run).rows[0].trial
    tasks = [TaskResult(task, _questions(task), 0) for task in experiment.evaluation.tasks]
    known = {"base": 0.1, "few_shot": 0.5, "winner": 0.85}
    results = done(tasks, [partial(_contender, name, share, drawn) for name, share in known.items()])
    found = {"winner": best, "ties": tied_trials(run), **results.to_dict("winner")}
    write(results.lines(), {**found, "verdict": verdict(found)}, run.path)


def _questions(task: TaskSection) -> list[Question]:
    asked = "Which queue is this ticket for? My invoice of last month has a line that I do not know, number"
    return [
        Question(({"role": "user", "content": f"{asked} {row}."},), LABELS[row % len(LABELS)])
        for row in range(ROWS[task.name])
    ]


def _contender(name: str, known: float, drawn: random.Random) -> Contender:
    def answer(task: TaskSection, questions: Sequence[Question]) -> list[Answer]:
        return [
            Answer(question.reference if drawn.random() < known else drawn.choice(LABELS), 2, 0.01)
            for question in questions
        ]

    return Contender(name, name, answer)


def opened(file: Path) -> str:
    """One opening in a browser of its own."""
    with sync_playwright() as playwright:
        path = next(found for name in ("chromium", "google-chrome") if (found := shutil.which(name)))
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            return _seen(browser, file)
        finally:
            browser.close()


def _seen(browser: Browser, file: Path) -> str:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    began = time.perf_counter()
    page.goto(file.as_uri())
    page.locator("#leaderboard tbody tr:visible").nth(9).wait_for()
    loaded = time.perf_counter() - began
    first, *others = page.locator(".chart").all()
    first.scroll_into_view_if_needed()
    first.locator("svg.main-svg").first.wait_for()
    chart = time.perf_counter() - began
    for one in others:
        one.scroll_into_view_if_needed()
        one.locator("svg.main-svg").first.wait_for()
    every = time.perf_counter() - began - chart
    return f"open after {loaded:.2f} s, the first chart after {chart:.2f} s; the {len(others)} others in {every:.2f} s"


if __name__ == "__main__":
    main()
