"""What a teacher is asked, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass

from ftlib.config.recipe.teacher import TeacherSection
from ftlib.curate.store import key_of

Turn = dict[str, str]

FRAME = 64  # tokens that a chat template may put around messages
PER_TURN = 16
BYTES = 4  # of a text that are about a token


@dataclass(frozen=True)
class Request:
    """A chat that a teacher goes on with. `seed` is drawn from the row, so that two samples of one chat differ."""

    teacher: TeacherSection
    messages: tuple[Turn, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0

    def key(self, identity: str) -> str:
        """The hash of all that the answer depends on; `identity` is the teacher's."""
        seed = self.seed if self.temperature > 0 else 0
        return key_of("answer", 1, identity, self.messages, self.max_tokens, self.temperature, seed)

    @property
    def most_read(self) -> int:
        """Tokens that the request has at most: a token is a byte at least."""
        return FRAME + sum(PER_TURN + len(turn["content"].encode("utf-8", "replace")) for turn in self.messages)

    @property
    def about_read(self) -> int:
        """Tokens that the request has, about."""
        return sum(PER_TURN + len(turn["content"].encode("utf-8", "replace")) // BYTES for turn in self.messages)


@dataclass(frozen=True)
class Reply:
    """What a teacher wrote. `reasoning` is what it thought, where that stands apart. `read` and `written` are tokens;
    `cut`: it ends because it may not be longer."""

    text: str
    reasoning: str = ""
    read: int = 0
    written: int = 0
    cut: bool = False


@dataclass(frozen=True)
class Missing:
    """There is no reply. `reason` is counted (no_answer, budget), `detail` a part of a sentence."""

    reason: str
    detail: str = ""


Answered = Reply | Missing
