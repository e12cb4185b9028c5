"""Asking a teacher: within its bounds and its budget, each answer paid for once, whatever the teacher does."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftlib.config.recipe.teacher import TeacherSection
from ftlib.curate.teachers.answering import answered
from ftlib.curate.teachers.purse import Purse
from ftlib.curate.teachers.request import Missing, Reply, Request
from ftlib.errors import ConfigError, FtlibError, InputError
from ftlib.evaluation import chat_url
from tests.curate.teachers.server import HUGE, READ, WRITTEN, Server


def section(server: Server, **more: Any) -> TeacherSection:
    return TeacherSection.model_validate({"model": server.url, "name": "m", **more})


def requests_of(teacher: TeacherSection, count: int, **more: Any) -> list[Request]:
    turns = [({"role": "user", "content": f"row {number}"},) for number in range(count)]
    return [Request(teacher, one, **{"max_tokens": 20, **more}) for one in turns]


def asked(teacher: TeacherSection, count: int, purse: Purse | None = None, **more: Any) -> list[Reply | Missing]:
    return answered(teacher, requests_of(teacher, count, **more), purse or Purse())


def test_answers_come_in_order_and_are_paid_for_once(server: Server) -> None:
    server.reply = lambda body: body["messages"][-1]["content"].upper()
    teacher = section(server)
    found = asked(teacher, 9)
    assert [one.text for one in found if isinstance(one, Reply)] == [f"ROW {number}" for number in range(9)]
    assert found[0] == Reply("ROW 0", "", READ, WRITTEN)
    assert asked(teacher, 9) == found
    assert len(server.asked) == 9
    asked(teacher, 9, temperature=0.5)  # other sampling is another answer
    assert len(server.asked) == 18
    assert "seed" in server.asked[-1]
    assert "seed" not in server.asked[0]
    answered(teacher, requests_of(teacher, 2) + requests_of(teacher, 2, max_tokens=21) * 3, Purse())
    assert len(server.asked) == 20  # the same request twice is one


def test_no_more_are_under_way_than_the_section_says(server: Server) -> None:
    server.slow = 0.02
    asked(section(server, concurrency=3), 12)
    assert server.most == 3


def test_a_rate_spreads_requests(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("ftlib.curate.teachers.at_url.time.sleep", waited.append)
    asked(section(server, requests_per_minute=60, concurrency=1), 4)
    assert [round(pause) for pause in waited if pause] == [1, 2, 3]  # they are not waited for here


def test_a_server_with_one_model_needs_no_name(server: Server) -> None:
    asked(section(server, name=None), 1)
    assert server.asked[0]["model"] == "m"
    server.models = ["a", "b"]
    with pytest.raises(InputError, match=r"has 2 models \(a, b\): name one"):
        asked(section(server, name=None, concurrency=2), 3)


def test_a_key_goes_to_its_host(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another server's")
    monkeypatch.setenv("TEACHER_KEY", "secret")
    asked(section(server), 1)
    asked(section(server, api_key_env="TEACHER_KEY"), 2)
    assert server.keys == {None, "Bearer secret"}
    with pytest.raises(ConfigError, match="names NO_KEY, which the environment does not have"):
        asked(section(server, api_key_env="NO_KEY"), 1)


@pytest.mark.parametrize("at_once", [1, 5])
def test_a_budget_is_not_passed_and_ends_at_the_same_row(server: Server, at_once: int) -> None:
    """Each answer takes 50 tokens; a request is begun where it fits at its dearest, 105 tokens here."""
    teacher = section(server, concurrency=at_once)
    purse = Purse(tokens=500)
    found = asked(teacher, 20, purse)
    answers = [one for one in found if isinstance(one, Reply)]
    assert len(answers) == 8
    assert found[8:] == [Missing("budget", "the budget has ended")] * 12
    assert purse.spent[0] == 400
    assert len(server.asked) == 8
    more = Purse(tokens=1000)
    assert asked(teacher, 20, more)[:8] == answers
    assert more.spent[0] <= 1000
    assert len(server.asked) == len([1 for one in asked(teacher, 20, Purse(tokens=1000)) if isinstance(one, Reply)])


def test_money_is_counted_by_the_prices(server: Server) -> None:
    purse = Purse(money=0.01, prices=(1e-5, 2e-5))
    asked(section(server), 20, purse)
    assert purse.spent[1] == pytest.approx(math.fsum([READ * 1e-5 + WRITTEN * 2e-5] * (purse.spent[0] // 50)))
    assert 0.008 < purse.spent[1] <= 0.01


def test_what_passes_is_asked_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(chat_url.time, "sleep", pauses.append)
    server.retry_after = "7"
    replies = iter([429, 503, "fine"])
    server.reply = lambda body: next(replies)
    assert asked(section(server), 1) == [Reply("fine", "", READ, WRITTEN)]
    assert [pause for pause in pauses if pause] == [7.0, pytest.approx(0.002)]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (429, "answers 429"),
        (401, "answers 401"),
        (b"<html>hello", "no chat completion"),
        (b'{"choices": [{"message": {"content"', "no chat completion"),  # half an answer
        (b"[" * 100_000, "no chat completion"),
        ({"role": "assistant", "content": None}, "no chat completion"),
    ],
)
def test_a_bad_teacher_ends_the_step_in_a_sentence(server: Server, reply: Any, said: str) -> None:
    teacher = section(server)
    good = asked(teacher, 3)
    server.reply = lambda body: reply
    with pytest.raises(FtlibError, match=rf"{said}\. The answers so far are kept: build again to go on\."):
        asked(teacher, 100)
    assert len(server.asked) < 60
    server.reply = lambda body: "fine"
    assert asked(teacher, 3) == good
    assert all(isinstance(one, Reply) for one in asked(teacher, 100))


def test_one_bad_answer_is_one_row(server: Server) -> None:
    server.reply = lambda body: 400 if body["messages"][-1]["content"] == "row 2" else "fine"
    found = asked(section(server), 5)
    assert found[2] == Missing("no_answer", "127.0.0.1 answers 400")
    assert [isinstance(one, Reply) for one in found] == [True, True, False, True, True]


def test_an_answer_of_500_megabytes_is_not_read(server: Server) -> None:
    server.reply = lambda body: "huge" if body["messages"][-1]["content"] == "row 0" else "fine"
    found = asked(section(server), 2)
    assert found[0] == Missing("no_answer", "a reply is larger than 1 MB or takes longer than 5 minutes")
    assert server.sent < HUGE / 20


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(chat_url, "PAUSE", 0.001)
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path))
    for name in (None, "m"):
        teacher = TeacherSection(model="http://127.0.0.1:9/v1", name=name)
        with pytest.raises(FtlibError, match=r"the teacher http://127.0.0.1:9/v1 does not answer: .*ConnectionError"):
            asked(teacher, 20)


KILLED = """
import sys
from tests.curate.teachers.test_answering import TeacherSection, asked
asked(TeacherSection(model=sys.argv[1], name="m", concurrency=1), 30)
"""


def test_answers_outlive_a_kill(server: Server) -> None:
    stuck: list[int] = []

    def reply(body: dict[str, Any]) -> str:
        if body["messages"][-1]["content"] == "row 5" and not stuck:
            stuck.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)
        return "fine"

    server.reply = reply
    process = subprocess.Popen([sys.executable, "-c", KILLED, server.url])
    process.wait()
    assert process.returncode == -signal.SIGKILL
    before = len(server.asked)
    assert all(isinstance(one, Reply) for one in asked(section(server), 30))
    assert (before, len(server.asked)) == (6, 31)  # the one on its way was asked again


def test_a_damaged_answer_is_asked_again(server: Server, tmp_path: Path) -> None:
    asked(section(server), 1)
    (file,) = (tmp_path / "home" / "data" / "answers").rglob("*.json")
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("{")
    assert isinstance(asked(section(server), 1)[0], Reply)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"model": "folder", "name": "m"}, "name is for a URL, and model 'folder' is none"),
        ({"model": "http://h/v1", "max_cost": 1}, "max_cost needs price_per_million"),
        ({"model": "https://me:secret@h/v1"}, "a URL with a password, and the recipe is kept"),
    ],
)
def test_sections_are_checked(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TeacherSection.model_validate(tree)
