"""One answer on its way: its prompt, how it is drawn, what it has said, and why it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from serve.adapters import Adapter
from serve.protocol import FinishReason, Piece, Refusal, TokenLogprob
from serve.sampling import Drawn, Sampling
from serve.text import TextStream

NO_NUMBERS = Refusal(
    "The model gave no numbers (NaN) for this prompt: its adapter is broken; roll it back, or promote another.",
    "model",
    "no_numbers",
    422,
)


@dataclass(eq=False)
class Sequence:
    """A row of the batch, before, while and after it is one."""

    prompt: list[int]
    limit: int  # tokens that may be generated
    ends: frozenset[int]
    sampling: Sampling
    decode: Callable[[list[int]], str]
    stop: tuple[str, ...] = ()
    adapter: Adapter | None = None
    index: int = 0  # of the choice
    streams: bool = False  # somebody reads along
    finish_reason: FinishReason | None = None
    refusal: Refusal | None = None
    tokens: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._text = TextStream(self.decode, self.stop)
        self._whole = not self.streams and not self.stop  # no one asks for text before the end
        self._said: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def ended(self) -> bool:
        return self.finish_reason is not None or self.refusal is not None

    def take(self, drawn: Drawn) -> None:
        """The next token. Sets `finish_reason` when it is the last, or `refusal` when there is none."""
        if drawn.token is None:
            self.refusal = NO_NUMBERS
            return
        self.tokens.append(drawn.token)
        if self.sampling.logprobs is not None:
            self._logprobs.append(self._told(drawn))
        if drawn.token in self.ends:
            self.finish_reason = "stop"
        else:
            if not self._whole:
                self._say(self._text.push(drawn.token))
            if self._text.stopped:
                self.finish_reason = "stop"
            elif len(self.tokens) >= self.limit:
                self.finish_reason = "length"
        if self.finish_reason is not None:
            self._close(drawn.token)

    def piece(self) -> Piece | None:
        """What is new since the last piece, for whoever reads; None when that is nothing."""
        text, logprobs = "".join(self._said), tuple(self._logprobs)
        if not (text or self.ended or (logprobs and self.streams)):
            return None
        self._said, self._logprobs = [], []
        return Piece(text, self.index, logprobs, self.finish_reason, completion_tokens=len(self.tokens))

    def _close(self, last: int) -> None:
        if self._whole:
            said = self.tokens[:-1] if last in self.ends else self.tokens
            self._say(self.decode(said))
            return
        self._say(self._text.finish())
        if self._text.stopped:  # half a character held back can end a stop string
            self.finish_reason = "stop"

    def _say(self, text: str) -> None:
        if text:
            self._said.append(text)

    def _told(self, drawn: Drawn) -> TokenLogprob:
        assert drawn.token is not None
        top = tuple((self.decode([token]), value) for token, value in drawn.top)
        return TokenLogprob(self.decode([drawn.token]), drawn.logprob, top)
