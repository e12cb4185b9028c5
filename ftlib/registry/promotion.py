"""From a trial to a version: the copy is merged where asked, passes the gate, and gets the profile of its data."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ftlib.data import Prepared
from ftlib.errors import DataError, InputError
from ftlib.models import adapter_files
from ftlib.models.adapter_files import Engine
from ftlib.registry import registry
from ftlib.registry.profile import prepared_of, write_profile
from ftlib.registry.version import Version
from ftlib.run import signature
from ftlib.run.directory import Run, Trial

if TYPE_CHECKING:
    from ftlib.registry.gate import Passed

Say = Callable[[str], None]


class Decision(NamedTuple):
    """What tasks have said for a promotion: their numbers, and what was asked of them."""

    evaluation: dict[str, Any]
    found: dict[str, Any]


Decide = Callable[[Version], Decision]  # of a staged copy


@dataclass(frozen=True)
class Conditions:
    """What a promotion asks for. `gate`: whether its checks are made. `slack` belongs to `unless_worse_than`."""

    canary: float | None = None
    engine: Engine = "bank"
    max_rank: int | None = None
    merged: bool = False
    gate: bool = True
    unless_worse_than: Path | None = None
    slack: float = 0.0
    trust: bool = False  # code that comes with a run of somebody else's

    def __post_init__(self) -> None:
        """Raises InputError for conditions that contradict one another."""
        if self.unless_worse_than is not None and not self.gate:
            raise InputError(
                "--unless-worse-than is a check of the gate, which --no-gate skips: leave one of them out."
            )
        if self.unless_worse_than is not None and not self.unless_worse_than.exists():
            raise InputError(f"--unless-worse-than: there is no file {self.unless_worse_than}.")
        if not 0 <= self.slack < float("inf"):
            raise InputError(f"--slack {self.slack:g} is none: give 0 or more, 0.01 for one per cent.")
        if self.slack and self.unless_worse_than is None:
            raise InputError("--slack says how much worse on a file is allowed: name it with --unless-worse-than FILE.")


def promote(
    run: Run,
    trial: Trial,
    name: str,
    conditions: Conditions,
    say: Say,
    evaluation: Mapping[str, Any] | None = None,
    decide: Decide | None = None,
) -> Version:
    """The trial as the next version of `name`, or its canary. `say` hears what was found, a sentence at a time.

    `evaluation` is what is known of the trial on tasks, for the version's manifest. `decide` is asked once the trial
    has passed the other checks, and again when `name` means another version by the time that the alias is moved; it
    raises FtlibError for a trial that is not to be promoted.

    Raises InputError for what cannot be promoted, merged, or served by the engine, and FtlibError for what the gate
    holds back. The registry is then as it was.
    """

    making = _Promotion(f"trial {trial.id} of {run.name}", conditions, say, evaluation, decide)
    compare = making.compare if conditions.unless_worse_than is not None or decide is not None else None
    why = signature.why_foreign(run)
    if why is not None and not conditions.trust:
        say(f"warning: {why}: nothing that it brings runs as code (--trust lets it)")
    with registry.trusting(conditions.trust):
        return registry.register(run, trial, name, conditions.canary, making.examine, compare, trust=conditions.trust)


class _Promotion:
    """One promotion, from the staged copy on."""

    def __init__(
        self,
        owner: str,
        conditions: Conditions,
        say: Say,
        evaluation: Mapping[str, Any] | None,
        decide: Decide | None,
    ) -> None:
        self.owner, self.conditions, self.say = owner, conditions, say
        self.evaluation, self.decide = evaluation, decide
        self.passed: Passed | None = None
        self.staged: Version | None = None

    def examine(self, staged: Version) -> dict[str, Any]:
        """What goes into the version's manifest. Changes the staged folder."""
        self.staged, merging = staged, self.conditions.merged
        if merging and staged.kind == "model":
            raise InputError(f"{self.owner} is a whole model already: leave out --merged.")
        if not merging:
            self._check_engine(staged)
        facts: dict[str, Any] = {"merged": True, "kind": "model"} if merging else {}
        if self.evaluation is not None:
            facts["evaluation"] = dict(self.evaluation)
        if merging:
            self._merge(staged)
        qat = (staged.manifest["experiment"].get("train") or {}).get("qat")
        if qat is not None:
            self.say(
                f"warning: it was trained and measured with weights rounded to {qat} (train.qat), and 'ftlib serve' "
                f"rounds none: 'ftlib export ... --to {qat}' makes what was measured"
            )
        facts["gate"] = self._gate(staged)
        if merging:
            shutil.rmtree(staged.path / "adapter")
            self._check_engine(staged)
        self._profile(staged)
        return facts

    def compare(self, reference: Version | None) -> dict[str, Any]:
        """What goes into the manifest of the comparison with the version that the name means."""
        assert self.passed is not None
        assert self.staged is not None
        found = self.passed.beside(reference)
        if "loss" in found:
            self.say(_of_losses(found["loss"]))
        if self.decide is None:
            return {"gate": found}
        decided = self.decide(self.staged)
        return {"gate": {**found, "tasks": decided.found}, "evaluation": decided.evaluation}

    def _check_engine(self, staged: Version) -> None:
        adapter_files.check(self.owner, staged.path, self.conditions.engine, self.conditions.max_rank)

    def _merge(self, staged: Version) -> None:
        from ftlib.models.adapters.merge import merge
        from ftlib.registry.bases import base_of

        merge(staged.weights, base_of(staged.manifest, self.owner), staged.path / "model")
        self.say("merged into its base")

    def _gate(self, staged: Version) -> dict[str, Any]:
        if not self.conditions.gate:
            self.say("warning: the gate was skipped (--no-gate), which the version's manifest says")
            return {"passed": None, "skipped": "--no-gate"}
        from ftlib.registry.gate import Comparison, pass_gate

        file = self.conditions.unless_worse_than
        comparison = Comparison(file, self.conditions.slack) if file is not None else None
        self.passed = pass_gate(staged, self.owner, comparison)
        for sentence in _sentences(self.passed.found):
            self.say(sentence)
        return self.passed.found

    def _profile(self, staged: Version) -> None:
        """Writes the profile with which `ftlib monitor` compares traffic. A version without a profile can be served
        too."""
        try:
            data = prepared_of(staged.manifest)
            write_profile(staged.path, data, _tokenizer(staged, data))
        except DataError as error:
            self.say(f"warning: no profile of its data, so 'ftlib monitor' can compare nothing with it ({error})")


