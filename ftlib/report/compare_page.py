"""The page of `ftlib compare`: two answers side by side, without a name, and three keys. `compare.html` shows them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ftlib.evaluation.votes import Booth, Shown, check_voter
from ftlib.report.loopback import Question, served

PAGE = Path(__file__).with_name("compare.html")


def judged(booth: Booth, voter: str | None = None, port: int = 0) -> AbstractContextManager[str]:
    """Within, the page is at the URL that this gives. It asks who votes, unless there is a `voter`.

    Raises InputError for a name that is none, and for a port that is taken.
    """
    if voter is not None:
        check_voter(voter)

    def vote(asked: Question) -> dict[str, Any]:
        booth.vote(asked.get("voter", ""), str(asked.get("pair")), str(asked.get("side")))
        return _told(booth.next(asked["voter"]))

    answers = {
        "begin": lambda asked: {"voter": voter},
        "next": lambda asked: _told(booth.next(asked.get("voter", ""))),
        "back": lambda asked: _told(booth.before(asked.get("voter", "")) or booth.next(asked["voter"])),
        "vote": vote,
    }
    return served(PAGE.read_text(encoding="utf-8"), answers, port)


def _told(shown: Shown | None) -> dict[str, Any]:
    """What the page hears: nothing of it says whose an answer is."""
    if shown is None:
        return {"over": True}
    prompt = [{"role": turn["role"], "content": turn["content"]} for turn in shown.pair.prompt]
    told = {"pair": shown.pair.id, "prompt": prompt, "left": shown.left, "right": shown.right}
    return {**told, "judged": shown.judged, "total": shown.total}
