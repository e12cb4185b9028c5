"""What a trial leaves in its directory, and when: for a trial on TRL's trainer and for one in a pack alike.

What is on disk after every evaluation, in this order: the weights if they are the best so far with their manifest,
then the checkpoint. Only then is the evaluation reported, so whoever stops the trial on hearing it loses nothing.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ftlib.config import Experiment
from ftlib.config.methods.base import BITS
from ftlib.errors import TrialError
from ftlib.files.atomic import link, replace_directory, write_json
from ftlib.files.json_files import append_row, read_json
from ftlib.files.patience import patiently
from ftlib.models.base import load_tokenizer, parent_of
from ftlib.run.context import Setting, versions
from ftlib.run.directory import ALL_ROWS, Run, Trial
from ftlib.run.layout import CHECKPOINT, MANIFEST
from ftlib.run.trial_transfer import upload
from ftlib.training.machine import Machine
from ftlib.training.text_bits import asks_for_bits, bits_of_a_loss

Report = Callable[[dict[str, Any]], None]
POSITION = "position.json"  # in a pack's checkpoint: where it stands
GIVEN = ".given-by-{}"  # a donor's position, put aside for this trial


class Record:
    """Rows of `metrics.jsonl`, when to evaluate, the best weights, the checkpoint.

    `writes` is false on the workers of a trial that are not its first: they decide alike and write nothing.
    """

    def __init__(self, trial: Trial, experiment: Experiment, setting: Setting, data: Any, writes: bool = True) -> None:
        self.trial, self.experiment, self.setting, self.data = trial, experiment, setting, data
        self.writes = writes
        self.held_out = data.held_out is not None
        self.sign = 1 if setting.mode == "min" else -1
        self.evaluation: dict[str, Any] = {}
        self.evaluated_at = -1
        self.rungs_passed = 0
        self.parts_passed = 0  # of epochs, `train.evals_per_epoch` in each
        self.best = math.inf
        self.over = False  # whether early stopping has ended it before it was broken off
        self.bar, self.evaluations_waited = math.inf, 0  # of early stopping: the score to beat, and for how long
        self.seconds = 0.0
        self.started = time.perf_counter()
        self.machine = Machine()
        self._bits: dict[Sequence[int] | None, float] = {}  # bits per byte of a loss of 1, by the rows of an evaluation

    def begin(self, step: int, count: int, epoch: float) -> None:
        """Goes on where a checkpoint ends: rows after it are forgotten. `count` is in the unit of the rungs."""
        known = self.trial.metrics()
        rows = [row for row in known if row["step"] <= step]
        if self.writes and known:
            repeats = max(row["step"] for row in known) - step
            Run(Path(self.setting.run)).log_event(
                "trial_continued", trial=self.trial.id, step=step, repeats=max(repeats, 0)
            )
            self.trial.forget_after(step)
        self.seconds = rows[-1]["seconds"] if rows else 0.0
        metric = self.setting.metric
        scores = [self.sign * row[metric] for row in rows if math.isfinite(row.get(metric, math.nan))]
        self.best = min(scores, default=math.inf)
        for row in rows:
            self.over = self._waits_in_vain(row)
        self.rungs_passed = self.setting.rungs.passed(count)
        self.parts_passed = self._parts(epoch)
        self.evaluated_at = step if step else -1
        self.machine.begin(rows[-1]["tokens"] if rows else 0)
        self.started = time.perf_counter()

    def _parts(self, epoch: float) -> int:
        """How many evaluations `train.evals_per_epoch` asks for in this number of epochs."""
        return math.floor(epoch * (self.experiment.train.evals_per_epoch or 0) + 1e-6)

    def saves(self, step: int) -> bool:
        """Whether `train.save_steps` asks for a checkpoint of this step, evaluated or not."""
        every = self.experiment.train.save_steps
        return every is not None and step > 0 and step % every == 0

    def due(self, step: int, epoch: float, tokens: int, last_step: int, epoch_ended: bool = False) -> bool:
        """Whether the trial evaluates now: at a rung, where `train.eval_strategy` says so, and at its end. Asked
        once."""
        train = self.experiment.train
        passed = self.setting.rungs.passed(tokens if self.setting.rungs.unit == "tokens" else step)
        asked = train.eval_strategy == "steps" and step % (train.eval_steps or 1) == 0
        asked = asked or (train.eval_strategy == "epoch" and epoch_ended)
        parts = self._parts(epoch)
        asked = asked or parts > self.parts_passed
        self.parts_passed = max(self.parts_passed, parts)
        due = passed > self.rungs_passed or asked or step >= last_step
        self.rungs_passed = max(self.rungs_passed, passed)
        if not self.held_out:  # with nothing to evaluate on, the weights of the end are kept
            due = step >= last_step
        if not due or step in (0, self.evaluated_at):
            return False
        self.evaluated_at = step
        return True

    def add(self, step: int, epoch: float, tokens: int, last_step: int, values: dict[str, Any]) -> bool:
        """Writes a row; returns whether early stopping ends the trial with it. A number that is none is a
        TrialError."""
        values = self.with_bits(values, self.setting.part.rows)
        row = {
            "step": step,
            "epoch": round(epoch, 4),
            "tokens": tokens,
            "seconds": self._gone(),
            "progress": round(step / last_step, 4) if last_step else 1.0,  # of what trains nothing
            **values,
            **self.machine.row(tokens, trained="loss" in values),
        }
        if not self.held_out and step == self.evaluated_at and "loss" in values:
            row["train_loss"] = values["loss"]
        in_vain = self._waits_in_vain(row)
        if in_vain:
            row["progress"] = 1.0  # the driver, and a later resume, see a trial at its end
        if self.writes:
            append_row(self.trial.metrics_path, {**row, "time": time.time()})
        self._check_finite(row, step)
        if "eval_loss" in row or "train_loss" in row:
            self.evaluation = row
        return in_vain

    def _gone(self) -> float:
        """Seconds of this trial, those before a resume too."""
        return round(self.seconds + time.perf_counter() - self.started, 3)

    def _check_finite(self, values: dict[str, Any], step: int) -> None:
        """Raises TrialError for a number that is none."""
        for name in ("loss", "eval_loss", "grad_norm"):
            if name in values and not math.isfinite(values[name]):
                raise TrialError(not_finite(name, values[name], step, self.experiment))
        metric = self.setting.metric
        if metric in self.experiment.evaluation.metrics and not math.isfinite(values.get(metric, 0.0)):
            raise TrialError(f"{metric} is no number at step {step}: no answer has a score (is its judge away?).")

    def with_bits(self, values: dict[str, Any], part: Sequence[int] | None) -> dict[str, Any]:
        """An evaluation's numbers with bits per byte, where trials are judged by these; `part` are its rows."""
        if "eval_loss" not in values or not asks_for_bits((self.setting.metric, *self.setting.judged_by)):
            return values
        if part not in self._bits:
            tokenizer = load_tokenizer(self.experiment.model)
            self._bits[part] = bits_of_a_loss(self.data.eval, tokenizer, part)
        return {**values, BITS: values["eval_loss"] * self._bits[part]}

    def report(self, finished: bool) -> dict[str, Any]:
        """What the driver hears of the latest evaluation: where trials are judged by measures, these too."""
        measures = self.trial.measures if self.setting.judged_by else {}
        return {**self.evaluation, **measures, "finished": finished}

    @property
    def best_step(self) -> int:
        """The step whose weights the trial keeps."""
        return int(self.trial.manifest["step"])

    def close(self, values: dict[str, Any], facts: Callable[[], dict[str, Any]]) -> None:
        """Writes what the kept weights are worth on all rows: a row of its own, and the numbers of the manifest."""
        values = self.with_bits(values, None)
        last, manifest = self.evaluation, self.trial.manifest
        self._check_finite(values, self.best_step)
        if self.writes:
            counts = {name: last[name] for name in ("step", "epoch", "tokens")}
            row = {**counts, "seconds": self._gone(), "progress": 1.0, ALL_ROWS: {**values, "step": self.best_step}}
            write_json(self.trial.path / MANIFEST, {**manifest, "metrics": self._metrics(values), **facts()})
            append_row(self.trial.metrics_path, {**row, "time": time.time()})
            upload(self.setting, self.trial.id)

    def _waits_in_vain(self, row: dict[str, Any]) -> bool:
        """Whether this is the `early_stopping_patience`-th evaluation in a row that has not improved the metric."""
        train = self.experiment.train
        if train.early_stopping_patience is None or self.setting.metric not in row:
            return False
        score = self.sign * row[self.setting.metric]
        if score < self.bar - train.early_stopping_threshold:
            self.bar, self.evaluations_waited = score, 0
        else:
            self.evaluations_waited += 1
        return self.evaluations_waited >= train.early_stopping_patience

    def publish(
        self,
        staged: Path,
        kind: str,
        facts: Callable[[], dict[str, Any]],
        leave_out: Sequence[str],
        finish: Callable[[Path], None] = lambda weights: None,
    ) -> None:
        """Makes `staged` the checkpoint, and its weights, when this evaluation is the best so far, the trial's.

        `leave_out` are the files of a checkpoint that are no weights; `finish` has the last hand on the weights.
        """
        score = self.score()
        if score <= self.best:
            self.best = score
            weights = staged.with_name(kind)
            ignore = shutil.ignore_patterns(*leave_out, "README.md", "checkpoint-*")

            def copy() -> None:
                shutil.rmtree(weights, ignore_errors=True)
                shutil.copytree(staged, weights, copy_function=link, ignore=ignore)
                finish(weights)

            patiently(copy, self.trial.path)
            write_json(self.trial.path / MANIFEST, self._manifest(kind, self._known(facts())))
            replace_directory(weights, self.trial.path / kind)
        replace_directory(staged, self.trial.path / CHECKPOINT)
        upload(self.setting, self.trial.id)

    def keep(self, staged: Path) -> None:
        """Makes `staged` the checkpoint, of a step that was not evaluated: the trial is about to lose its machine."""
        replace_directory(staged, self.trial.path / CHECKPOINT)
        upload(self.setting, self.trial.id)

    def _manifest(self, kind: str, facts: dict[str, Any]) -> dict[str, Any]:
        row = self.evaluation
        return {
            "kind": kind,
            "run": self.setting.run,
            "trial": self.trial.id,
            "experiment": self.experiment.to_dict(),
            "data_hash": self.data.hash,
            "data_versions": self.setting.data_versions,
            "chat_template": self.data.chat_template,
            "parent": self._parent(facts),
            "seed": self.experiment.train.seed,
            "step": row["step"],
            "tokens": row["tokens"],
            "seconds": row["seconds"],
            "metrics": self._metrics(row),
            "versions": versions(),
            **facts,
        }

    def _known(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Without what compares a number on a part of the rows with a teacher's, which is on all."""
        if self.setting.part.rows is not None and "teacher" in facts:
            told = {name: value for name, value in facts["teacher"].items() if name != "retained"}
            return {**facts, "teacher": told}
        return facts

    def _metrics(self, row: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in row.items() if self._is_evaluation(k) and not isinstance(v, list)}

    def _is_evaluation(self, key: str) -> bool:
        """Whether a row's number is an evaluation's: `eval_loss`, or of a task `tickets/exact_match`."""
        return key.startswith("eval_") or key == "latency_ms" or key in self.experiment.evaluation.metrics

    def _parent(self, facts: dict[str, Any]) -> str | None:
        """The version of the registry that training began with: the adapter's, or the base's."""
        start = getattr(self.experiment.adapter, "start", None)
        found = parent_of(Path(start)) if start else facts["base"].get("parent")
        return found["version"] if found else None

    def score(self) -> float:
        """The latest evaluation's metric, lower being better. Raises TrialError where an evaluation does not give
        it."""
        value = self.evaluation.get(self.setting.metric)
        if value is None:
            known = sorted(key for key in self.evaluation if self._is_evaluation(key))
            raise TrialError(f"sweep.metric is '{self.setting.metric}', but an evaluation gives: {', '.join(known)}.")
        return self.sign * float(value)


def closing_evaluation(trial: Trial, setting: Setting) -> dict[str, Any] | None:
    """The last evaluation of a trial that was trained to its end and whose weights are all on disk."""
    rows, checkpoint = trial.evaluations(setting.metric), trial.checkpoint
    if not rows or not checkpoint or trial.weights is None or rows[-1]["progress"] < 1:
        return None
    if not setting.part.whole and trial.on_all_rows is None:
        return None
    of_pack, of_trainer = read_json(checkpoint / POSITION), read_json(checkpoint / "trainer_state.json")
    step = of_pack["step"] if of_pack else of_trainer["global_step"]
    return {**trial.measures, **rows[-1]} if step == rows[-1]["step"] else None


def copy_checkpoint(donor: Trial, trial: Trial, tries: int = 10) -> None:
    """Takes over the donor's position: the one that was `put_aside`, or else its latest, while it trains on."""
    staged, aside = trial.path / ".donated", _aside(donor, trial)
    for _ in range(tries):
        try:
            _copy(aside if aside.exists() else donor.checkpoint, staged)
        except OSError:
            time.sleep(0.2)
        else:
            replace_directory(staged, trial.path / CHECKPOINT)
            return
    raise TrialError(f"the checkpoint of trial {donor.id}, to go on from, could not be copied.")


def put_aside(donor: Trial, trial: Trial) -> bool:
    """Keeps the donor's position for `trial`, whose process has yet to start. False where it cannot be kept (the donor
    is on another machine, the disk is full): the trial takes the donor's latest then."""
    aside = _aside(donor, trial)
    for earlier in trial.path.glob(GIVEN.format("*")):
        shutil.rmtree(earlier, ignore_errors=True)
    staged = aside.with_name(f"{aside.name}.new")
    try:
        _copy(donor.checkpoint, staged)
    except OSError:
        return False
    replace_directory(staged, aside)
    return True


def _aside(donor: Trial, trial: Trial) -> Path:
    return trial.path / GIVEN.format(donor.id)


def _copy(checkpoint: Path | None, staged: Path) -> None:
    """Raises OSError where there is none, or where another took its place meanwhile."""
    if checkpoint is None:
        raise FileNotFoundError
    shutil.rmtree(staged, ignore_errors=True)
    inode = checkpoint.stat().st_ino
    shutil.copytree(checkpoint, staged, copy_function=link)
    if checkpoint.stat().st_ino != inode:
        raise FileNotFoundError


def not_finite(name: str, value: float, step: int, experiment: Experiment) -> str:
    """The reason of a trial that ends because a number is not finite."""
    rate = experiment.train.learning_rate
    return (
        f"{name} became {value} by step {step}: train.learning_rate {rate:g} is too high here, or a data row is broken."
    )


EMPTY = "the adapter is empty ({}): raise train.learning_rate or train for longer."
