"""Steps that make rows: a teacher writes them, or rows are copied with changes."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from ftlib.config.evaluation import MetricSection, named_metric
from ftlib.config.recipe.teacher import JudgeSection, Teacher, TeacherSection
from ftlib.config.section import Section
from ftlib.errors import nearest

Kind = Literal[
    "instructions", "questions", "self_instruct", "paraphrase", "back_translate", "evolve", "answers", "reasoning"
]
KINDS: tuple[str, ...] = get_args(Kind)
WORDS = {  # what a prompt of one's own may hold in braces; {text} it must hold
    "instructions": ("text", "count"),
    "questions": ("text", "topic"),
    "self_instruct": ("text", "count"),
    "paraphrase": ("text",),
    "back_translate": ("text", "language"),
    "evolve": ("text", "how"),
    "answers": ("text",),
    "reasoning": ("text",),
}
OF_KIND = {  # keys that some kinds have, and these
    "field": ("instructions", "questions"),
    "min_support": ("instructions", "questions"),
    "max_overlap": ("self_instruct", "paraphrase", "back_translate", "evolve"),
    "via": ("back_translate",),
    "language": ("back_translate",),
    "reasoning": ("answers", "reasoning"),
    "metric": ("reasoning",),
}
REPLACES = ("instructions", "questions", "answers", "reasoning")  # kinds whose rows stand in the place of the row
WORD = re.compile(r"\{(\w+)\}")
Metric = Annotated[MetricSection, BeforeValidator(named_metric, json_schema_input_type=str | MetricSection)]
RUBRIC = "Is the answer correct, complete and helpful?"


class GenerateStep(Section):
    """`generate:` rows that a teacher writes of the rows that are there."""

    kind: Kind
    """What is written. instructions: questions on a text, with their answers. questions: a question for a sentence of a
    text, which is the answer (Alberti et al. 2019, arXiv:1906.05416): a small model can do that. self_instruct: new
    questions like that of the row, with their answers (Wang et al. 2023, arXiv:2212.10560). paraphrase: the question in
    other words. back_translate: the question through another language. evolve: a harder question, with its answer
    (Evol-Instruct, Xu et al. 2023, arXiv:2304.12244). answers: an answer to the question. reasoning: steps and an
    answer, kept where the answer is the known one (rejection sampling: Yuan et al. 2023, arXiv:2308.01825)."""
    teacher: Teacher
    """The model that writes: a URL or a model, or a section."""
    per_chunk: int = Field(default=1, ge=1, le=64)
    """How many rows are written of each row."""
    max_tokens: int = Field(default=512, ge=1)
    """The most tokens of an answer of the teacher."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """The temperature of the teacher. 0 writes the most likely answer."""
    field: str = "text"
    """The field with the text that instructions and questions are written of."""
    prompt: str | None = None
    """What the teacher is asked, in your words. {text} is the row's text, question or sentence; {count}, {topic},
    {language} and {how} (how a question becomes harder) are there where the kind has them. null takes ftlib's
    (ftlib/curate/prompts.py)."""
    keep: bool | None = None
    """Whether the row itself stays beside what is written. null keeps it for self_instruct, paraphrase, back_translate
    and evolve."""
    via: str = "German"
    """The language that back_translate goes through, by its English name."""
    language: str = "English"
    """The language that back_translate comes back to: that of the rows, by its English name."""
    max_overlap: float = Field(default=0.9, gt=0, le=1)
    """The most that a new question may have in common with the row's own (ROUGE-L, Lin 2004). 1 is the same words."""
    min_support: float = Field(default=0.5, ge=0, le=1)
    """The least share of an answer's words (of four letters and more, and numbers) that stand in the text. For
    questions, of the question's words that stand in the text or its headings."""
    reasoning: Literal["field", "answer", "drop"] = "field"
    """Where the teacher's reasoning goes: into reasoning_content of the turn, into the answer, or nowhere."""
    metric: Metric | None = None
    """How an answer is compared with the known one. null compares numbers where the known answer is one, or has one
    after '####' (GSM8K), and otherwise looks for the known answer in the answer."""

    @model_validator(mode="after")
    def _of_its_kind(self) -> GenerateStep:
        for key, kinds in OF_KIND.items():
            if key in self.model_fields_set and self.kind not in kinds:
                raise ValueError(f"{key} is for {' and '.join(kinds)}, not for {self.kind}: leave it out")
        if self.kind == "reasoning" and self.per_chunk > 1 and self.temperature == 0:
            raise ValueError("per_chunk answers at temperature 0 would all be the same: set a temperature")
        _check_prompt(self.prompt, WORDS[self.kind])
        return self

    @property
    def keeps(self) -> bool:
        """Whether rows stay beside what is written of them."""
        return self.kind not in REPLACES if self.keep is None else self.keep

    @property
    def teachers(self) -> list[TeacherSection]:
        return [self.teacher]


