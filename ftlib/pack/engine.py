"""The pack: trials side by side on one frozen base, each batch of theirs in one forward and backward pass.

It needs torch, transformers and peft: a script can train a pack without Ray and without TRL.

    pack = Pack(FrozenBase(experiment, data, slots=8, rank=32), setting)
    pack.join("000", {"adapter.r": 8}, print)
    while pack.members:
        pack.tick()
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftlib.errors import FtlibError, TrialError
from ftlib.files.json_files import append_row
from ftlib.methods.pack_losses import Objective
from ftlib.methods.pack_losses.base import Split
from ftlib.methods.table import Table, in_order, joined, on_cpu
from ftlib.models.bank_routes import Route
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.member import Member
from ftlib.pack.pace import Pace
from ftlib.pack.row_passes import PLACES, side_by_side
from ftlib.pack.row_shares import RowShares
from ftlib.pack.task_answers import TaskAnswers
from ftlib.pack.token_layout import Block
from ftlib.pack.update import update_of
from ftlib.run.context import EvalPart, Setting
from ftlib.run.directory import ALL_ROWS, ENDED, Run
from ftlib.run.layout import BASE
from ftlib.run.trial_transfer import download
from ftlib.training.recorder import Record, Report, closing_evaluation, copy_checkpoint

Failed = Callable[[str], None]
ALL = EvalPart()
BLOCKS_KEPT = 4096
PADDED = 1.25  # trials are computed together while their places are at most this many times the smallest trial's


class Pack:
    """`width` trials are fused into one pass; more members than that take turns within a tick. It changes no number.
    `threads` share the rows of a trial that is alone."""

    def __init__(
        self, base: FrozenBase, setting: Setting, width: int | None = None, pace: Pace | None = None, threads: int = 1
    ) -> None:
        self.base, self.setting, self.pace = base, setting, pace
        self.shares = RowShares(threads)
        self.width = width or base.bank.slots
        self.members: dict[str, Member] = {}
        self._failed: dict[str, Failed] = {}
        self._blocks: OrderedDict[Any, Block] = OrderedDict()
        self._plans: dict[Any, list[list[int]]] = {}
        self.tasks = TaskAnswers(base, setting)
        self.update = update_of(base.bank)

    @property
    def free(self) -> list[int]:
        """The slots that nobody is in."""
        taken = {member.slot for member in self.members.values()}
        return [slot for slot in range(self.base.bank.slots) if slot not in taken]

    def join(
        self,
        trial_id: str,
        params: Mapping[str, Any],
        report: Report,
        failed: Failed = lambda reason: None,
        donor: str | None = None,
    ) -> None:
        """A trial takes a free slot and goes on from its checkpoint, or from `donor`'s. It trains at the next tick.

        Raises TrialError for a point that cannot be trained, and FtlibError where no slot is free.
        """
        free = self.free
        if not free:
            raise FtlibError(f"all {self.base.bank.slots} slots of this pack are taken")
        download(self.setting, trial_id)
        run = Run(Path(self.setting.run))
        trial = run.trial(trial_id)
        if donor and donor != trial_id:
            download(self.setting, donor)
            copy_checkpoint(run.trial(donor), trial)
        done = None if donor else closing_evaluation(trial, self.setting)
        if done:  # the driver died after the trial's last report and before it noted the end
            report({**done, "finished": True})
            return
        trial.path.mkdir(parents=True, exist_ok=True)
        experiment = self.setting.experiment().at(params)
        record = Record(trial, experiment, self.setting, self.base.data)
        blocks = partial(self._block, "train")
        member = Member(trial, experiment, self.base, free[0], record, report, blocks, self.update)
        self.members[trial_id], self._failed[trial_id] = member, failed
        # A donor at its end left nothing to train, nor did whoever died before its closing evaluation.
        if member.step >= member.order.steps or record.over:
            self._evaluate([member])
            self._leave_if_finished(member)

    def leave(self, trial_id: str) -> None:
        """The trial's slot is free; what it left on disk stays."""
        self.members.pop(trial_id, None)
        self._failed.pop(trial_id, None)

    def depart(self, trial_id: str) -> None:
        """Saves a trial where it stands, between two batches, and frees its slot: it goes on elsewhere from this
        step."""
        member = self.members[trial_id]
        if self._guarded(member, member.keep):
            self.leave(trial_id)

    # --- one batch of every member ----------------------------------------------------------------------------

    def tick(self, waits: Callable[[str], bool] = lambda trial_id: False) -> None:
        """Each member's next batch, forward and backward; then the steps and the evaluations that are due.

        Members that `waits` names are left out: the driver has not heard their last evaluations yet.
        """
        started = time.perf_counter()
        groups = self._fused([member for name, member in self.members.items() if not waits(name)])
        stepped = self._optimized([member for fused in groups for member in self._compute(fused)])
        if self.pace is not None and groups:
            self._note(self.pace, groups, time.perf_counter() - started)
        due = [member for member in stepped if self._guarded(member, member.evaluates)]
        if due:
            self._evaluate(due)
            for member in due:
                self._leave_if_finished(member)

    def _optimized(self, members: list[Member]) -> list[Member]:
        """One update for all whose step is due; returns those that go on."""
        if not members:
            return []
        numbers = self.update.step({member.slot: member.loss for member in members})
        return [member for member in members if self._guarded(member, partial(member.stepped, numbers))]

    def _note(self, pace: Pace, passes: list[list[tuple[Member, Block]]], seconds: float) -> None:
        """The width of the next tick, as the pace of this one tells."""
        fused = [pair for group in passes for pair in group]
        to_go = max(member.order.steps - member.step for member, _ in fused)
        self.width = pace.after(max(map(len, passes)), [len(block.ids) for _, block in fused], seconds, to_go)

    def _fused(self, members: list[Member]) -> list[list[tuple[Member, Block]]]:
        """Members whose batches are computed together: of like size, at most `width` of them."""
        pairs = [(member, member.block()) for member in members]
        pairs.sort(key=lambda pair: len(pair[1].ids))
        fused: list[list[tuple[Member, Block]]] = []
        for member, block in pairs:
            group = fused[-1] if fused else None
            fits = group is not None and len(block.ids) <= PADDED * len(group[0][1].ids)
            if group is not None and fits and len(group) < self.width:
                group.append((member, block))
            else:
                fused.append([(member, block)])
        return [sorted(group, key=lambda pair: pair[0].slot) for group in fused]

    def _compute(self, fused: list[tuple[Member, Block]]) -> list[Member]:
        """Forward and backward of one group; returns those whose step is due. Out of memory halves the width."""
        try:
            return self._forward_backward(fused)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        members = [member for member, _ in fused]
        for member in members:
            member.begin_step_again()
        if len(members) == 1:
            self._fail(members[0], "out of memory with this trial alone: lower train.per_device_train_batch_size.")
            return []
        self.width = half = len(members) // 2
        self.pace = None  # wider was tried
        Run(Path(self.setting.run)).log_event("pack_narrowed", width=half, why="out of memory")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        again = [(member, member.block()) for member in members]
        return [due for part in (again[:half], again[half:]) for due in self._compute(part)]

    def _forward_backward(self, fused: list[tuple[Member, Block]]) -> list[Member]:
        if len(fused) == 1 and self.shares.threads > 1 and fused[0][0].shares_rows:
            return [member for member, _ in fused if self._in_shares(member)]
        members, blocks = [member for member, _ in fused], [block for _, block in fused]
        dropouts = [member.dropout(len(block.ids)) for member, block in fused]
        route = Route([member.slot for member in members], dropouts)
        with self.base.computing(blocks, route) as outputs:
            parts = [member.part(scored) for member, scored in zip(members, outputs, strict=True)]
            torch.autograd.backward(parts)
        done = zip(members, parts, blocks, strict=True)
        return [member for member, part, block in done if member.went_backward(part, block.tokens)]

    def _in_shares(self, member: Member) -> bool:
        """One batch of a trial, its rows among threads; whether its step is due."""
        grads = self.base.bank.grads
        shares = self.shares.of(member.rows, [member.length(row) for row in member.rows])
        others = self.shares.tables(grads, len(shares) - 1)
        blocks = [member.block_of(rows) for rows in shares]
        given = zip(shares, blocks, [grads, *others], strict=True)
        try:
            parts = self.shares.together([partial(self._share, member, *some) for some in given])
            for table in others:
                grads.add_(table)
        finally:
            for table in others:
                table.zero_()
        return member.went_backward(torch.stack(parts).sum(), sum(block.tokens for block in blocks))

    def _share(self, member: Member, rows: list[int], block: Block, grads: Tensor) -> Tensor:
        """Forward and backward of some rows of a batch; their part of the loss."""
        with self.base.bank.adding_to(grads), self.base.computing([block], Route([member.slot])) as (scored,):
            part = member.part(scored, rows)
            torch.autograd.backward(part)
        return part.detach()

    def _block(self, split: Split, objective: Objective, rows: list[int], share: bool = True) -> Block:
        """The places of some rows, made once for all trials that see them. An encoder's tokens see what comes after
        them: they share nothing."""
        share = share and not self.base.is_encoder
        key = (split, objective.variant, tuple(rows), share)
        if key not in self._blocks:
            self._blocks[key] = Block.of(objective.tokens(split, rows), share)
            while len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]

    # --- evaluation -------------------------------------------------------------------------------------------

    def _evaluate(self, members: list[Member]) -> None:
        """On the rows that trials are compared on; then, of those at their end, the weights that they keep on all."""
        if self.base.data.held_out is None:  # one trial, at its end: trials of a sweep are compared
            for member in members:
                self._guarded(member, member.unmeasured)
            return
        self._in_turn(members, self.setting.part)
        ended = [member for member in members if member.ended and not member.finished]
        self._in_turn([member for member in ended if self._guarded(member, member.recall)], ALL)

    def _in_turn(self, members: list[Member], part: EvalPart) -> None:
        for start in range(0, len(members), self.width):
            self._evaluate_at_once(members[start : start + self.width], part)

    def _evaluate_at_once(self, members: list[Member], part: EvalPart, roomy: bool = True) -> None:
        """Out of memory makes two halves of them; of one, passes of `per_device_eval_batch_size` rows."""
        started = time.perf_counter()
        try:
            slots = [member.slot for member in members]
            found = self.evaluations(slots, [member.objective for member in members], part.rows, roomy)
            tasks = self.tasks.numbers(slots, part.questions, roomy)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            self._evaluate_in_parts(members, part, roomy)
            return
        seconds = time.perf_counter() - started
        for member, evaluation, task in zip(members, found, tasks, strict=True):
            heard = member.closed if member.ended else member.evaluated
            self._guarded(member, partial(heard, evaluation | task, seconds))

    def _evaluate_in_parts(self, members: list[Member], part: EvalPart, roomy: bool) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(members) // 2
        if half:
            self._evaluate_at_once(members[:half], part)
            self._evaluate_at_once(members[half:], part)
        elif roomy:
            self._evaluate_at_once(members, part, roomy=False)
        else:
            self._fail(members[0], "out of memory evaluating this trial: lower train.per_device_eval_batch_size.")

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def evaluations(
        self,
        slots: Sequence[int] | None,
        objectives: Sequence[Objective],
        rows: Sequence[int] | None = None,
        roomy: bool = True,
    ) -> list[dict[str, float]]:
        """Each objective over the evaluation rows of these numbers, with the adapters in `slots`; None is all rows, and
        the base as it is."""
        plans = [self._passes(objective, rows, roomy) for objective in objectives]
        tasks = []
        for number in range(max(map(len, plans))):
            read = {trial: plan[number] for trial, plan in enumerate(plans) if number < len(plan)}
            blocks = [self._block("eval", objectives[trial], some) for trial, some in read.items()]
            route = None if slots is None else Route([slots[trial] for trial in read])
            tasks.append(partial(self._read, objectives, read, blocks, route))
        found: list[list[Table]] = [[] for _ in objectives]
        for tables in self.shares.together(tasks):
            for trial, table in tables.items():
                found[trial].append(table)
        done = zip(objectives, found, plans, strict=True)
        return [
            objective.finish([in_order(joined(batches), chain.from_iterable(plan))], self.setting.metric)
            for objective, batches, plan in done
        ]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _read(
        self, objectives: Sequence[Objective], read: dict[int, list[int]], blocks: list[Block], route: Route | None
    ) -> dict[int, Table]:
        """One pass: of each trial, what some evaluation rows say."""
        with self.base.computing(blocks, route) as outputs:
            return {
                trial: on_cpu(objectives[trial].evaluate(scored, "eval", rows))
                for (trial, rows), scored in zip(read.items(), outputs, strict=True)
            }

    def _passes(self, objective: Objective, rows: Sequence[int] | None, roomy: bool) -> list[list[int]]:
        """The evaluation rows of each pass, planned once for all trials that read the same tokens."""
        key = (objective.variant, None if rows is None else tuple(rows), roomy)
        if key not in self._plans:
            numbers = range(len(self.base.data.eval)) if rows is None else rows
            tokens = [objective.tokens("eval", [number]) for number in numbers]
            least = self.setting.experiment().train.per_device_eval_batch_size
            plan = side_by_side(tokens, least, self.base.classes, self.shares.threads, PLACES if roomy else 0)
            self._plans[key] = [[numbers[place] for place in some] for some in plan]
        return self._plans[key]

    def evaluate_base(self, make: Callable[[], Objective]) -> None:
        """Evaluates the untuned base as the trial `base`, once. That it cannot be evaluated is noted, not raised."""
        trial = Run(Path(self.setting.run)).trial(BASE)
        if trial.state in ENDED:
            return
        trial.path.mkdir(exist_ok=True)
        try:
            started, part = time.perf_counter(), self.setting.part
            found = self._of_base(make(), part)
            if not part.whole:
                found[ALL_ROWS] = self._of_base(make(), ALL)
            seconds = round(time.perf_counter() - started, 3)
            row = {"step": 0, "epoch": 0.0, "tokens": 0, "seconds": seconds, "progress": 1.0, **found}
            append_row(trial.metrics_path, {**row, "time": time.time()})
            trial.set_state("finished")
        except Exception as error:
            trial.set_state("failed", f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")

    def _of_base(self, objective: Objective, part: EvalPart) -> dict[str, Any]:
        (evaluation,) = self.evaluations(None, [objective], part.rows)
        (task,) = self.tasks.numbers(None, part.questions)
        return {**evaluation, **task}

    # --- a trial's misfortune is its own ----------------------------------------------------------------------

    def _guarded(self, member: Member, action: Callable[[], Any]) -> bool:
        """What `action` says; false, and the member out of the pack, where it cannot go on."""
        try:
            answer = action()
        except TrialError as error:
            self._fail(member, str(error))
            return False
        return answer is None or bool(answer)

    def _fail(self, member: Member, reason: str) -> None:
        failed = self._failed.get(member.trial.id)
        self.leave(member.trial.id)
        if failed is not None:
            failed(reason)

    def _leave_if_finished(self, member: Member) -> None:
        if member.finished:
            self.leave(member.trial.id)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the machine, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
