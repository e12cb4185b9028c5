"""A trial on TRL's or transformers' trainer: a callback that lets its `Record` decide and write."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftlib.config import Experiment
from ftlib.data import Prepared
from ftlib.errors import Preempted, TrialError
from ftlib.methods.trl_private import read_weights
from ftlib.models.adapters.state import STATE_FILE, can_be_read_back, digest, publish_as_plain
from ftlib.models.base import count_parameters, identity
from ftlib.models.strategies import STATE_FILES as SHARDED_STATE_FILES
from ftlib.models.strategies import strategy_of
from ftlib.run.context import EvalPart, Setting
from ftlib.run.directory import Trial
from ftlib.run.layout import CHECKPOINT
from ftlib.training.recorder import EMPTY, Record, Report

# What a checkpoint holds beyond the weights themselves.
STATE_FILES = (
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    "training_args.bin",
    "trainer_state.json",
    "projections.safetensors",  # of a distillation's features
    "peer.safetensors",  # of mutual distillation
    STATE_FILE,
    *SHARDED_STATE_FILES,
)
# Counters of the trainer for which a row has its own.
OURS = (
    *("epoch", "num_input_tokens_seen", "num_tokens", "eval_num_tokens"),
    *("train_runtime", "train_tokens_per_second", "eval_model_preparation_time"),
)


class TrialCallback(TrainerCallback):
    """Tells the record what the trainer does, and the trainer when to evaluate and save; reports."""

    def __init__(
        self, trainer: Trainer, trial: Trial, data: Prepared, experiment: Experiment, setting: Setting, report: Report
    ) -> None:
        self.trainer, self.trial, self.data, self.experiment = trainer, trial, data, experiment
        self.report = report
        self.closing = False  # whether the evaluation at hand is that of the kept weights on all rows
        self.record = Record(trial, experiment, setting, data, writes=trainer.is_world_process_zero())
        self.leaving: str | None = None  # why it leaves its machine at this step
        self.fresh = digest(trainer.model) if experiment.adapter is not None else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Goes on where the checkpoint ends; its optimizer takes this trial's rate."""
        strategy_of(self.experiment).prove(self.trainer)
        in_tokens = self.record.setting.rungs.unit == "tokens"
        count = self._tokens(state) if in_tokens else state.global_step
        self.record.begin(state.global_step, count, state.epoch or 0.0)
        if state.global_step:
            self._use_learning_rate(args.learning_rate)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._ask(state, control, epoch_ended=False)
        if args.world_size == 1:  # several workers would have to agree on the step
            self.leaving = self.trial.asked_to_leave
            control.should_save = control.should_save or self.leaving is not None

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._ask(state, control, epoch_ended=True)

    def _ask(self, state: TrainerState, control: TrainerControl, epoch_ended: bool) -> None:
        step, epoch = state.global_step, state.epoch or 0.0
        if self.record.due(step, epoch, self._tokens(state), state.max_steps, epoch_ended):
            control.should_log = control.should_save = True
            control.should_evaluate = self.record.held_out
        elif not epoch_ended and self.record.saves(step):  # an epoch's last step has been asked about already
            control.should_save = True

    def _tokens(self, state: TrainerState) -> int:
        """As the trainer counts them; by the share of the data, where its trainer does not count."""
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

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A row for each log of the trainer; a number that is none ends the trial."""
        logs = dict(logs or {})
        if "train_loss" in logs:  # the trainer's closing summary repeats what is there
            return
        values = {key: value for key, value in logs.items() if key not in OURS}
        if self.closing:
            self.record.close(values, self._facts)
        elif self.record.add(state.global_step, state.epoch or 0.0, self._tokens(state), state.max_steps, values):
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()  # each worker has its own files in the checkpoint
        evaluated = self.record.evaluated_at == state.global_step
        staged = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            if evaluated:
                self._publish(staged)
            else:
                self.record.keep(staged)
        self.trainer.accelerator.wait_for_everyone()
        if evaluated:
            self.report(self.record.report(finished=False))
        if self.leaving is not None:
            raise Preempted(self.leaving)

    def _publish(self, staged: Path) -> None:
        kind = self.experiment.adapter.saves if self.experiment.adapter is not None else "model"

        def as_plain(weights: Path) -> None:
            publish_as_plain(self.trainer.model, weights)

        self.record.publish(staged, kind, self._facts, STATE_FILES, as_plain)

    def _facts(self) -> dict[str, Any]:
        total, trainable = count_parameters(self.trainer.model)
        return {
            "base": identity(self.experiment.model, self.trainer.model),
            "total_parameters": total,
            "trainable_parameters": trainable,
            **(self.trainer.facts() if hasattr(self.trainer, "facts") else {}),
        }

    def finish(self) -> None:
        """After the last step: checks that the adapter has learned something, and reports that the trial is over. The
        driver hears this."""
        self.trainer.accelerator.wait_for_everyone()  # a worker still at its end looks into the folder that goes below
        spread = [row["reward_std"] for row in self.trial.metrics() if "reward_std" in row]
        if spread and not any(spread):
            raise TrialError(
                "nothing was learned: all completions of each prompt got the same reward. Use rewards that tell them "
                "apart, "
                "more method.num_generations, or a model that succeeds now and then."
            )
        learned = [part for name, part in self._saved_adapter().items() if ".lora_B." in name]
        if learned and not any(torch.count_nonzero(part) for part in learned):
            raise TrialError(EMPTY.format("every lora_B is zero"))
        if self.fresh is not None and digest(self.trainer.model) == self.fresh:
            raise TrialError(EMPTY.format("training changed none of its weights"))
        if not self.record.evaluation:
            self._adopt()
        if not self.record.setting.part.whole:
            self._close()
        shutil.rmtree(self.trial.path / ".staging", ignore_errors=True)
        self.report(self.record.report(finished=True))

    def _close(self) -> None:
        """Evaluates the weights that the trial keeps on all rows. Where they are not the model's and cannot be read
        back into it, the trial has its number on the part alone."""
        kept = self.trial.weights
        if kept is not None and self.record.best_step != self.record.evaluation["step"]:
            whole = self.experiment.scale.strategy in ("single", "ddp")
            if not (whole and can_be_read_back(self.experiment.adapter)):
                return
            read_weights(self.trainer, kept)
        self.trainer.evaluated_on(EvalPart())
        self.closing = True
        self.trainer.evaluate()

    def _saved_adapter(self) -> dict[str, torch.Tensor]:
        """What is on disk, not in memory: of a sharded model a worker has only a part, and saving may have lost it."""
        file = self.trial.path / CHECKPOINT / "adapter_model.safetensors"
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