def _check_prompt(prompt: str | None, words: tuple[str, ...]) -> None:
    if prompt is None:
        return
    found = WORD.findall(prompt)
    if "text" not in found:
        raise ValueError("prompt needs {text}, the place of the row's text")
    if odd := [word for word in found if word not in words]:
        known = ", ".join(f"{{{word}}}" for word in words)
        raise ValueError(f"prompt has {{{odd[0]}}}: there is {known}.{nearest(odd[0], words)}".removesuffix("."))


class AugmentStep(Section):
    """`augment:` changed copies of rows, so that a model learns what does not matter. The rows themselves stay."""

    typos: float = Field(default=0.0, ge=0, le=1)
    """The share of rows that get a copy with typing errors: about one word in ten."""
    case: float = Field(default=0.0, ge=0, le=1)
    """The share of rows that get a copy in other case: small letters, or capitals."""
    synonyms: float = Field(default=0.0, ge=0, le=1)
    """The share of rows that get a copy with other words of the same meaning. It needs `thesaurus`."""
    thesaurus: str | None = None
    """A YAML file of words, each with those that can stand in its place: {help: [assist, support]}. ftlib brings none:
    whether two words mean the same depends on your texts."""
    fields: list[str] | None = None
    """The fields that are changed. null changes what is asked: the text of a row with a label, the prompt, and the
    turns of the user."""

    @model_validator(mode="after")
    def _does_something(self) -> AugmentStep:
        if not (self.typos or self.case or self.synonyms):
            raise ValueError("say one of typos, case, synonyms: the share of rows that get such a copy")
        if self.synonyms and self.thesaurus is None:
            raise ValueError(
                "synonyms needs thesaurus, a YAML file {word: [words in its place]}: ftlib brings no list of synonyms "
                "(WordNet is a download), and a wrong one would change what rows mean"
            )
        return self


WAYS = ("judge", "metric", "rejected", "constitution")


class PairsStep(Section):
    """`pairs:` for each prompt a chosen and a rejected answer. One of judge, metric, rejected and constitution says how
    they are told apart."""

    samples: int = Field(default=2, ge=2, le=64)
    """How many answers are drawn for each prompt, for judge and metric: the best is chosen, the worst rejected."""
    temperatures: list[Annotated[float, Field(ge=0, le=2)]] = Field(default_factory=lambda: [0.2, 1.0], min_length=1)
    """The temperatures that the answers are drawn at, in turn."""
    max_tokens: int = Field(default=512, ge=1)
    """The most tokens of an answer."""
    teacher: Teacher | None = None
    """The model that answers. null takes the answer of the row as the chosen one, beside rejected."""
    judge: JudgeSection | None = None
    """The model that scores each answer from 0 to 10."""
    rubric: str = RUBRIC
    """What the judge looks at, in your words."""
    metric: Metric | None = None
    """What scores each answer without a model: any metric of an evaluation, {type: regex, pattern: ...} or
    {type: function, function: ...}. It compares with the answer of the row."""
    rejected: Teacher | None = None
    """A weaker model, whose answers are the rejected ones."""
    constitution: str | None = None
    """A YAML list of principles. The first answer is criticised by one of them and revised: the revision is chosen, the
    first answer rejected (RLAIF: Bai et al. 2022, arXiv:2212.08073)."""

    @model_validator(mode="after")
    def _one_way(self) -> PairsStep:
        given = [way for way in WAYS if getattr(self, way) is not None]
        if len(given) != 1:
            raise ValueError(f"say one of {', '.join(WAYS)}, not {' and '.join(given) or 'none'}")
        if self.teacher is None and given != ["rejected"]:
            raise ValueError(f"{given[0]} needs teacher, the model that answers")
        if len(set(self.temperatures)) == 1 and self.temperatures[0] == 0 and given[0] in ("judge", "metric"):
            raise ValueError("temperatures [0] gives the same answer each time: set another")
        return self

    @property
    def teachers(self) -> list[TeacherSection]:
        return [one for one in (self.teacher, self.judge, self.rejected) if one is not None]
