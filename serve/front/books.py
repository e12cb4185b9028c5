"""What of a request goes into which log."""

from __future__ import annotations

from pathlib import Path

from ftlib.files.home import home
from serve.engine.messages import Tally
from serve.engine.options import LogOptions
from serve.front.logs import Access, AccessLog, SampleLog
from serve.front.metrics import Visit


class Books:
    """The access log and the sampled log of one Api."""

    def __init__(self, options: LogOptions) -> None:
        folder = Path(options.folder) if options.folder else home() / "logs"
        self._access = AccessLog(folder / "access.jsonl") if options.access else None
        share = options.sample
        self._samples = SampleLog(folder / "samples.jsonl", share, options.redact) if share else None

    def wants_sample(self) -> bool:
        """Whether this request is one of the share that is kept with its text. Ask once a request."""
        return self._samples is not None and self._samples.draws()

    def access(self, visit: Visit) -> None:
        """A request that is over. Never raises."""
        if self._access is not None:
            self._access.write(_line(visit))

    def sample(self, visit: Visit, tally: Tally) -> None:
        """What was asked and said, redacted; the first choice stands for all. Never raises."""
        if self._samples is None or tally.prompt is None:
            return
        first = tally.in_order[0]
        said = [likelihood.logprob for likelihood in first.logprobs]
        sure = sum(said) / len(said) if said else None
        self._samples.write(_line(visit), tally.prompt, first.text, sure, visit.turns)


def _line(visit: Visit) -> Access:
    return Access(
        request_id=visit.id,
        key=visit.key or None,
        model=visit.model,
        version=visit.version or None,
        status=visit.status,
        stream=visit.stream,
        prompt_tokens=visit.prompt_tokens,
        completion_tokens=visit.completion_tokens,
        queue_s=visit.queued or None,
        ttft_s=visit.waited or None,
        total_s=visit.total or None,
        finish_reason=visit.finish_reason,
        error=visit.code,
    )
