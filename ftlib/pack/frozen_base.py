"""The frozen base of a pack, its bank of adapters, and what is computed of the base once for all trials."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import set_seed

from ftlib.config import Experiment, Lora, MethodSection
from ftlib.config.packs import may_be_dora, shapes
from ftlib.data import Prepared
from ftlib.errors import FtlibError
from ftlib.methods.distillation.quality import key, read_quality, retained, write_quality
from ftlib.methods.distillation.targets import Reader, Targets, Task, targets_key, write_targets
from ftlib.methods.pack_losses import Scored, Tokens
from ftlib.methods.reference import reference_of
from ftlib.methods.teacher import cached, check_tokenizers, teacher_of
from ftlib.models.adapters.lora_layers import LoraLayers
from ftlib.models.adapters.start import read_start
from ftlib.models.bank_routes import Route
from ftlib.models.base import count_parameters, identity, load_model, load_tokenizer
from ftlib.models.lora_bank import LoraBank
from ftlib.models.onednn import FrozenLinear, as_linears, freeze_linears
from ftlib.models.strategies import use_tf32
from ftlib.pack.base_dropout import attention_dropout, draw_for_each
from ftlib.pack.encoder_attention import BOTH_WAYS, attending
from ftlib.pack.heads import ClassifierHead, Drawn, first_position, names_of, show_first_places
from ftlib.pack.last_places import look_where_picked
from ftlib.pack.references import References
from ftlib.pack.span_attention import ATTENTION, Kept, laid_out
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
        self.transposes = as_linears(self.model) > 0
        self.layers = LoraLayers(experiment.model, head)
        targets = self._targets(shapes(experiment))
        self.head = None if head == "causal_lm" else ClassifierHead.of(self.model)
        self.drawn = Drawn(self.model, self.head)
        self._refuse_what_no_pack_computes()
        freeze_linears(self.model, gradients=True, keep=names_of(self.head))
        self.bank = LoraBank(self.model, targets, slots, rank, names_of(self.head), dora=may_be_dora(experiment))
        self.body = self.model.base_model
        self.attention = BOTH_WAYS if self.is_encoder else ATTENTION
        self.first_position = 0
        if self.is_encoder:
            self.model.set_attn_implementation(BOTH_WAYS)
            show_first_places(self.model)
            self.first_position = first_position(self.model)
        if experiment.train.activation_checkpointing:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
            self.model.train()  # transformers checkpoints in training only; dropout is the bank's, never the base's
        self.drops = draw_for_each(self.model, self.bank)
        self._expand_at_first_adapted()
        if not self.is_encoder:
            look_where_picked(self.body)
        self.start = read_start(Path(adapter.start)) if adapter.start else None
        depends = {"reference": reference_of(experiment, self.model), "data": data.hash}
        self.references = References(depends, self._sums, experiment.train.per_device_eval_batch_size)
        self._check()

    def _targets(self, adapters: Sequence[Lora]) -> list[str]:
        """The layers that one of the adapters has."""
        modules = dict(self.model.named_modules())
        found = self.layers.union(adapters, list(modules))
        all_names = [name for adapter in adapters for name in self.layers.names(adapter)]
        odd = [name for name in all_names if not hasattr(modules.get(name), "in_features")]
        if odd or not found:
            raise CannotPack(f"{type(self.model).__name__} has adapters on layers that are not linear ({odd[:1]})")
        return found

    def _refuse_what_no_pack_computes(self) -> None:
        kind, sweep = type(self.model).__name__, self.experiment.sweep
        reseeded = (sweep and "train.seed" in sweep.space) or self.experiment.evaluation.seeds > 1
        if self.experiment.method.head != "causal_lm" and self.head is None:
            raise CannotPack(f"{kind} has no head of linear layers named 'score' or 'classifier'")
        if not self.is_encoder and (key := attention_dropout(self.model)):
            raise CannotPack(f"{kind} drops weights of its attention: set model.config.{key}: 0.0")
        if _router_loss(self.experiment.method, self.model):
            raise CannotPack(
                f"the router of {kind} has a loss of its own (method.router_aux_loss_coef: 0 leaves it out)"
            )
        if self.drawn.beside_heads and reseeded:
            beside = self.drawn.beside_heads[0]
            raise CannotPack(f"its files lack {beside}, which each train.seed would draw anew")

    # --- forward ----------------------------------------------------------------------------------------------

    @contextmanager
    def computing(
        self, blocks: Sequence[Block], route: Route | None, kept: Kept | None = None
    ) -> Iterator[list[Scored]]:
        """The outputs of each trial at its picked places. What is done with them inside can go backward too.

        `kept` gets the keys and values of each layer.
        """
        layout = Layout.of(blocks, self.device)
        with laid_out(layout, kept), self._attending(blocks, layout), self.bank.routed(route):
            outputs = self._outputs(layout, len(blocks))
            counted = zip(blocks, layout.counts, strict=True)
            yield [outputs.scored(n, count, layout, len(block.places)) for n, (block, count) in enumerate(counted)]

    @property
    def is_encoder(self) -> bool:
        """Whether a text is read at its first token, which has seen all others."""
        return self.head is not None and self.head.reads_first

    def _attending(self, blocks: Sequence[Block], layout: Layout) -> AbstractContextManager[None]:
        return attending(blocks, layout) if self.is_encoder else nullcontext()

    def _outputs(self, layout: Layout, trials: int) -> _Outputs:
        first = self.first_position
        inputs = {"input_ids": layout.ids, "position_ids": layout.positions + first if first else layout.positions}
        if self.is_encoder:
            return _Outputs(lambda logits: logits, self.model(**inputs).logits, layout.targets, together=True)
        hidden = self.body(**inputs, use_cache=False).last_hidden_state
        picked = layout.pick(hidden.expand(trials, -1, -1))
        if self.head:
            return _Outputs(self.model.get_submodule(self.head.name), picked, layout.targets, together=True)
        head = self.model.get_output_embeddings()
        together = layout.targets.numel() * self.classes <= LOGITS_AT_ONCE
        dtype = head.dtype if isinstance(head, FrozenLinear) else head.weight.dtype
        return _Outputs(lambda hidden: head(hidden.to(dtype)), picked, layout.targets, together)

    @property
    def classes(self) -> int:
        """How many logits a picked place has: the vocabulary's, or a classifier's."""
        return int(self.model.config.num_labels if self.head else self.model.get_output_embeddings().out_features)

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
        adapter = self.experiment.adapter
        assert isinstance(adapter, Lora)
        bank, kept = self.bank, (self.bank.weights[0].clone(), self.bank.grads[0].clone())
        shape, dora = bank.shape(0), bank.doras[0]
        bank.configure_layers(0, self.layers.of(adapter), adapter.use_dora)
        bank.load_peft(0, self.start)
        try:
            yield Route([0])
        finally:
            bank.configure_layers(0, shape, dora)
            bank.weights[0], bank.grads[0] = kept

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

        def batches(rows: Any, order: Sequence[int] | None = None) -> Iterator[Any]:
            order = range(len(rows)) if order is None else order
            for start in range(0, len(rows), size):
                examples = rows.select(order[start : start + size]).to_list()
                batch = {name: part.to(self.device) for name, part in _padded(examples, self.pad_token_id).items()}
                yield reader(batch), batch

        def targets(folder: Path) -> None:
            rows = self.data.train
            order = np.argsort([len(ids) for ids in rows["input_ids"]], kind="stable").tolist()
            freeze_linears(model(), gradients=False)  # its quality is known: its parameters are counted
            write_targets(folder, model(), task, batches(rows, order), method.top_k, task.positions(rows), order)

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
        vocabulary = self.model.config.get_text_config().vocab_size
        words = [n for n in range(2 * length) if n != self.pad_token_id and n < vocabulary][:length]
        ids = np.resize(np.array(words, dtype=np.int64), length)
        places = np.arange(0, 1 if self.is_encoder else length, 2)  # few: what is computed at them alone, is
        tokens = Tokens(ids, places, np.zeros(len(places), dtype=np.int64))
        try:
            with self.computing([Block.of([tokens])], None) as (scored,):
                ours = scored.logits
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CannotPack(
                f"{type(self.model).__name__} does not take sequences of several trials: {reason}"
            ) from error
        if self.head and not self.head.reads_first:
            return
        self.model.set_attn_implementation("sdpa")
        try:
            theirs = self.model(input_ids=torch.from_numpy(ids)[None].to(self.device)).logits[0]
        finally:
            self.model.set_attn_implementation(self.attention)
        theirs = theirs if self.is_encoder else theirs[places]
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


def _router_loss(method: MethodSection, model: Any) -> bool:
    """Whether TRL adds the loss of a router of experts to this method's."""
    config = model.config.get_text_config()
    own = getattr(config, "router_aux_loss_coef", 0.0) if hasattr(config, "output_router_logits") else 0.0
    told = getattr(method, "router_aux_loss_coef", 0.0)  # the other methods have none
    return bool(own if told is None else told)
