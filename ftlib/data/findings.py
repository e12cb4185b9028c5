"""What is odd about a data set, in sentences for `check`: what stands twice, what contradicts itself, what is not used.

Rows are compared without regard to case and space.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftlib.data.fields import BadRow
from ftlib.data.formats import Record, Turn
from ftlib.data.labels import alike
from ftlib.data.script import MARK, apply
from ftlib.data.templates import stop_tokens
from ftlib.data.tokenize import Tally
from ftlib.errors import DataError

LISTED = 6
NOTHING = hash("")
DIFFER = {
    "labelled": "the same text has different labels",
    "judged": "the same answer is judged good and bad",
    "pairs": "the same two answers are preferred both ways",
}


@dataclass(frozen=True, slots=True)
class Gist:
    """What a row asks, what it says in all, and what it says is right, as hashes. Equal texts have equal hashes."""

    asked: int
    said: int
    judged: int  # the same for rows of which at most one can be right ...
    verdict: int  # ... unless this is the same, too
    label: str | None = None  # of a class, or of an answer that is judged
    group: str | None = None  # what rows of one origin share


def gist(record: Record) -> Gist:
    """The gist of a record of any format."""
    return replace(_gist(record), group=record.get("group"))


def _gist(record: Record) -> Gist:
    if "chosen" in record:
        asked, answers = _of(record["prompt"], record), [_of(record[key]) for key in ("chosen", "rejected")]
        return Gist(asked, hash((asked, *answers)), hash((asked, *sorted(answers))), answers[0])
    if "completion" in record:
        asked, label = _of(record["prompt"], record), str(record["label"]).lower()
        said = hash((asked, _of(record["completion"])))
        return Gist(asked, hash((said, label)), said, hash(label), label)
    if "label" in record:
        asked, label = hash(normal(record["text"])), str(record["label"])
        return Gist(asked, hash((asked, label)), asked, hash(label), label)
    if "text" in record:
        asked = hash(normal(record["text"]))
        return Gist(asked, asked, asked, 0)
    if "prompt" in record:
        asked, answer = _of(record["prompt"], record), hash(normal(record["answer"]))
        return Gist(asked, hash((asked, answer)), asked, answer)
    turns, last = record["messages"], record["trained_from"]
    last = last or max(index for index, turn in enumerate(turns) if turn["role"] == "assistant")
    asked, answer = _of(turns[:last], record), _of(turns[last:])
    return Gist(asked, hash((asked, answer)), asked, answer)


def label_counts(train: Sequence[Gist], held_out: Sequence[Gist]) -> dict[str, tuple[int, int]]:
    """How many rows each label has for training and for evaluation."""
    sides = [Counter(row.label for row in part if row.label is not None) for part in (train, held_out)]
    return {label: (sides[0][label], sides[1][label]) for label in sorted({*sides[0], *sides[1]})}


def normal(text: str) -> str:
    """A text in which case, space, and the way in which accents are written make no difference."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _of(turns: Sequence[Turn], record: Record | None = None) -> int:
    calls = [json.dumps(turn["tool_calls"], sort_keys=True) for turn in turns if "tool_calls" in turn]
    given = json.dumps((record or {}).get("given", {}), sort_keys=True)
    return hash((*((turn["role"], normal(turn["content"])) for turn in turns), *calls, given))


def findings(train: Sequence[Gist], held_out: Sequence[Gist], rows: str) -> list[str]:
    """Sentences on the rows of both parts."""
    both = [*train, *held_out]
    return [
        sentence
        for sentence in (
            _one_verdict(train, rows),
            alike(Counter(row.label for row in both if row.label)) if rows == "labelled" else None,
            _unanswered(train, rows),
            _twice(train),
            _on_both_sides(train, held_out),
            _contradictions(both, rows),
        )
        if sentence
    ]


