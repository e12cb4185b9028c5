"""The frozen base of a pack, its bank of adapters, and what is computed of the base once for all trials."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import set_seed

from ftlib.config import Experiment, Lora
from ftlib.data import Prepared
from ftlib.errors import FtlibError
from ftlib.methods.distillation.quality import key, read_quality, retained, write_quality
from ftlib.methods.distillation.targets import Reader, Targets, Task, targets_key, write_targets
from ftlib.methods.pack_losses import Scored, Tokens
from ftlib.methods.reference import reference_of
from ftlib.methods.teacher import cached, check_tokenizers, teacher_of
from ftlib.models.adapters.build import empty_model
from ftlib.models.adapters.start import read_start
from ftlib.models.bank_routes import Route
from ftlib.models.base import count_parameters, identity, load_model, load_tokenizer
from ftlib.models.lora_bank import LoraBank
from ftlib.models.onednn import FrozenLinear, freeze_linears
from ftlib.models.strategies import use_tf32
from ftlib.pack.span_attention import ATTENTION, laid_out
from ftlib.pack.token_layout import Block, Layout
from ftlib.run.layout import TOKENIZER

LOGITS_AT_ONCE = 2**27  # numbers; beyond, the vocabulary's logits are made a trial at a time, and again backward


class CannotPack(FtlibError):
    """This base cannot hold a pack; the sentence says why. Trials of it are trained one by one."""


class FrozenBase:
    """A base model whose linear layers carry `slots` adapters of rank up to `rank`.

    Raises CannotPack for a model whose attention, or whose logits, a pack cannot compute.
    """

    def __init__(
        self, experiment: Experiment, data: Prepared, slots: int, rank: int, device: str | torch.device = "cpu"
    ) -> None:
        adapter = experiment.adapter
        assert isinstance(adapter, Lora)
        self.experiment, self.data, self.device = experiment, data, torch.device(device)
        use_tf32(experiment.train)
        self.tokenizer = load_tokenizer(experiment.model, experiment.method.head)
        if data.chat_template:
            self.tokenizer.chat_template = data.chat_template  # saved with the weights, so that serving uses the same
        self.pad_token_id = self.tokenizer.pad_token_id
        head = experiment.method.head
        section = experiment.model.model_copy(update={"attn_implementation": ATTENTION})
        set_seed(experiment.train.seed)
        try:
            self.model = load_model(section, head, data.report.labels)
        except ValueError as error:
            raise CannotPack(f"its attention cannot be given sequences of several trials ({error})") from error
        self.model.config.get_text_config().pad_token_id = self.pad_token_id
        self.identity = identity(experiment.model, self.model)
        self.total_parameters = count_parameters(self.model)[0]
        self.model.to(self.device).eval().requires_grad_(False)
        shape = empty_model(experiment.model, adapter, head)
        targets = [_plain(name) for name, module in shape.named_modules() if isinstance(module, LoraLayer)]
        odd = [name for name in targets if not hasattr(self.model.get_submodule(name), "in_features")]
        if odd or not targets:
            raise CannotPack(f"{type(self.model).__name__} has adapters on layers that are not linear ({odd[:1]})")
        self.head = "score" if head == "sequence_classification" else None
        if self.head and not isinstance(getattr(self.model, "score", None), nn.Linear):
            raise CannotPack(f"{type(self.model).__name__} has no linear head named 'score'")
        freeze_linears(self.model, gradients=True, keep=[self.head] if self.head else [])
        self.bank = LoraBank(self.model, targets, slots, rank, heads=[self.head] if self.head else [])
        self.body = self.model.base_model
        if experiment.train.activation_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            self.model.train()  # transformers checkpoints in training only; dropout is the bank's, never the base's
        self._without_dropout()
        self._expand_at_first_adapted()
        self.start = read_start(Path(adapter.start)) if adapter.start else None
        self._references: dict[tuple[str, str], Tensor] = {}
        self._check()

    # --- forward ----------------------------------------------------------------------------------------------

    @contextmanager
    def computing(self, blocks: Sequence[Block], route: Route | None) -> Iterator[list[Scored]]:
        """The outputs of each trial at its picked places. What is done with them inside can go backward too."""
        layout = Layout.of(blocks, self.device)
        with laid_out(layout), self.bank.routed(route):
            hidden = self.body(input_ids=layout.ids, position_ids=layout.positions, use_cache=False).last_hidden_state
            outputs = self._outputs(layout.pick(hidden.expand(len(blocks), -1, -1)), layout.targets)
            counted = zip(blocks, layout.counts, strict=True)
            yield [outputs.scored(n, count, layout, block.sequences) for n, (block, count) in enumerate(counted)]

    def _outputs(self, picked: Tensor, targets: Tensor) -> _Outputs:
        if self.head and self.bank.route is not None:
            name = self.head
            return _Outputs(lambda hidden: self.bank.head(name, hidden.float()), picked, targets, together=True)
        head = self._plain_head
        n, p, _ = picked.shape
        together = n * p * self.classes <= LOGITS_AT_ONCE
        dtype = head.dtype if isinstance(head, FrozenLinear) else head.weight.dtype
        return _Outputs(lambda hidden: head(hidden.to(dtype)), picked, targets, together)

    @property
    def _plain_head(self) -> Any:
        return self.model.get_submodule(self.head) if self.head else self.model.get_output_embeddings()

    @property
    def classes(self) -> int:
        """How many logits a picked place has: the vocabulary's, or a classifier's."""
        return int(self._plain_head.out_features)

    def _without_dropout(self) -> None:
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if getattr(module, "attention_dropout", 0):
                module.attention_dropout = 0.0

    def _expand_at_first_adapted(self) -> None:
        """Where all trials see one batch, the model runs once up to the part of a layer that holds the first adapter.

        There the hidden states are repeated without a copy, and the bank makes the base's products of them once.
        """
        first = self.bank.targets[0]
        parent = self.model.get_submodule(first.rpartition(".")[0])

        def expand(module: nn.Module, args: Any, kwargs: Any) -> Any:
            route = self.bank.route
            count = len(route.slots) if isinstance(route, Route) else 1

            def repeated(hidden: Tensor) -> Tensor:
                return hidden.expand(count, -1, -1) if len(hidden) == 1 and count > 1 else hidden

            if args:
                return (repeated(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": repeated(kwargs["hidden_states"])}

        parent.register_forward_pre_hook(expand, with_kwargs=True)

    def tokenizer_files(self, run: Path) -> Path:
        """The tokenizer as files, written once a host: every checkpoint links to them."""
        folder = run / TOKENIZER / str(os.getpid())
        if not folder.exists():
            self.tokenizer.save_pretrained(folder)
        return folder

    # --- what is computed once --------------------------------------------------------------------------------

    def reference(
        self, split: str, kind: str, tokens_of: Callable[[Sequence[int]], list[Tokens]], rows: range, width: int
    ) -> Tensor:
        """[rows, width]: the base's own log-probability of each of a row's `width` sequences, from the cache.

        `tokens_of` gives some rows' sequences, all first ones before all second ones.
        """
        if (split, kind) not in self._references:
            parts = {
                "reference": reference_of(self.experiment, self.model),
                "data": self.data.hash,
                "split": split,
                "kind": kind,
            }

            def build(folder: Path) -> None:
                size = self.experiment.train.per_device_eval_batch_size
                some = [rows[start : start + size] for start in range(0, len(rows), size)]
                sums = [self._sums(tokens_of(part)).view(width, -1).t() for part in some]
                save_file({"log_probs": torch.cat(sums).contiguous().cpu()}, folder / "reference.safetensors")

            stored = load_file(cached(parts, build) / "reference.safetensors")
            self._references[split, kind] = stored["log_probs"]
        return self._references[split, kind]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _sums(self, tokens: Sequence[Tokens]) -> Tensor:
        with self._as_begun() as route, self.computing([Block.of(tokens)], route) as (scored,):
            return scored.sums()

    @contextmanager
    def _as_begun(self) -> Iterator[Route | None]:
        """What trials begin with: the base alone, or with the adapter of `adapter.from`, which takes the first slot for
        the moment. A backward pass that is under way reads that slot's weights after it has them back."""
        if self.start is None:
            yield None
            return
        bank, kept = self.bank, (self.bank.weights[0].clone(), self.bank.scales[0].clone())
        bank.load_peft(0, self.start)
        bank.scales[0] = self.scale(self.experiment.adapter)
        try:
            yield Route([0])
        finally:
            bank.weights[0], bank.scales[0] = kept

    @staticmethod
    def scale(adapter: Any) -> float:
        """What the product of a slot's A and B is multiplied by."""
        return float(adapter.lora_alpha / (adapter.r**0.5 if adapter.use_rslora else adapter.r))

    def teacher(self, experiment: Experiment) -> tuple[Targets, int, Callable[[dict[str, Any]], dict[str, Any]]]:
        """The teacher's lines of the training rows, how many classes they speak of, and, of an evaluation, what of the
        teacher the student has kept."""
        method: Any = experiment.method
        teacher = teacher_of(experiment)
        check_tokenizers(self.tokenizer, teacher.tokenizer(), method)
        teacher.check(method.head)
        task, reader = Task(classify=False, classes=len(self.tokenizer)), Reader(self.tokenizer)
        size = experiment.train.per_device_eval_batch_size
        loaded: list[Any] = []

        def model() -> Any:
            if not loaded:
                loaded.append(teacher.load(method.head, self.device))
            return loaded[0]

        def batches(rows: Any) -> Iterator[Any]:
            for start in range(0, len(rows), size):
                examples = rows.select(range(start, min(start + size, len(rows)))).to_list()
                batch = {name: part.to(self.device) for name, part in _padded(examples, self.pad_token_id).items()}
                yield reader(batch), batch

        def targets(folder: Path) -> None:
            rows = self.data.train
            write_targets(folder, model(), task, batches(rows), method.top_k, task.positions(rows))

        def quality(folder: Path) -> None:
            write_quality(folder, model(), task, batches(self.data.eval), reads_alike=True)

        parts = targets_key(teacher.key(), self.data.hash, method.top_k, task.classes)
        told = key(teacher.key(), self.data.hash, size, method.rows)
        known = read_quality(cached(told, quality))
        identity = teacher.identity()

        def kept(evaluation: dict[str, Any]) -> dict[str, Any]:
            return {**identity, **retained(known, evaluation, self.model, classify=False, batch=None)}

        return Targets.open(cached(parts, targets)), len(self.tokenizer), kept

    # --- before anything is trained ---------------------------------------------------------------------------

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _check(self) -> None:
        """The pack's forward against the model's own on one short text. Raises CannotPack where they differ."""
        length = 9
        ids = np.arange(length, dtype=np.int64) % max(2, min(self.model.config.get_text_config().vocab_size, 50))
        tokens = Tokens(ids, np.arange(length), np.zeros(length, dtype=np.int64))
        try:
            with self.computing([Block.of([tokens])], None) as (scored,):
                ours = scored.logits
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CannotPack(
                f"{type(self.model).__name__} does not take sequences of several trials: {reason}"
            ) from error
        if self.head:
            return
        self.model.set_attn_implementation("sdpa")
        try:
            theirs = self.model(input_ids=torch.from_numpy(ids)[None].to(self.device), use_cache=False).logits[0]
        finally:
            self.model.set_attn_implementation(ATTENTION)
        off = float((ours.float() - theirs.float()).abs().max())
        if not off <= 0.02 * float(theirs.float().abs().max()) + 1e-3:
            raise CannotPack(
                f"{type(self.model).__name__} makes its logits in a way that a pack does not (off by {off:.2g})"
            )


