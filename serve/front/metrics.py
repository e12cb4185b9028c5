"""What Prometheus reads at /metrics, and what the page shows: counted where requests pass, per adapter."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

from serve.engine.messages import Tally

Allows = Callable[[str], bool]  # whether a key opens a version
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
FRESH = 10  # seconds after which an engine's word is old
WINDOW = 60  # seconds of the live rates

GAUGES = {
    "rows": "Answers being written.",
    "waiting": "Answers that wait for a row.",
    "adapters": "Adapters in the bank.",
    "steps": "Forward passes so far.",
    "row_steps": "Rows of all passes so far; by steps, the mean width of the batch.",
    "tokens": "Tokens that went through the model, without those of beginnings that were kept.",
    "adapter_hits": "Requests whose adapter was in the bank.",
    "adapter_misses": "Requests whose adapter had to be loaded into the bank.",
    "adapter_evictions": "Adapters put out of the bank for another.",
}


@dataclass
class Visit:
    """One request, from its first byte to its last: what is counted, logged and perhaps kept as a sample of it."""

    path: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    model: str = ""
    version: str = ""
    key: str = ""
    status: int = 200
    code: str | None = None  # of a refusal
    stream: bool = False
    turns: list[dict[str, Any]] | None = None  # of a chat that is sampled
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queued: float = 0.0
    waited: float = 0.0  # until the first token
    finish_reason: str | None = None
    began: float = field(default_factory=time.monotonic)
    total: float = 0.0

    def take(self, tally: Tally) -> None:
        """What is known of the answer by now."""
        self.prompt_tokens, self.completion_tokens = tally.prompt_tokens, tally.completion_tokens
        self.queued, self.waited = tally.queued, tally.waited
        self.finish_reason = next((choice.finish_reason for choice in tally.in_order), None)


class Allowed:
    """The part of a registry that is told of some versions: engines and the endpoint as a whole are told of all."""

    def __init__(self, registry: CollectorRegistry, allows: Allows) -> None:
        self._registry, self._allows = registry, allows

    def collect(self) -> Iterator[Metric]:
        """What Prometheus' writer asks of a registry."""
        for family in self._registry.collect():
            told = Metric(family.name, family.documentation, family.type, family.unit)
            told.samples = [sample for sample in family.samples if self._allows(sample.labels.get("version", ""))]
            if told.samples:
                yield told


class Metrics:
    """Counters of one Api, with the last word of each engine replica."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ftlib_requests", "Requests answered.", ("model", "version", "status"), registry=self._registry
        )
        self._tokens = Counter("ftlib_tokens", "Tokens read and written.", ("version", "kind"), registry=self._registry)
        self._queued = Histogram(
            "ftlib_queue_seconds", "From arrival to a row.", ("version",), buckets=SECONDS, registry=self._registry
        )
        self._first = Histogram(
            "ftlib_time_to_first_token_seconds",
            "From arrival to a token.",
            ("version",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._each = Histogram(
            "ftlib_time_per_token_seconds",
            "Between two tokens, the mean.",
            ("version",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._total = Histogram(
            "ftlib_request_seconds", "The whole request.", ("version",), buckets=SECONDS, registry=self._registry
        )
        self.open = 0  # requests that are being answered
        told = Gauge("ftlib_open_requests", "Requests being answered.", registry=self._registry)
        told.set_function(lambda: self.open)
        self._engines = {
            name: Gauge(f"ftlib_engine_{name}", text, ("engine", "replica"), registry=self._registry)
            for name, text in GAUGES.items()
        }
        self._heard: dict[tuple[str, str], float] = {}
        self._recent: deque[tuple[float, Visit]] = deque()

    def begin(self) -> None:
        self.open += 1

    def end(self, visit: Visit) -> None:
        """Counts a request that is over. Only names that are served become labels: the rest is anyone's invention."""
        self.open -= 1
        self._requests.labels(visit.model if visit.version else "", visit.version, str(visit.status)).inc()
        self._recent.append((time.monotonic(), visit))
        self._forget()
        if not visit.version or visit.status != 200:
            return
        self._tokens.labels(visit.version, "prompt").inc(visit.prompt_tokens)
        self._tokens.labels(visit.version, "completion").inc(visit.completion_tokens)
        self._total.labels(visit.version).observe(visit.total)
        if visit.waited:
            self._queued.labels(visit.version).observe(visit.queued)
            self._first.labels(visit.version).observe(visit.waited)
        if visit.completion_tokens > 1 and visit.waited:
            rest = max(visit.total - visit.waited, 0) / (visit.completion_tokens - 1)
            self._each.labels(visit.version).observe(rest)

    def hear(self, engine: str, replica: str, stats: dict[str, float]) -> None:
        """An engine replica's own numbers, as it sends them."""
        self._heard[engine, replica] = time.monotonic()
        for name, value in stats.items():
            self._engines[name].labels(engine, replica).set(value)

    def text(self, allows: Allows | None = None) -> bytes:
        """Prometheus' text format; with `allows`, what is told of the versions that it allows, and of nothing else."""
        self._drop_silent()
        return generate_latest(self._registry if allows is None else Allowed(self._registry, allows))

    def live(self, allows: Allows = lambda _: True) -> dict[str, Any]:
        """Rates of the last minute, per version that `allows` allows."""
        self._forget()
        found: dict[str, dict[str, float]] = {}
        for _, visit in self._recent:
            if visit.version and allows(visit.version):
                told = found.setdefault(visit.version, {"requests": 0, "errors": 0, "tokens": 0, "seconds": 0.0})
                told["requests"] += 1
                told["errors"] += visit.status >= 400
                told["tokens"] += visit.completion_tokens
                told["seconds"] += visit.total
        return {"window": WINDOW, "versions": found}

    def _forget(self) -> None:
        while self._recent and self._recent[0][0] < time.monotonic() - WINDOW:
            self._recent.popleft()

    def _drop_silent(self) -> None:
        """Replicas that are no more."""
        for labels, heard in list(self._heard.items()):
            if heard < time.monotonic() - FRESH:
                del self._heard[labels]
                for gauge in self._engines.values():
                    gauge.remove(*labels)
