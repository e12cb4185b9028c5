"""A model that writes or judges rows: a teacher, a judge."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from ftlib.config.section import Section

OF_URLS = ("name", "api_key_env", "requests_per_minute", "concurrency", "timeout")


class TeacherSection(Section):
    """A model that writes: behind a URL, or loaded here. A text is short for `model`."""

    model: str = Field(min_length=1)
    """The URL of an OpenAI-compatible server (https://HOST/v1), a folder, a name on the Hub, or registry:NAME."""
    name: str | None = None
    """The name of the model at the URL. null takes the one that the server has, where it has one."""
    api_key_env: str | None = None
    """The environment variable that holds the key of the URL. null sends OPENAI_API_KEY to api.openai.com, or to the
    host of OPENAI_BASE_URL where that is set, and no key to any other host."""
    concurrency: int = Field(default=4, ge=1, le=256)
    """The most requests that are under way at once, for a URL."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """The most requests in a minute, for a URL. null sets no limit."""
    timeout: float = Field(default=120.0, gt=0, le=3600)
    """The seconds that a URL may be silent before a request is tried again."""
    max_total_tokens: int | None = Field(default=None, ge=1)
    """The most tokens that the step reads and writes with this model. null sets no limit."""
    max_cost: float | None = Field(default=None, gt=0)
    """The most that the answers of the step may cost. It needs the prices."""
    price_per_million: list[Annotated[float, Field(ge=0)]] | None = Field(default=None, min_length=2, max_length=2)
    """The price of a million tokens that are read, and of a million that are written."""

    @model_validator(mode="after")
    def _fits(self) -> TeacherSection:
        if self.max_cost is not None and self.price_per_million is None:
            raise ValueError("max_cost needs price_per_million: [PRICE OF READING, PRICE OF WRITING]")
        if self.is_url and "@" in urlsplit(self.model).netloc:
            raise ValueError("model is a URL with a password, and the recipe is kept with the data: use api_key_env")
        odd = [key for key in OF_URLS if key in self.model_fields_set]
        if odd and not self.is_url:
            raise ValueError(f"{odd[0]} is for a URL, and model '{self.model}' is none: leave it out")
        return self

    @property
    def is_url(self) -> bool:
        return self.model.startswith(("http://", "https://"))

    @property
    def prices(self) -> tuple[float, float]:
        """What a token costs that is read, and one that is written."""
        read, written = self.price_per_million or (0.0, 0.0)
        return read / 1e6, written / 1e6


def _named(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


Teacher = Annotated[TeacherSection, BeforeValidator(_named, json_schema_input_type=str | TeacherSection)]
JudgeSection = Teacher
