"""The kinds of `generate`: what a teacher is asked of a row, and which of its texts become rows.

A job is a generator (`ftlib.curate.teachers.jobs`). Each text that a teacher wrote is a child of its row: kept, or
dropped with the reason, so that a person can see what was thrown away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ftlib.config.evaluation import Contains, MetricSection, Number
from ftlib.config.recipe.making import GenerateStep
from ftlib.curate.dialogues import Dialogue, dialogue, pair
from ftlib.curate.faults import SAME, other_language, refers, refusal, repeats, rouge_l, support, unknown_code
from ftlib.curate.prompts import EXAMPLES, HARDER, PROMPTS, filled, for_a_question
from ftlib.curate.replies import alone, answer_line, questions_and_answers, without_thoughts
from ftlib.curate.rows import FROM, Row, child, fields_of
from ftlib.curate.statements import answered_elsewhere, statements
from ftlib.curate.step import Result
from ftlib.curate.teachers.jobs import Job, NoAnswer, Writing
from ftlib.curate.teachers.request import Reply
from ftlib.data.fields import BadRow
from ftlib.evaluation.number_metric import MARK, number_of

Why = tuple[str, str] | None  # a reason that is counted, and a detail
NUMBERED = re.compile(r"^(?:[A-Z]\.?)?\d+(?:\.\d+)*\.?\s+")  # "2.3. " before a heading
SHOWN = 3  # other rows that self_instruct shows beside the row's own
FEW = 3  # words of a known answer that is a number
CUT = ("cut", "the teacher may not write more: raise max_tokens")


class Children:
    """What is made of one row. `add` numbers the texts as they come."""

    def __init__(self, writing: Writing) -> None:
        self.writing, self.result, self._number = writing, Result(), 0
        self.questions: list[str] = []  # of those that are kept
        if writing.settings.keeps:
            self.result.keep(writing.row)

    def add(self, fields: dict[str, Any], why: Why, question: str, parents: Sequence[Row] = ()) -> None:
        """A row with these fields: kept, or dropped because of `why`, or because the row has its question already."""
        row = child(self.writing.row, self._number, fields)
        if parents:
            row[FROM] = ", ".join(str(one[FROM]) for one in (self.writing.row, *parents))
        self._number += 1
        like = next((one for one in self.questions if rouge_l(one, question) >= SAME), None)
        if why is None and like is not None:
            why = ("duplicate", f"like: {like[:80]}")
        if why is not None:
            self.result.drop(row, *why)
            return
        self.questions.append(question)
        self.result.keep(row)

    def done(self, why: Why = None) -> Result:
        """The result. A row of which nothing was made is dropped itself, unless it is kept."""
        if not self.result.kept and not self.result.dropped:
            self.result.drop(self.writing.row, *(why or ("format", "the teacher wrote nothing that can be read")))
        return self.result


def instructions(writing: Writing) -> Job:
    """Questions on a text, with answers that the text supports."""
    settings, text = writing.settings, writing.row.get(writing.settings.field)
    made = Children(writing)
    if not isinstance(text, str) or not text.strip():
        return made.done(("format", f"it has no text in '{settings.field}'"))
    (reply,) = yield [writing.request(_prompt(settings, text=text, count=str(settings.per_chunk)))]
    others = {key: value for key, value in fields_of(writing.row).items() if key not in (settings.field, "headings")}
    for question, answer, cut in _pairs(reply, settings.per_chunk):
        why = cut or _example(answer, settings) or _wrong(question, answer, text)
        why = why or _unsupported(answer, text, settings.min_support)
        made.add({**others, "messages": pair(question, answer)}, why, question)
    return made.done()


def questions(writing: Writing) -> Job:
    """A question for each of some sentences of a text; the sentence is the answer, so the text supports it."""
    settings, text = writing.settings, writing.row.get(writing.settings.field)
    made = Children(writing)
    said = statements(text) if isinstance(text, str) else []
    if not said:
        return made.done(("format", f"its '{settings.field}' has no sentence that says something by itself"))
    said = writing.context.random(writing.row).sample(said, min(settings.per_chunk, len(said)))
    topic = _topic(writing.row)
    replies = yield [writing.request(_asked_for(settings, topic, one), number) for number, one in enumerate(said)]
    others = {key: value for key, value in fields_of(writing.row).items() if key not in (settings.field, "headings")}
    for sentence, reply in zip(said, replies, strict=True):
        question = alone(reply.text).split("\n")[0].strip() if reply else ""
        why = _no_good(reply, question) or _no_question(question, sentence, f"{topic}\n{text}", settings)
        made.add({**others, "messages": pair(question, sentence)}, why, question)
    return made.done()


def self_instruct(writing: Writing) -> Job:
    """New questions like the row's own, with answers. Other rows are shown too, so that the new ones differ."""
    settings, made = writing.settings, Children(writing)
    seed = _dialogue(writing, made)
    if seed is None:
        return made.done()
    others = [row for row in writing.shown if row != writing.row][:SHOWN]
    shown = [seed.question, *(one.question for one in _dialogues(others))]
    text = "\n\n".join(f"Task: {question}" for question in shown)
    (reply,) = yield [writing.request(_prompt(settings, text=text, count=str(settings.per_chunk)))]
    for question, answer, cut in _pairs(reply, settings.per_chunk):
        why = cut or _wrong(question, answer, seed.question) or _near(question, shown, settings.max_overlap)
        made.add({"messages": pair(question, answer)}, why, question, others)
    return made.done(None if reply else ("no_answer", ""))