def _tokenizer(staged: Version, data: Prepared) -> Any:
    from ftlib.config import ModelSection
    from ftlib.models.base import load_tokenizer

    section = ModelSection(
        name_or_path=str(staged.weights),
        trust_remote_code=staged.manifest["experiment"]["model"].get("trust_remote_code", False),
    )
    return load_tokenizer(section, "sequence_classification" if data.report.rows == "labelled" else "causal_lm")


def _sentences(found: dict[str, Any]) -> list[str]:
    """What the gate found, as sentences for a person."""
    lines = [f"gate: chat template {found['chat_template']}; {found['probes']} in {found['dtype']}, {_logits(found)}"]
    if found.get("effect") is not None and found["effect"] < found["tolerance"]:
        lines.append(
            f"warning: the adapter moves the logits by {found['effect']:.2g} of their size, less than what rounding "
            "does in "
            f"{found['dtype']} ({found['tolerance']:g}): that they agree says little"
        )
    return lines


def _of_losses(loss: dict[str, Any]) -> str:
    """How the loss compares with that of the version that the name means, as a sentence."""
    against = (
        f"{loss['reference']} has {loss['old']:.4f}" if loss["reference"] else "there is no version to compare with"
    )
    return f"gate: loss {loss['new']:.4f} on {loss['file']}, {against}"


def _logits(found: dict[str, Any]) -> str:
    if "reloaded" in found:
        return f"{found['reloaded']} after reading it back"
    ways = {"merged": found["merged"], "in the bank": found["bank"]}
    went = ", ".join(f"{how} {value:.1g} apart" for how, value in ways.items() if value is not None)
    return (
        f"logits {went} (at most {found['tolerance']:g})"
        if went
        else "finite logits (it can be neither merged nor banked)"
    )
