"""`pairs`: for each prompt a chosen and a rejected answer.

Which of the two is longer is counted for all pairs: where the chosen ones are mostly longer, a model learns to write
more (Singhal et al. 2023, arXiv:2310.03716).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from ftlib.config.recipe.making import PairsStep
from ftlib.curate.dialogues import Dialogue, assistant, dialogue
from ftlib.curate.prompts import PROMPTS, filled
from ftlib.curate.quality import WRITTEN, of_answer, scored
from ftlib.curate.replies import without_thoughts
from ftlib.curate.rows import FROM, ID
from ftlib.curate.step import Result, WholeStep
from ftlib.curate.teachers.jobs import Asking, Job, Later, Writing, asking
from ftlib.curate.teachers.request import Reply, Request
from ftlib.data.fields import BadRow
from ftlib.errors import ConfigError

Told = tuple[str, str] | str  # a chosen and a rejected answer, or why there are none
Way = Generator[list[Request], list[Reply | None], Told]
LIKE = 1e-9  # scores that differ less are the same


def pair(writing: Writing) -> Job:
    """The pair of a row."""
    result = Result()
    try:
        known = dialogue(writing.row)
    except BadRow as bad:
        result.drop(writing.row, "format", str(bad))
        return result
    told = yield from _way(writing.settings)(writing, known)
    if isinstance(told, str):
        result.drop(writing.row, told)
        return result
    chosen, rejected = told
    fields = {
        ID: writing.row[ID],
        FROM: writing.row[FROM],
        **known.others,
        "prompt": list(known.prompt),
        "chosen": [assistant(chosen)],
        "rejected": [assistant(rejected)],
    }
    result.change(fields, _longer(chosen, rejected), f"{len(chosen):,} and {len(rejected):,} characters")
    return result


def _longer(chosen: str, rejected: str) -> str:
    if len(chosen) == len(rejected):
        return "same_length"
    return "chosen_longer" if len(chosen) > len(rejected) else "rejected_longer"


def judged(writing: Writing, known: Dialogue) -> Way:
    """Of several answers the best and the worst by a judge's scores."""
    settings = writing.settings
    said, why = yield from _samples(writing, known)
    question = "\n".join(f"{turn['role']}: {turn['content']}" for turn in known.prompt)
    asked = [of_answer(settings.rubric, question, answer, known.answer) for answer in said]
    if len(said) < 2:
        return why
    replies = yield [writing.request(turns, 0, settings.judge, 0.0, WRITTEN) for turns in asked]
    scores = [
        (score, answer) for answer, reply in zip(said, replies, strict=True) if (score := scored(reply)) is not None
    ]
    return _best_and_worst(scores) if len(scores) > 1 else "no_score"


def measured(writing: Writing, known: Dialogue) -> Way:
    """Of several answers the best and the worst by a metric."""
    from ftlib.evaluation.metrics import score
    from ftlib.evaluation.task import Answer, Question

    said, why = yield from _samples(writing, known)
    metric = writing.settings.metric
    if len(said) < 2:
        return why
    questions = [Question(known.prompt, known.answer)] * len(said)
    found = score(metric, questions, [Answer(one) for one in said])
    rows = zip(found.rows.tolist(), said, strict=True)
    scores = [(found.sign * value, answer) for value, answer in rows if value == value]  # NaN is no score
    return _best_and_worst(scores) if len(scores) > 1 else "no_score"


def weaker(writing: Writing, known: Dialogue) -> Way:
    """The teacher's answer, or the row's own, beside that of a weaker model."""
    settings = writing.settings
    asked = [(settings.teacher, 0), (settings.rejected, 1)]
    requests = [
        writing.request(known.prompt, number, teacher, settings.temperatures[0])
        for teacher, number in asked
        if teacher is not None
    ]
    if settings.teacher is None and not known.answer:
        return "format"
    texts = [_text(reply) for reply in (yield requests)]
    chosen, rejected = texts if settings.teacher is not None else (known.answer, texts[0])
    if not chosen or not rejected:
        return "no_answer"
    return "equal" if chosen == rejected else (chosen, rejected)


def constitutional(writing: Writing, known: Dialogue) -> Way:
    """An answer, and its revision by a principle that is drawn for the row."""
    settings = writing.settings
    principle = writing.context.random(writing.row).choice(writing.shared)
    warm = settings.temperatures[0]
    (reply,) = yield [writing.request(known.prompt, 0, temperature=warm)]
    if not (first := _text(reply)):
        return "no_answer"
    words = {"question": known.question, "text": first, "principle": principle}
    (reply,) = yield [writing.request(filled(PROMPTS["critique"], **words), 1, temperature=warm)]
    critique = _text(reply)
    (reply,) = yield [writing.request(filled(PROMPTS["revise"], **words, critique=critique), 2, temperature=warm)]
    if not (revised := _text(reply)):
        return "no_answer"
    return "equal" if revised == first else (revised, first)


def _way(settings: PairsStep) -> Callable[[Writing, Dialogue], Way]:
    if settings.judge is not None:
        return judged
    if settings.metric is not None:
        return measured
    return weaker if settings.rejected is not None else constitutional


def _samples(writing: Writing, known: Dialogue) -> Generator[list[Request], list[Reply | None], tuple[list[str], str]]:
    """Answers at the temperatures, in turn, those that differ; and why there are too few, where there are."""
    warm = writing.settings.temperatures
    replies = yield [
        writing.request(known.prompt, number, temperature=warm[number % len(warm)])
        for number in range(writing.settings.samples)
    ]
    said = [text for reply in replies if (text := _text(reply))]
    why = "equal" if len(said) > 1 else "cut" if any(reply and reply.cut for reply in replies) else "no_answer"
    return list(dict.fromkeys(said)), why


def _text(reply: Reply | None) -> str:
    """What a reply says; nothing where it is cut, since its end would be learned."""
    return "" if reply is None or reply.cut else without_thoughts(reply.text)[0]


def _best_and_worst(scores: Sequence[tuple[float, str]]) -> Told:
    best, worst = max(scores, key=lambda one: one[0]), min(scores, key=lambda one: one[0])
    return "equal" if best[0] - worst[0] < LIKE else (best[1], worst[1])


def principles(settings: PairsStep) -> list[str]:
    """The principles of a constitution. Raises ConfigError for a file that is no list of texts."""
    if settings.constitution is None:
        return []
    import yaml

    try:
        found = yaml.safe_load(Path(settings.constitution).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no YAML"
        raise ConfigError(f"steps: pairs.constitution: {settings.constitution} cannot be read: {why}.") from None
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and one.strip() for one in found):
        raise ConfigError(f"steps: pairs.constitution: {settings.constitution} is no list of texts: - Be honest.")
    return found


def later(settings: PairsStep) -> list[Later]:
    """What follows the answers: a judge's scores, or a critique and a revision."""
    if settings.judge is not None:
        return [Later(settings.judge, 1, WRITTEN)]
    if settings.constitution is None or settings.teacher is None:
        return []
    return [Later(settings.teacher, 2, settings.max_tokens)]


def step_for(settings: PairsStep) -> WholeStep:
    """The step of a way. Raises ConfigError for a constitution or a metric that cannot be used, before any asking."""
    principles(settings)
    if settings.metric is not None:
        from ftlib.evaluation.metrics import check

        check(settings.metric)
    files = [] if settings.constitution is None else [settings.constitution]
    return asking(settings, Asking(pair, later, principles), files)
