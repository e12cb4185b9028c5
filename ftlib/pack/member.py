"""One trial in a pack: its place in the data, its optimizer over its own slot, its files."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
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
from ftlib.pack.token_layout import Block
from ftlib.run.directory import Trial
from ftlib.training.recorder import EMPTY, POSITION, Record, Report, not_finite

OPTIMIZER = "optimizer.safetensors"
STATE_FILES = (OPTIMIZER, POSITION)  # what a checkpoint holds beyond the weights
MOMENTS = ("exp_avg", "exp_avg_sq")


class Member:
    """A trial and its slot. The pack computes its batches together with others'; all else is done here, alone."""

    def __init__(
        self,
        trial: Trial,
        experiment: Experiment,
        base: FrozenBase,
        slot: int,
        record: Record,
        report: Report,
        blocks: Callable[[Objective, list[int], bool], Block],
    ) -> None:
        self.trial, self.experiment, self.base, self.slot = trial, experiment, base, slot
        self.record, self.report, self.blocks = record, report, blocks
        adapter = experiment.adapter
        assert isinstance(adapter, Lora)
        self.adapter, self.train = adapter, experiment.train
        self.objective = objective(experiment, base.data, base)
        self.order = Order(len(base.data.train), experiment.train, self.objective.shuffles)
        base.bank.configure(slot, adapter.r, base.scale(adapter))
        self.weights = torch.nn.Parameter(base.bank.weights[slot])
        self.weights.grad = base.bank.grads[slot]
        self.optimizer = torch.optim.AdamW(
            [self.weights],
            lr=self.train.learning_rate,
            betas=(self.train.adam_beta1, self.train.adam_beta2),
            eps=self.train.adam_epsilon,
            weight_decay=self.train.weight_decay,
            fused=True,
        )
        self.step, self.tokens, self.batch = 0, 0, 0  # optimizer steps, tokens seen, batches of this step so far
        self.loss = torch.zeros((), device=base.device)  # since the last log, a sum over steps
        self.logged_at = 0
        self.grad_norm = 0.0
        self.finished = False
        self._begin()
        warmup = self.train.warmup_steps
        steps = self.order.steps
        self.schedule = get_scheduler(
            self.train.lr_scheduler_type,
            self.optimizer,
            num_warmup_steps=math.ceil(steps * warmup) if warmup < 1 else int(warmup),
            num_training_steps=steps,
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
        head = {}
        if self.base.head:
            layer = self.base.model.get_submodule(self.base.head)
            kept = layer.weight.data.clone()
            deviation = getattr(self.base.model.config.get_text_config(), "initializer_range", 0.02)
            head = {f"{self.base.head}.weight": kept.normal_(0.0, deviation)}
        self.base.bank.draw(self.slot, gaussian=self.adapter.init_lora_weights == "gaussian")
        if head:
            self.base.bank.load(self.slot, self.base.bank.state(self.slot) | head)

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
        return self.adapter.lora_dropout > 0 and self.objective.adapter_dropout

    def dropout(self, tokens: int) -> Dropout | None:
        """The dropout of the next batch, of `tokens` places."""
        if not self.drops:
            return None
        return Dropout(self.adapter.lora_dropout, (self.train.seed, self.step, self.batch), tokens)

    def part(self, scored: Any) -> Tensor:
        """This batch's part of the step's loss."""
        loss = self.objective.loss(scored, "train", self.rows, self.items)
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

    def optimize(self) -> None:
        """The step over the slot's own weights. Raises TrialError for a loss or a gradient that is no number."""
        assert self.weights.grad is not None
        limit = self.train.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_([self.weights], limit if limit else math.inf, foreach=False)
        loss, self.grad_norm = float(self.loss), float(norm)
        for name, value in (("loss", loss), ("grad_norm", self.grad_norm)):
            if not math.isfinite(value):
                raise TrialError(not_finite(name, value, self.step + 1, self.experiment))
        self.optimizer.step()
        self.weights.grad.zero_()
        self.step, self.batch, self.rows_of_step = self.step + 1, 0, []
        self.rate = self.schedule.get_last_lr()[0]
        self.schedule.step()

    def evaluates(self) -> bool:
        """Whether an evaluation is due after this step; logs the loss where that is due."""
        order = self.order
        due = self.record.due(self.step, order.epoch(self.step), self.tokens, order.steps, order.ends_epoch(self.step))
        if due or self.step % self.train.logging_steps == 0:
            values = {
                "loss": float(self.loss) / max(self.step - self.logged_at, 1),
                "grad_norm": self.grad_norm,
                "learning_rate": self.rate,
            }
            self._add(values)
            self.loss.zero_()
            self.logged_at = self.step
        if not due and self.record.saves(self.step):
            self.record.keep(self._stage())
        return due

    def _add(self, values: dict[str, float]) -> bool:
        return self.record.add(self.step, self.order.epoch(self.step), self.tokens, self.order.steps, values)

    # --- what it leaves ---------------------------------------------------------------------------------------

    def evaluated(self, evaluation: dict[str, float], seconds: float) -> None:
        """Writes the evaluation, the weights and the checkpoint, then reports."""
        in_vain = self._add({**evaluation, "eval_runtime": round(seconds, 4)})
        self.record.publish(self._stage(), "adapter", self._facts, STATE_FILES)
        self.report({**self.record.evaluation, "finished": False})
        if in_vain or self.step >= self.order.steps:
            self.finish()

    def keep(self) -> None:
        """Saves where it stands, without an evaluation; a step that is half done is done again by whoever goes on."""
        if self.batch:
            self.begin_step_again()
        if self.step:
            self.record.keep(self._stage())

    def _stage(self) -> Path:
        return patiently(self._write, self.trial.path)

    def _write(self) -> Path:
        staged = self.trial.path / ".staging" / f"checkpoint-{self.step}"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        bank, state = self.base.bank, self.optimizer.state[self.weights]
        save_file(bank.peft_state(self.slot), staged / PEFT_WEIGHTS, metadata={"format": "pt"})
        self._peft_config().save_pretrained(str(staged))
        moments = {
            f"{kind}|{name}": tensor
            for kind in MOMENTS
            for name, tensor in bank.state(self.slot, state[kind].unsqueeze(0).expand(bank.slots, -1)).items()
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
            modules_to_save=[self.base.head] if self.base.head else None,
            r=adapter.r,
            lora_alpha=adapter.lora_alpha,
            lora_dropout=adapter.lora_dropout,
            use_rslora=adapter.use_rslora,
            target_modules=sorted({name.rpartition(".")[2] for name in self.base.bank.targets})
            if adapter.target_modules == "all-linear"
            else adapter.target_modules,
            init_lora_weights=True,
            inference_mode=True,
        )

    def _facts(self) -> dict[str, Any]:
        trained = self.base.bank.parameters_of(self.slot)
        return {
            "base": self.base.identity,
            "total_parameters": self.base.total_parameters + trained,
            "trainable_parameters": trained,
            "packed": True,
            **self.objective.facts(self.record.evaluation),
        }

    def _restore(self, checkpoint: Path) -> None:
        bank, position = self.base.bank, read_json(checkpoint / POSITION)
        if position is None:
            raise TrialError(f"{checkpoint} is no checkpoint of a pack: resume with sweep.pack: off.")
        check_tensors(checkpoint)
        bank.load_peft(self.slot, load_file(checkpoint / PEFT_WEIGHTS))
        moments = load_file(checkpoint / OPTIMIZER)
        state: dict[str, Any] = {"step": torch.tensor(float(position["step"]), device=self.base.device)}
        for kind in MOMENTS:
            flat = torch.zeros(bank.slots, bank.size, device=self.base.device)
            named = {name: tensor for key, tensor in moments.items() for of, name in [key.split("|", 1)] if of == kind}
            bank.load(self.slot, named, into=flat)
            state[kind] = flat[self.slot].clone()
        self.optimizer.state[self.weights] = state
        self.step, self.tokens = position["step"], position["tokens"]
        self.loss += position["loss"]
        self.logged_at, self.grad_norm = position["logged_at"], position["grad_norm"]

    def finish(self) -> None:
        """After the last step: the adapter must have learned something, and whoever listens hears that it is over."""
        self.finished = True
        if not any(tensor.any() for name, tensor in self.base.bank.state(self.slot).items() if ".lora_B." in name):
            raise TrialError(EMPTY.format("every lora_B is zero"))
        shutil.rmtree(self.trial.path / ".staging", ignore_errors=True)
        self.report({**self.record.evaluation, "finished": True})
