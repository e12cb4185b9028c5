"""What a trial writes, and when: evaluations at the rungs, metrics, checkpoint, weights, manifest.

What is on disk after every evaluation, in this order: the weights if they are the best so far with their manifest,
then the checkpoint. Only then is the evaluation reported, so whoever stops the trial on hearing it loses nothing.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftlib.adapter_state import STATE_FILE, digest, publish_as_plain
from ftlib.config import Experiment
from ftlib.data import Prepared
from ftlib.errors import TrialError
from ftlib.models import count_parameters, identity
from ftlib.runs import Trial, append_row, replace_directory, write_json
from ftlib.setting import Setting, versions
from ftlib.strategies import STATE_FILES as SHARDED_STATE_FILES
from ftlib.strategies import strategy_of

Report = Callable[[dict[str, Any]], None]

# What a checkpoint holds beyond the weights themselves.
STATE_FILES = (
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    "training_args.bin",
    "trainer_state.json",
    "projections.safetensors",  # of a distillation's features
    STATE_FILE,
    *SHARDED_STATE_FILES,
)
# Counters of the trainer for which a row has its own.
OURS = ("epoch", "num_input_tokens_seen", "num_tokens", "eval_num_tokens", "train_runtime", "train_tokens_per_second")


class Journal(TrainerCallback):
    """Decides when to evaluate and save, writes the trial's files, and reports."""

    def __init__(
        self, trainer: Trainer, trial: Trial, data: Prepared, experiment: Experiment, setting: Setting, report: Report
    ) -> None:
        self.trainer, self.trial, self.data, self.experiment = trainer, trial, data, experiment
        self.setting, self.report = setting, report
        self.sign = 1 if setting.mode == "min" else -1
        self.evaluated_at = -1
        self.evaluation: dict[str, Any] = {}
        self.rungs_passed = 0
        self.best = math.inf
        self.bar, self.evaluations_waited = math.inf, 0  # of early stopping: the score to beat, and for how long
        self.fresh = digest(trainer.model) if experiment.adapter is not None else None
        self.seconds = 0.0
        self.started = time.perf_counter()

    # --- when -------------------------------------------------------------------------------------------------

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Goes on where the checkpoint ends: rows after it are forgotten, its optimizer takes this trial's rate."""
        strategy_of(self.experiment).prove(self.trainer)
        if state.is_world_process_zero:
            self.trial.forget_after(state.global_step)
        rows = self.trial.metrics()
        self.seconds = rows[-1]["seconds"] if rows else 0.0
        self.best = min((self.sign * row[self.setting.metric] for row in self._scored(rows)), default=math.inf)
        for row in rows:
            if row["step"] <= state.global_step:
                self._waits_in_vain(row)
        self.rungs_passed = self.setting.rungs.passed(self._count(state))
        self.evaluated_at = state.global_step if state.global_step else -1
        if state.global_step:
            self._use_learning_rate(args.learning_rate)
        self.started = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        train = self.experiment.train
        passed = self.setting.rungs.passed(self._count(state))
        due = train.eval_strategy == "steps" and state.global_step % (train.eval_steps or 1) == 0
        if passed > self.rungs_passed or due or state.global_step >= state.max_steps:
            self.rungs_passed = passed
            self._ask(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.experiment.train.eval_strategy == "epoch" and state.global_step:
            self._ask(state, control)

    def _ask(self, state: TrainerState, control: TrainerControl) -> None:
        if state.global_step != self.evaluated_at:
            control.should_log = control.should_evaluate = control.should_save = True
            self.evaluated_at = state.global_step

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

    def _count(self, state: TrainerState) -> int:
        return self._tokens(state) if self.setting.rungs.unit == "tokens" else state.global_step

    def _tokens(self, state: TrainerState) -> int:
        """As the trainer counts them; by the share of the data, where it does not (ORPO, GRPO, RLOO)."""
        return int(state.num_input_tokens_seen or (state.epoch or 0.0) * self.data.report.train_tokens)

    def _use_learning_rate(self, rate: float) -> None:
        """A checkpoint brings its own learning rate; population-based training has changed it since."""
        schedule = self.trainer.lr_scheduler
        if schedule is None or not hasattr(schedule, "base_lrs"):
            return
        known = schedule.base_lrs[0]  # LoRA+ gives the groups after it a multiple
        if not known or known == rate:
            return
        for index, group in enumerate(schedule.optimizer.param_groups):
            group["lr"] *= rate / known
            group["initial_lr"] = schedule.base_lrs[index] = schedule.base_lrs[index] * rate / known

    # --- what is written --------------------------------------------------------------------------------------

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A row of `metrics.jsonl` for each log of the trainer; a number that is none ends the trial."""
        logs = dict(logs or {})
        if "train_loss" in logs:  # the trainer's closing summary repeats what is there
            return
        row = {
            "step": state.global_step,
            "epoch": round(state.epoch or 0.0, 4),
            "tokens": self._tokens(state),
            "seconds": round(self.seconds + time.perf_counter() - self.started, 3),
            "progress": round(state.global_step / max(state.max_steps, 1), 4),
            **{key: value for key, value in logs.items() if key not in OURS},
        }
        if self._waits_in_vain(row):
            row["progress"] = 1.0  # whoever resumes, or conducts, sees a trial at its end
            control.should_training_stop = True
        if state.is_world_process_zero:
            append_row(self.trial.metrics_path, {**row, "time": time.time()})
        for name in ("loss", "eval_loss", "grad_norm"):
            if name in row and not math.isfinite(row[name]):
                raise TrialError(_not_finite(name, row[name], state.global_step, self.experiment))
        if "eval_loss" in row:
            self.evaluation = row

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()  # each worker has its own files in the checkpoint
        if state.is_world_process_zero:
            self._publish(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.trainer.accelerator.wait_for_everyone()
        self.report({**self.evaluation, "finished": False})

    def _publish(self, staged: Path) -> None:
        score = self._score()
        if score <= self.best:
            self.best = score
            self._publish_weights(staged)
        replace_directory(staged, self.trial.path / "checkpoint")

    def _publish_weights(self, staged: Path) -> None:
        """The weights of the best evaluation, hard-linked from the checkpoint, with what they are beside them."""
        kind = self.experiment.adapter.saves if self.experiment.adapter is not None else "model"
        weights = staged.with_name(kind)
        shutil.rmtree(weights, ignore_errors=True)
        shutil.copytree(
            staged,
            weights,
            copy_function=_link,
            ignore=shutil.ignore_patterns(*STATE_FILES, "README.md", "checkpoint-*"),
        )
        publish_as_plain(self.trainer.model, weights)
        write_json(self.trial.path / "manifest.json", self._manifest(kind))
        replace_directory(weights, self.trial.path / kind)

    def _manifest(self, kind: str) -> dict[str, Any]:
        total, trainable = count_parameters(self.trainer.model)
        row = self.evaluation
        return {
            "kind": kind,
            "run": self.setting.run,
            "trial": self.trial.id,
            "base": identity(self.experiment.model, self.trainer.model),
            "experiment": self.experiment.to_dict(),
            "data_hash": self.data.hash,
            "chat_template": self.data.chat_template,
            "seed": self.experiment.train.seed,
            "step": row["step"],
            "tokens": row["tokens"],
            "seconds": row["seconds"],
            "metrics": {key: value for key, value in row.items() if key.startswith("eval_")},
            "total_parameters": total,
            "trainable_parameters": trainable,
            "versions": versions(),
            **(self.trainer.facts() if hasattr(self.trainer, "facts") else {}),
        }

    def finish(self) -> None:
        """After the last step: the adapter must have learned something, and the conductor hears that it is over."""
        self.trainer.accelerator.wait_for_everyone()  # a worker still at its end looks into the folder that goes below
        spread = [row["reward_std"] for row in self.trial.metrics() if "reward_std" in row]
        if spread and not any(spread):
            raise TrialError(
                "nothing was learned: all completions of each prompt got the same reward. Use rewards that tell them apart, "
                "more method.num_generations, or a model that succeeds now and then."
            )
        learned = [part for name, part in self._saved_adapter().items() if ".lora_B." in name]
        if learned and not any(torch.count_nonzero(part) for part in learned):
            raise TrialError(
                "the adapter is empty (every lora_B is zero): raise train.learning_rate or train for longer."
            )
        if self.fresh is not None and digest(self.trainer.model) == self.fresh:
            raise TrialError(
                "the adapter is empty (training changed none of its weights): raise train.learning_rate or train for longer."
            )
        if not self.evaluation:
            self._adopt()
        shutil.rmtree(self.trial.path / ".staging", ignore_errors=True)
        self.report({**self.evaluation, "finished": True})

    def _saved_adapter(self) -> dict[str, torch.Tensor]:
        """What is on disk, not in memory: of a sharded model a worker has only a part, and saving may have lost it."""
        file = self.trial.path / "checkpoint" / "adapter_model.safetensors"
        if self.experiment.adapter is None or self.experiment.adapter.saves == "model":
            return {}
        adapter: dict[str, torch.Tensor] = load_file(file) if file.exists() else {}
        if not sum(part.numel() for part in adapter.values()):
            raise TrialError("the saved adapter holds no weights: please report this with the experiment's file.")
        return adapter

    def _adopt(self) -> None:
        """A donor at its end left nothing to train: its weights are evaluated, and kept if they are the best here."""
        checkpoint = self.trial.checkpoint
        assert checkpoint is not None
        staged = Path(self.trainer.args.output_dir) / "checkpoint-donated"
        self.trainer.evaluate()
        shutil.copytree(checkpoint, staged)
        self._publish(staged)

    def _score(self) -> float:
        value = self.evaluation.get(self.setting.metric)
        if value is None:
            known = sorted(key for key in self.evaluation if key.startswith("eval_"))
            raise TrialError(f"sweep.metric is '{self.setting.metric}', but an evaluation gives: {', '.join(known)}.")
        return self.sign * float(value)

    def _scored(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for row in rows if math.isfinite(row.get(self.setting.metric, math.nan))]


def _link(source: str, target: str) -> None:
    """A hard link where the file system has them: published files are never written again."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _not_finite(name: str, value: float, step: int, experiment: Experiment) -> str:
    rate = experiment.train.learning_rate
    return (
        f"{name} became {value} by step {step}: train.learning_rate {rate:g} is too high here, or a data row is broken."
    )
