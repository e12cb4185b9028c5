"""Steps with a model that writes or judges rows: a teacher, a judge."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ftlib.config.section import Section


class TeacherSection(Section):
    """A model that writes: behind a URL, or loaded here. A text is short for `model`."""

    model: str = Field(min_length=1)
    """The URL of an OpenAI-compatible server, a folder, a name on the Hub, or registry:NAME."""
    name: str | None = None
    """The name of the model at the URL. null asks the server for its first one."""
    api_key_env: str | None = None
    """The environment variable with the key for the URL."""
    concurrency: int = Field(default=4, ge=1)
    """The most questions that are asked at once."""
    max_cost: float | None = Field(default=None, gt=0)
    """The most that all answers may cost. It needs the prices."""
    price_per_million: list[float] | None = Field(default=None, min_length=2, max_length=2)
    """The price of a million tokens that are read, and of a million that are written."""


def _named(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


Teacher = Annotated[TeacherSection, BeforeValidator(_named, json_schema_input_type=str | TeacherSection)]
JudgeSection = Teacher


class GenerateStep(Section):
    """`generate:` rows that a teacher writes of the rows that are there."""

    kind: Literal[
        "instructions", "self_instruct", "paraphrase", "back_translate", "evolve", "answers", "reasoning"
    ]  # fmt: skip
    """What is written: instructions with their answers, paraphrases, harder questions (evolve), answers, and so on."""
    teacher: Teacher
    """The model that writes: a URL or a model, or a section."""
    per_chunk: int = Field(default=1, ge=1)
    """How many rows are written of each row."""
    max_tokens: int = Field(default=512, ge=1)
    """The most tokens of an answer."""
    temperature: float = Field(default=0.7, ge=0)
    """The temperature of the teacher."""


class AugmentStep(Section):
    """`augment:` changed copies of rows, so that a model learns what does not matter."""

    typos: float = Field(default=0.0, ge=0, le=1)
    """The share of rows that get a copy with typing errors."""
    case: float = Field(default=0.0, ge=0, le=1)
    """The share of rows that get a copy in other case."""
    synonyms: float = Field(default=0.0, ge=0, le=1)
    """The share of rows that get a copy with other words of the same meaning."""
    fields: list[str] | None = None
    """The fields that are changed. null changes all texts of a row but its label."""


class PairsStep(Section):
    """`pairs:` for each prompt a chosen and a rejected answer."""

    samples: int = Field(default=2, ge=2)
    """How many answers are drawn for each prompt."""
    temperatures: list[Annotated[float, Field(ge=0)]] = Field(default_factory=lambda: [0.2, 1.0], min_length=1)
    """The temperatures that the answers are drawn at, in turn."""
    teacher: Teacher | None = None
    """The model that answers. null takes the answer of the row as the chosen one."""
    judge: Teacher | None = None
    """The model that says which answer is better."""
    rejected: Teacher | None = None
    """A weaker model, whose answers are the rejected ones."""
    constitution: str | None = None
    """A YAML file of principles, by which answers are criticised and revised (Bai et al. 2022, arXiv:2212.08073)."""
