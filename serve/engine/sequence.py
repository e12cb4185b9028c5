"""One answer on its way: its prompt, how it is drawn, what it has said, and why it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from serve.engine.messages import FinishReason, Piece, Refusal, TokenLogprob
from serve.engine.sampling import Drawn, Sampling
from serve.engine.slots import Adapter
from serve.engine.text import Spelling, TextStream

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
    spelling: Spelling | None = None  # where log-probabilities are told
    client: str = ""  # who asks, by the name of its key
    finish_reason: FinishReason | None = None
    refusal: Refusal | None = None
    tokens: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._text = TextStream(self.decode, self.stop)
        # No one asks for text before the end, nor for what each token made of it.
        self._whole = not self.streams and not self.stop and self.sampling.logprobs is None
        self._said: list[str] = []
        self._unsettled: list[Drawn] = []  # tokens whose text is not certain yet: parts of a character
        self._told: deque[TokenLogprob] = deque()  # of tokens whose text may not be shown yet
        self._told_of = 0  # characters, of tokens that were told of

    @property
    def owner(self) -> tuple[str | None, str]:
        """Whose prompts this one's beginning may be shared with: one adapter's, of one client."""
        return None if self.adapter is None else self.adapter.id, self.client

    @property
    def ended(self) -> bool:
        return self.finish_reason is not None or self.refusal is not None

    def take(self, drawn: Drawn) -> None:
        """The next token. Sets `finish_reason` when it is the last, or `refusal` when there is none."""
        if drawn.token is None:
            self.refusal = NO_NUMBERS
            return
        self.tokens.append(drawn.token)
        ends = drawn.token in self.ends
        if not (ends or self._whole):
            self._say(self._text.push(drawn.token))
            self._settle(drawn)
        if ends or self._text.stopped:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self.limit:
            self.finish_reason = "length"
        if self.finish_reason is not None:
            self._close(drawn.token)
        if ends and self.sampling.logprobs is not None:
            self._told.append(self._likelihood(drawn, ""))

    def piece(self) -> Piece | None:
        """What is new since the last piece, for whoever reads; None when that is nothing."""
        text, logprobs = "".join(self._said), self._shown()
        if not (text or self.ended or (logprobs and self.streams)):
            return None
        self._said = []
        return Piece(text, self.index, logprobs, self.finish_reason, completion_tokens=len(self.tokens))

    def _shown(self) -> tuple[TokenLogprob, ...]:
        """The tokens whose text has been shown, each once. A stop string cuts the answer, and what is told of it."""
        if not (self.ended or self.streams):
            return ()
        shown = []
        while self._told and self._told_of + len(self._told[0].token) <= self._text.passed_on:
            if self._text.stopped and self._told_of == self._text.passed_on:
                break
            shown.append(self._told.popleft())
            self._told_of += len(shown[-1].token)
        left = self._text.passed_on - self._told_of
        if self._text.stopped and left and self._told:
            shown.append(replace(self._told[0], token=self._told[0].token[:left], raw=None))
            self._told_of += left
        return tuple(shown)

    def _close(self, last: int) -> None:
        if self._whole:
            said = self.tokens[:-1] if last in self.ends else self.tokens
            self._say(self.decode(said))
            return
        self._say(self._text.finish())
        self._settle()
        if self._text.stopped:  # half a character held back can end a stop string
            self.finish_reason = "stop"

    def _say(self, text: str) -> None:
        if text:
            self._said.append(text)

    def _settle(self, *drawn: Drawn) -> None:
        """Gives the text that has become certain to the tokens that it came of: each its own where that is the same,
        and all of it to the last where only together they are a character."""
        if self.sampling.logprobs is None:
            return
        self._unsettled += drawn
        new = self._text.new
        if not new and drawn:
            return
        group, self._unsettled = self._unsettled, []
        own = [self.decode([draw.token]) for draw in group if draw.token is not None]
        texts = own if "".join(own) == new else [""] * (len(group) - 1) + [new]
        self._told += [self._likelihood(draw, text) for draw, text in zip(group, texts, strict=False)]

    def _likelihood(self, drawn: Drawn, text: str) -> TokenLogprob:
        """What is told of a token that made `text` certain."""
        assert drawn.token is not None
        spelling = self.spelling
        if spelling is None:
            return TokenLogprob(text, drawn.logprob, tuple(TokenLogprob(self.decode([t]), p) for t, p in drawn.top))
        top = tuple(TokenLogprob(spelling.alone(t), p, raw=spelling.raw(t)) for t, p in drawn.top)
        return TokenLogprob(text, drawn.logprob, top, spelling.raw(drawn.token))