class _Outputs:
    """Logits and log-probabilities of all trials, made when the first asks: all at once, or, where a vocabulary is too
    large for that, a trial at a time and again backward."""

    def __init__(self, head: Callable[[Tensor], Tensor], picked: Tensor, targets: Tensor, together: bool) -> None:
        self.head, self.picked, self.targets, self.together = head, picked, targets, together

    def scored(self, number: int, count: int, layout: Layout, sequences: int) -> Scored:
        """One trial's, of its own `count` places."""
        return Scored(
            make_logits=lambda: self.logits[number][:count],
            make_log_probs=lambda: self.log_probs[number][:count],
            targets=layout.targets[number, :count],
            owners=layout.owners[number],
            sequences=sequences,
        )

    @cached_property
    def whole(self) -> Tensor:
        return self.head(self.picked)

    @cached_property
    def logits(self) -> Sequence[Tensor]:
        parts: Sequence[Tensor] = (
            self.whole.unbind() if self.together else [self.head(hidden) for hidden in self.picked]
        )
        return parts

    @cached_property
    def log_probs(self) -> Sequence[Tensor]:
        parts: Sequence[Tensor]
        if self.together:
            parts = _log_probs(self.whole, self.targets).unbind()
            return parts
        return [
            checkpoint(lambda h, t: _log_probs(self.head(h), t), hidden, target, use_reentrant=False)
            for hidden, target in zip(self.picked.unbind(), self.targets, strict=True)
        ]


def _log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    return -cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


def _plain(name: str) -> str:
    return name.removeprefix("base_model.model.")


def _padded(examples: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """A batch as transformers' models take it, padded on the right."""
    pad = nn.utils.rnn.pad_sequence
    ids = [torch.tensor(example["input_ids"]) for example in examples]
    labels = [torch.tensor(example["labels"]) for example in examples]
    return {
        "input_ids": pad(ids, batch_first=True, padding_value=pad_token_id),
        "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad(labels, batch_first=True, padding_value=-100),
    }