def paraphrase(writing: Writing) -> Job:
    """The question, or the text, in other words; answer and label stay."""
    made = Children(writing)
    known = _dialogue(writing, made)
    if known is None:
        return made.done()
    prompt = _prompt(writing.settings, text=known.question)
    replies = yield [writing.request(prompt, number) for number in range(writing.settings.per_chunk)]
    _add_questions(made, known, replies, known.question)
    return made.done()


def back_translate(writing: Writing) -> Job:
    """The question through another language and back (Sennrich et al. 2016, arXiv:1511.06709)."""
    settings, made = writing.settings, Children(writing)
    known = _dialogue(writing, made)
    if known is None:
        return made.done()
    there = _prompt(settings, "translate", text=known.question, language=settings.via)
    abroad = yield [writing.request(there, number) for number in range(settings.per_chunk)]
    texts = [alone(reply.text) for reply in abroad if reply is not None]
    replies = yield [
        writing.request(
            _prompt(settings, "translate", text=text, language=settings.language), number + settings.per_chunk
        )
        for number, text in enumerate(texts)
    ]
    _add_questions(made, known, replies, known.question)
    return made.done()


def evolve(writing: Writing) -> Job:
    """A harder question, then its answer."""
    settings, made = writing.settings, Children(writing)
    known = _dialogue(writing, made)
    if known is None:
        return made.done()
    ways = writing.context.random(writing.row).sample(
        HARDER * -(-settings.per_chunk // len(HARDER)), settings.per_chunk
    )
    harder = yield [
        writing.request(_prompt(settings, text=known.question, how=how), number) for number, how in enumerate(ways)
    ]
    questions = [(alone(reply.text), CUT if reply.cut else None) for reply in harder if reply is not None]
    good = []
    for question, cut in questions:
        why = (
            cut or _wrong(question, question, known.question) or _near(question, [known.question], settings.max_overlap)
        )
        if why is None:
            good.append(question)
        else:
            made.add(known.with_question(question), why, question)
    if not good:
        return made.done()
    replies = yield [
        writing.request(known.asking(question), number + settings.per_chunk) for number, question in enumerate(good)
    ]
    for question, reply in zip(good, replies, strict=True):
        answer, _ = without_thoughts(reply.text) if reply else ("", "")
        fields = known.answered(known.asking(question), answer)
        made.add(fields, _no_good(reply, answer) or _wrong(question, answer, known.question), question)
    return made.done()


def answers(writing: Writing) -> Job:
    """An answer of the teacher's to the row's question, in the place of the one that it has."""
    settings, made = writing.settings, Children(writing)
    known = _dialogue(writing, made)
    if known is None:
        return made.done()
    asked = known.asking(_prompt(settings, text=known.question))
    replies = yield [writing.request(asked, number) for number in range(settings.per_chunk)]
    for reply in replies:
        if reply is not None:
            answer, thought = without_thoughts(reply.text)
            fields = _thinking(known, answer, reply.reasoning or thought, settings)
            made.add(fields, _no_good(reply, answer) or _refused(answer), answer)
    return made.done()


def reasoning(writing: Writing) -> Job:
    """Steps and an answer, kept where the answer is the known one."""
    settings, made = writing.settings, Children(writing)
    known = _dialogue(writing, made)
    if known is None:
        return made.done()
    if not known.answer:
        return made.done(("format", "it has no known answer"))
    asked = known.asking(_prompt(settings, text=known.question))
    replies = yield [writing.request(asked, number) for number in range(settings.per_chunk)]
    for reply in replies:
        if reply is not None:
            said, thought = without_thoughts(reply.text)
            answer, steps = answer_line(said)
            steps = "\n\n".join(part for part in (reply.reasoning or thought, steps) if part)
            why = _no_good(reply, answer) or _other_answer(answer, known, settings.metric)
            made.add(_thinking(known, answer, steps, settings), why, f"{steps}\n{answer}")
    return made.done()


def write(writing: Writing) -> Job:
    """The job of the step's kind. A row that stays stays also where nobody answers."""
    try:
        return (yield from KINDS[writing.settings.kind](writing))
    except NoAnswer as none:
        if not writing.settings.keeps:
            raise
        result = Result([writing.row])
        result.drop(child(writing.row, 0, {}), none.missing.reason, none.missing.detail)
        return result


KINDS: dict[str, Callable[[Writing], Job]] = {
    "instructions": instructions,
    "questions": questions,
    "self_instruct": self_instruct,
    "paraphrase": paraphrase,
    "back_translate": back_translate,
    "evolve": evolve,
    "answers": answers,
    "reasoning": reasoning,
}


def _prompt(settings: GenerateStep, default: str = "", **words: str) -> str:
    return filled(settings.prompt or PROMPTS[default or settings.kind], **words)


def _asked_for(settings: GenerateStep, topic: str, sentence: str) -> str | list[dict[str, str]]:
    if settings.prompt is None:
        return for_a_question(topic, sentence)
    return _prompt(settings, text=sentence, topic=topic)


def _topic(row: Row) -> str:
    """The headings above a chunk without their numbers, or the name of its document."""
    headings = row.get("headings")
    if isinstance(headings, list) and headings:
        return ": ".join(NUMBERED.sub("", str(one)) for one in headings[-2:])
    return Path(str(row.get("document", ""))).stem


def _no_question(question: str, sentence: str, source: str, settings: GenerateStep) -> Why:
    """What is wrong with a question whose answer is a sentence of `source`."""
    if not question.rstrip().endswith("?"):
        return "format", "no question"
    if why := _wrong(question, sentence, source):
        return why
    if (share := support(question, source)) < settings.min_support:
        return "support", f"{share:.2f} of the question's words are in the text"
    if any(rouge_l(question, shown) >= SAME for _, _, shown in EXAMPLES):
        return "prompt", ""
    other = answered_elsewhere(question, sentence, source)
    return None if other is None else ("elsewhere", f"it leads to: {other}" if other else "it leads to no sentence")


def _dialogue(writing: Writing, made: Children) -> Dialogue | None:
    """The row's question and answer; None, with the reason in the result, where it has none."""
    try:
        return dialogue(writing.row)
    except BadRow as bad:
        if not made.result.kept:
            made.result.drop(writing.row, "format", str(bad))
        return None


def _dialogues(rows: Sequence[Row]) -> Iterator[Dialogue]:
    for row in rows:
        try:
            yield dialogue(row)
        except BadRow:
            continue


def _pairs(reply: Reply | None, most: int) -> Iterator[tuple[str, str, Why]]:
    """The first pairs of a reply, each with what is wrong with it of itself: the last one is cut where the reply is,
    and an answer that only repeats its question is none."""
    found = questions_and_answers(reply.text) if reply else []
    for number, (question, answer) in enumerate(found[:most]):
        last = reply is not None and reply.cut and number + 1 == len(found)
        yield question, answer, CUT if last else ("repeats", "") if repeats(question, answer) else None


def _add_questions(made: Children, known: Dialogue, replies: Sequence[Reply | None], source: str) -> None:
    """Rows that ask what the replies say instead of `source`."""
    for reply in replies:
        if reply is not None:
            text = alone(reply.text)
            near = _near(text, [source], made.writing.settings.max_overlap)
            why = _no_good(reply, text) or _wrong(text, text, source) or _length(text, source) or near
            made.add(known.with_question(text), why, text)


def _thinking(known: Dialogue, answer: str, steps: str, settings: GenerateStep) -> dict[str, Any]:
    """A row whose answer has its reasoning where the settings want it."""
    if settings.reasoning == "answer" and steps:
        return known.answered(known.prompt, f"{steps}\n\n{answer}")
    return known.answered(known.prompt, answer, steps if settings.reasoning == "field" else "")


def _no_good(reply: Reply | None, text: str) -> Why:
    if reply is None:
        return "no_answer", ""
    return CUT if reply.cut else None if text else ("empty", "")


def _refused(text: str) -> Why:
    return ("refusal", said) if (said := refusal(text)) else None


def _wrong(question: str, answer: str, source: str) -> Why:
    """What can be wrong with any question and answer."""
    if why := _refused(answer) or _refused(question):
        return why
    if said := refers(question):
        return "refers", said
    said = other_language(f"{question}\n{answer}", source)
    return ("language", said) if said else None


def _example(answer: str, settings: GenerateStep) -> Why:
    """An answer that stands in a prompt of one's own is the example there."""
    return ("prompt", "") if settings.prompt is not None and answer in settings.prompt else None


def _unsupported(answer: str, source: str, least: float) -> Why:
    if code := unknown_code(answer, source):
        return "support", f"{code} is not in the text"
    share = support(answer, source)
    return ("support", f"{share:.2f} of its words are in the text") if share < least else None


def _near(question: str, sources: Sequence[str], most: float) -> Why:
    share = max(rouge_l(question, source) for source in sources)
    return ("overlap", f"ROUGE-L {share:.2f}") if share >= most else None


def _length(text: str, source: str) -> Why:
    """A text of the same meaning has about the same length: a longer one is a talk about it."""
    if len(text) > 3 * len(source) + 100 or 4 * len(text) + 20 < len(source):
        return "length", f"{len(text):,} characters of {len(source):,}"
    return None


def _other_answer(answer: str, known: Dialogue, metric: MetricSection | None) -> Why:
    from ftlib.evaluation.metrics import score
    from ftlib.evaluation.task import Answer, Question

    question = Question(known.prompt, known.answer)
    value = float(score(metric or _usual(known.answer), [question], [Answer(answer)]).rows[0])
    return None if value >= 1 else ("wrong", f"{answer[:80]}, not {known.answer[-80:]}")


def _usual(reference: str) -> MetricSection:
    is_number = MARK in reference or len(reference.split()) <= FEW
    return Number(type="number") if is_number and number_of(reference) is not None else Contains(type="contains")
