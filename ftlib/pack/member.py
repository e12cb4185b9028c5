"""One trial in a pack: its place in the data, its optimizer over its own slot, its files."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import get_scheduler, set_seed

from ftlib.config import Experiment, Lora
from ftlib.errors import TrialError
from ftlib.files.atomic import link, write_json
from ftlib.files.json_files import read_json
from ftlib.files.patience import patiently
from ftlib.methods.pack_losses import Objective, objective
from ftlib.models.adapter_files import check_tensors
from ftlib.models.adapters.build import TASKS
from ftlib.models.adapters.state import PEFT_WEIGHTS
from ftlib.models.bank_routes import Dropout
from ftlib.models.base import where
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.order import Order
from ftlib.pack.slot_optimizer import tenant_of
from ftlib.pack.token_layout import Block
from ftlib.pack.update import MOMENTS, Numbers, Update
from ftlib.run.directory import Trial
from ftlib.training.recorder import EMPTY, POSITION, Record, Report, not_finite

OPTIMIZER = "optimizer.safetensors"
STATE_FILES = (OPTIMIZER, POSITION)  # what a checkpoint holds beyond the weights


@dataclass
class _Step:
    """A step that is done, and whose loss and norm are not read yet."""

    number: int
    epoch: float
    tokens: int
    rate: float
    numbers: Numbers
    logged: int = 0  # the steps that its log is the mean of; 0 for none


class Member:
    """A trial and its slot. The pack computes its batches and steps together with others'; all else is done here."""

    def __init__(
        self,
        trial: Trial,
        experiment: Experiment,
        base: FrozenBase,
        slot: int,
        record: Record,
        report: Report,
        blocks: Callable[[Objective, list[int], bool], Block],
        update: Update,
    ) -> None:
        self.trial, self.experiment, self.base, self.slot = trial, experiment, base, slot
        self.record, self.report, self.blocks = record, report, blocks
        adapter = experiment.adapter
        assert isinstance(adapter, Lora)
        self.adapter, self.train = adapter, experiment.train
        self.objective = objective(experiment, base.data, base)
        self.order = Order(len(base.data.train), experiment.train, self.objective.shuffles)
        self.objective.meets = self.order.met()
        self.layers = base.layers.of(adapter)
        if foreign := set(self.layers) - set(base.bank.targets):
            raise TrialError(f"adapter.target_modules: the pack has no room for an adapter on {min(foreign)}.")
        if adapter.use_dora and not base.bank.dora:
            raise TrialError("adapter.use_dora: the pack has no room for magnitudes, which no trial of the sweep has.")
        base.bank.configure_layers(slot, self.layers, adapter.use_dora)
        self.tenant = tenant_of(base.bank, slot, adapter, experiment.train)
        update.take(slot, self.tenant)
        self.step, self.tokens, self.batch = 0, 0, 0  # optimizer steps, tokens seen, batches of this step so far
        self.loss = torch.zeros((), device=base.device)  # since the last log, a sum over steps
        self.logged_at = 0
        self.grad_norm = 0.0
        self._unread: _Step | None = None
        self.ended = self.finished = False  # trained to its end; and all that is left of it is on disk
        self._begin()
        warmup = self.train.warmup_steps
        steps = self.order.steps
        self.schedule = get_scheduler(
            self.train.lr_scheduler_type,
            self.tenant.optimizer,
            num_warmup_steps=math.ceil(steps * warmup) if warmup < 1 else int(warmup),
            num_training_steps=steps,
            scheduler_specific_kwargs=self.train.schedule_arguments,
        )
        for _ in range(self.step):  # a schedule is a function of the step
            self.schedule.step()

    def _begin(self) -> None:
        checkpoint = self.trial.checkpoint
        if checkpoint is None:
            self._draw()
        else:
            self._restore(checkpoint)
        in_tokens = self.record.setting.rungs.unit == "tokens"
        count = self.tokens if in_tokens else self.step
        self.record.begin(self.step, count, self.order.epoch(self.step))
        self.rows_of_step: list[list[int]] = []
        self.items: int | None = None

    def _draw(self) -> None:
        """The weights that a solo trial of this seed begins with: those of `adapter.from`, or drawn: a head first, as
        the model is loaded, then the adapter."""
        if self.base.start is not None:
            self.base.bank.load_peft(self.slot, self.base.start)
            return
        set_seed(self.train.seed)
        heads = self.base.drawn.again()
        self.base.bank.draw(self.slot, gaussian=self.adapter.init_lora_weights == "gaussian")
        self.base.bank.load(self.slot, self.base.bank.state(self.slot) | heads)

    # --- what the pack computes for it -------------------------------------------------------------------------

    @property
    def rows(self) -> list[int]:
        """The rows of the batch that comes next."""
        return self.rows_of_step[self.batch]

    def block(self) -> Block:
        """The next batch, as places in a layout."""
        if not self.rows_of_step:
            self.rows_of_step = self.order.batches(self.step)
            blocks = [self.blocks(self.objective, rows, not self.drops) for rows in self.rows_of_step]
            counted = [
                self.objective.items(rows, len(block.picked))
                for rows, block in zip(self.rows_of_step, blocks, strict=True)
            ]
            self.items = None if None in counted else sum(count for count in counted if count is not None)
            self.before = self.loss.clone(), self.tokens
        return self.blocks(self.objective, self.rows, not self.drops)

    @property
    def drops(self) -> bool:
        """Whether it trains with dropout: then each sequence has a mask of its own, and no place serves two of them."""
        return (self.adapter.lora_dropout > 0 or self.base.drops) and self.objective.adapter_dropout

    def dropout(self, tokens: int) -> Dropout | None:
        """The dropout of the next batch, of `tokens` places."""
        if not self.drops:
            return None
        return Dropout(self.adapter.lora_dropout, (self.train.seed, self.step, self.batch), tokens)

    @property
    def shares_rows(self) -> bool:
        """Whether the rows of a batch can be computed apart: they are summed up, and no mask of a dropout lies over
        all of them."""
        return self.items is not None and not self.drops and not self.base.is_encoder

    def block_of(self, rows: list[int]) -> Block:
        """Some rows of the next batch, as places in a layout."""
        return self.blocks(self.objective, rows, True)

    def length(self, row: int) -> int:
        """How many tokens a row has."""
        return self.block_of([row]).tokens

    def part(self, scored: Any, rows: list[int] | None = None) -> Tensor:
        """This batch's part of the step's loss, or that of some of its rows."""
        loss = self.objective.loss(scored, "train", self.rows if rows is None else rows, self.items)
        return loss if self.items is not None else loss / len(self.rows_of_step)

    def begin_step_again(self) -> None:
        """Forgets the batches of this step so far, and what a broken pass may have left of its gradient."""
        self.base.bank.grads[self.slot].zero_()
        self.batch = 0
        self.loss, self.tokens = self.before[0].clone(), self.before[1]

    def went_backward(self, part: Tensor, tokens: int) -> bool:
        """A batch is done; whether the optimizer's step is due."""
        self.loss += part.detach()
        self.tokens += tokens
        self.batch += 1
        return self.batch == len(self.rows_of_step)

    def stepped(self, numbers: Numbers) -> None:
        """The optimizer's step is done. Raises TrialError where the step before it had no number: on a device that is
        known only now."""
        self.settle()
        self.step, self.batch, self.rows_of_step = self.step + 1, 0, []
        rate = self.schedule.get_last_lr()[0]
        self._unread = _Step(self.step, self.order.epoch(self.step), self.tokens, rate, numbers)
        self.schedule.step()

    def evaluates(self) -> bool:
        """Whether an evaluation is due after this step; logs the loss where that is due."""
        order, done = self.order, self._unread
        assert done is not None
        due = self.record.due(self.step, done.epoch, self.tokens, order.steps, order.ends_epoch(self.step))
        if due or self.step % self.train.logging_steps == 0:
            done.logged = max(self.step - self.logged_at, 1)
            self.loss.zero_()
            self.logged_at = self.step
        saves = not due and self.record.saves(self.step)
        if due or saves or done.numbers.here:
            self.settle()
        if saves:
            self.record.keep(self._stage())
        return due

    def settle(self) -> None:
        """Reads the loss and the norm of the last step, and logs them where that is due. Raises TrialError for one that
        is no number."""
        done, self._unread = self._unread, None
        if done is None:
            return
        loss, self.grad_norm = done.numbers.of(self.slot)
        for name, value in (("loss", loss), ("grad_norm", self.grad_norm)):
            if not math.isfinite(value):
                raise TrialError(not_finite(name, value, done.number, self.experiment))
        if done.logged:
            values = {"loss": loss / done.logged, "grad_norm": self.grad_norm, "learning_rate": done.rate}
            self.record.add(done.number, done.epoch, done.tokens, self.order.steps, values)

    # --- what it leaves ---------------------------------------------------------------------------------------

    def evaluated(self, evaluation: dict[str, float], seconds: float) -> None:
        """Writes the evaluation, the weights and the checkpoint, then reports."""
        values = {**evaluation, "eval_runtime": round(seconds, 4)}
        in_vain = self.record.add(self.step, self.order.epoch(self.step), self.tokens, self.order.steps, values)
        self._publish(evaluation, in_vain)

    def unmeasured(self) -> None:
        """The same at its end, where no rows are held out: its last training loss stands for an evaluation."""
        self._publish({}, in_vain=False)

    def _publish(self, evaluation: dict[str, float], in_vain: bool) -> None:
        self.record.publish(self._stage(), "adapter", partial(self._facts, evaluation), STATE_FILES)
        self.report(self.record.report(finished=False))
        self.ended = in_vain or self.step >= self.order.steps
        if self.ended and self.record.setting.part.whole:
            self.finish()

    def recall(self) -> None:
        """Brings the weights that the trial keeps, those of its best evaluation, back into its slot."""
        weights = self.trial.weights
        if weights is not None and self.record.best_step != self.step:
            self.base.bank.load_peft(self.slot, load_file(weights / PEFT_WEIGHTS))

    def closed(self, evaluation: dict[str, float], seconds: float) -> None:
        """Writes what the weights that the trial keeps are worth on all rows."""
        self.record.close({**evaluation, "eval_runtime": round(seconds, 4)}, partial(self._facts, evaluation))
        self.finish()

    def keep(self) -> None:
        """Saves where it stands, without an evaluation; a step that is half done is done again by whoever goes on.
        Raises TrialError where the last step had no number."""
        if self.batch:
            self.begin_step_again()
        if self.step:
            self.settle()
            self.record.keep(self._stage())

    def _stage(self) -> Path:
        return patiently(self._write, self.trial.path)

    def _write(self) -> Path:
        staged = self.trial.path / ".staging" / f"checkpoint-{self.step}"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        bank = self.base.bank
        save_file(bank.peft_state(self.slot), staged / PEFT_WEIGHTS, metadata={"format": "pt"})
        self._peft_config().save_pretrained(str(staged))
        moments = {
            f"{kind}|{name}": tensor
            for kind, moment in self.tenant.moments.items()
            for name, tensor in bank.state(self.slot, moment.unsqueeze(0).expand(bank.slots, -1)).items()
        }
        save_file(moments, staged / OPTIMIZER)
        position = {
            "step": self.step,
            "tokens": self.tokens,
            "loss": float(self.loss),
            "logged_at": self.logged_at,
            "grad_norm": self.grad_norm,
        }
        write_json(staged / POSITION, position)
        tokenizer = self.base.tokenizer_files(Path(self.record.setting.run))
        shutil.copytree(tokenizer, staged, copy_function=link, dirs_exist_ok=True)
        return staged

    def _peft_config(self) -> LoraConfig:
        adapter = self.adapter
        return LoraConfig(
            task_type=TASKS[self.experiment.method.head],
            base_model_name_or_path=where(self.experiment.model),
            modules_to_save=[self.base.head.name] if self.base.head else None,
            r=adapter.r,
            lora_alpha=adapter.lora_alpha,
            lora_dropout=adapter.lora_dropout,
            use_rslora=adapter.use_rslora,
            use_dora=adapter.use_dora,
            target_modules=self._target_modules(),
            layers_to_transform=adapter.layers_to_transform,
            rank_pattern=adapter.rank_pattern,
            alpha_pattern=adapter.alpha_pattern,
            fan_in_fan_out=self.base.transposes,
            init_lora_weights=True,
            inference_mode=True,
        )

    def _target_modules(self) -> list[str] | str:
        """The last parts of the layers' names; whole names where others end alike, which have no adapter."""
        asked, names = self.adapter.target_modules, set(self.layers)
        if asked != "all-linear":
            return asked
        ends = {name.rpartition(".")[2] for name in names}
        alike = {name for name, _ in self.base.model.named_modules() if name.rpartition(".")[2] in ends}
        numbered = self.adapter.layers_to_transform is not None
        return sorted(ends if numbered or alike == names else names)

    def _facts(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        trained = self.base.bank.parameters_of(self.slot)
        return {
            "base": self.base.identity,
            "total_parameters": self.base.total_parameters + trained,
            "trainable_parameters": trained,
            "packed": True,
            **self.objective.facts(evaluation),
        }

    def _restore(self, checkpoint: Path) -> None:
        bank, position = self.base.bank, read_json(checkpoint / POSITION)
        if position is None:
            raise TrialError(f"{checkpoint} is no checkpoint of a pack: the method's trainer made it.")
        check_tensors(checkpoint)
        bank.load_peft(self.slot, load_file(checkpoint / PEFT_WEIGHTS))
        moments = load_file(checkpoint / OPTIMIZER)
        found: dict[str, Tensor] = {}
        for kind in MOMENTS:
            flat = torch.zeros(bank.slots, bank.size, device=self.base.device)
            named = {name: tensor for key, tensor in moments.items() for of, name in [key.split("|", 1)] if of == kind}
            bank.load(self.slot, named, into=flat)
            found[kind] = flat[self.slot].clone()
        self.tenant.go_on(position["step"], found)
        self.step, self.tokens = position["step"], position["tokens"]
        self.loss += position["loss"]
        self.logged_at, self.grad_norm = position["logged_at"], position["grad_norm"]

    def finish(self) -> None:
        """After the last step: the adapter must have learned something, and whoever listens hears that it is over."""
        self.finished = True
        if not any(tensor.any() for name, tensor in self.base.bank.state(self.slot).items() if ".lora_B." in name):
            raise TrialError(EMPTY.format("every lora_B is zero"))
        shutil.rmtree(self.trial.path / ".staging", ignore_errors=True)
        self.report(self.record.report(finished=True))