def same_answers(tally: Tally, rows: str, max_length: int) -> str | None:
    """A sentence on training pairs whose answers are the same as they are trained on. Raises DataError where all
    are."""
    if not tally.same:
        return None
    answers = 2 if rows == "judged" else 1  # of a pair, each in a row of its own
    how = f"as the template writes them and data.max_length: {max_length} cuts them"
    if tally.same * answers == len(tally.lengths):
        raise DataError(
            f"data.train: in every row 'chosen' and 'rejected' are the same, {how}, so nothing can be learned from it."
        )
    where = counted(tally.same, "training row")
    return f"'chosen' and 'rejected' are the same in {where}, {how}: nothing is learned from them"


def _one_verdict(train: Sequence[Gist], rows: str) -> str | None:
    verdicts = Counter(row.label for row in train)
    if rows != "judged" or len(verdicts) > 1 or None in verdicts:
        return None
    verdict = "good" if "true" in verdicts else "bad"
    return (f"all {len(train):,} training answers are judged {verdict}: KTO learns from the difference between good "
            "and bad ones")  # fmt: skip


def _unanswered(train: Sequence[Gist], rows: str) -> str | None:
    without = sum(row.verdict == NOTHING for row in train)
    if rows != "prompts" or not without:
        return None
    prompts = counted(without, "training prompt")
    return f"{prompts} {_come(without)} without an answer: rewards that compare give it nothing"


def _twice(train: Sequence[Gist]) -> str | None:
    again = len(train) - len({row.said for row in train})
    return f"{counted(again, 'training row')} {_repeat(again)} another (but for case and space)" if again else None


def _on_both_sides(train: Sequence[Gist], held_out: Sequence[Gist]) -> str | None:
    trained, asked = {row.said for row in train}, {row.asked for row in train}
    same = sum(row.said in trained for row in held_out)
    alike_rows = sum(row.asked in asked for row in held_out) - same
    said = [f"{same:,} of {len(held_out):,} evaluation rows are trained on too"] * bool(same)
    said += [f"{alike_rows:,} of {len(held_out):,} evaluation rows ask what a training row asks"] * bool(alike_rows)
    return f"{', '.join(said)}: the evaluation looks better than it is" if said else None


def _contradictions(both: Sequence[Gist], rows: str) -> str | None:
    cases = contradicting([row.judged for row in both], [row.verdict for row in both])
    what = DIFFER.get(rows, "the same prompt has different answers")
    concerned = counted(sum(map(len, cases)), "row")
    return f"{what} in {concerned} ({counted(len(cases), 'case')})" if cases else None


def contradicting(asked: Sequence[int], answered: Sequence[int]) -> list[list[int]]:
    """The rows that ask the same and have different answers, by hashes of both: the places of each case's rows."""
    rows: dict[int, list[int]] = defaultdict(list)
    for place, question in enumerate(asked):
        rows[question].append(place)
    return [case for case in rows.values() if len({answered[place] for place in case}) > 1]


def no_stop(template: str | None, tokenizer: Any) -> str | None:
    """A sentence on a template that writes nothing at which a served model would stop after an answer."""
    if template is None:
        return None
    turns = [{"role": role, "content": MARK.format(role)} for role in ("user", "assistant")]
    try:
        tail = apply(turns, tokenizer, template).rpartition(MARK.format("assistant"))[2]
    except BadRow:  # it wants other turns: the rows will tell
        return None
    stops = sorted(stop_tokens(tokenizer))
    if any(stop in tail for stop in stops):
        return None
    wrote = f"it writes {tail!r}" if tail.strip() else "it writes nothing"
    return (f"the chat template writes no stop token after the assistant's turn ({wrote}, and answers end at "
            f"{' or '.join(stops)}): the model never learns to stop; data.template: chatml does")  # fmt: skip


def not_used(fields: Counter[str]) -> str | None:
    """A sentence on the columns that nobody reads."""
    if not fields:
        return None
    first = [f"'{name}' ({counted(count, 'row')})" for name, count in fields.most_common(LISTED)]
    return f"not used: {', '.join(first)}{' and others' * (len(fields) > LISTED)}"


def counted(count: int, what: str) -> str:
    """A number with its noun: '1 row', '2 rows'."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _come(count: int) -> str:
    return "comes" if count == 1 else "come"


def _repeat(count: int) -> str:
    return "repeats" if count == 1 else "repeat"
