"""What an endpoint may be told: the arguments of `serve.front.app:build`, in a Serve config file or from `ftlib
serve`."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

APPLICATION = "ftlib"  # of the HTTP side, with the engines that it was started with


class Options(BaseModel):
    """Unknown keys are refused, as everywhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineOptions(Options):
    """What an engine may take. The same for every base of an endpoint."""

    type: Literal["bank", "vllm"] = "bank"
    max_rows: int = Field(default=32, ge=1)  # answers written at once
    max_waiting: int = Field(default=64, ge=0)  # answers that wait, before a request hears 429
    max_adapters: int = Field(default=16, ge=1)  # in the bank at once; others take turns
    max_new_tokens: int = Field(default=4096, ge=1)
    deadline: float = Field(default=120, gt=0)  # seconds for one request, its waiting included
    cache_gb: float | None = Field(default=None, gt=0)  # of keys and values; None: a part of what is free


class ReplicaOptions(Options):
    """How many processes answer for each base, and what each gets. Between `min` and `max`, the load decides."""

    min: int = Field(default=1, ge=1)
    max: int = Field(default=1, ge=1)
    num_cpus: float = Field(default=1, ge=0)
    num_gpus: float = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaOptions:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is smaller than min ({self.min})")
        return self


class LogOptions(Options):
    """What is written down of requests. Folders are on the machine where the endpoint's HTTP side runs."""

    folder: str | None = None  # None: $FTLIB_HOME/logs
    access: bool = True
    sample: float = Field(default=0.0, ge=0, le=1)  # share of requests kept with their text, redacted
    redact: list[str] = Field(default_factory=list)  # patterns besides the usual ones

    @field_validator("redact")
    @classmethod
    def _patterns(cls, value: list[str]) -> list[str]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no pattern: {error}") from None
        return value


class Endpoint(Options):
    """The arguments of `build`. No names means every name in the registry, those to come too."""

    names: list[str] = Field(default_factory=list)  # "support", "support@3"; or one text with commas
    base: bool = False  # whether NAME@base is served too: the base of NAME, without its adapter
    api_key: str | None = Field(default=None, repr=False)
    keys: str | None = None  # the file of `ftlib keys`
    hosts: list[str] = Field(default_factory=list)  # names besides localhost that an endpoint without a key answers to
    max_body: int = Field(default=1_000_000, ge=1000)  # bytes; far more text than any context holds
    body_seconds: float = Field(default=30, gt=0)  # in which a body has to be here, and within the deadline
    max_extra_engines: int = Field(default=2, ge=0)  # of bases that no name means now, for versions by their numbers
    engine: EngineOptions = EngineOptions()
    replicas: ReplicaOptions = ReplicaOptions()
    logs: LogOptions = LogOptions()
    trust: bool = False  # run code that comes with versions which others have promoted

    @field_validator("names", "hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("api_key")
    @classmethod
    def _fits_in_a_header(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value):
            raise ValueError("use printable ASCII characters, without a space")
        return value

    @property
    def guarded(self) -> bool:
        return self.api_key is not None or self.keys is not None
