"""Votes on pairs: kept, resumed, blind on both sides, and summed up with what is chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftlib.errors import DataError, FtlibError, InputError
from ftlib.evaluation import votes
from ftlib.evaluation.pairs import Pair, Pairs, pairs, pairs_of_run
from ftlib.evaluation.votes import Booth, summed
from tests.conftest import write_jsonl


def twenty() -> Pairs:
    made = [Pair(({"role": "user", "content": f"q{n}"},), f"a{n}", f"b{n}") for n in range(20)]
    return Pairs("base", "winner", tuple(made))


def judge(booth: Booth, voter: str, wants: str, most: int = 99) -> list[str]:
    """Votes for the answer that begins with `wants`; the prompts in the order in which they were shown."""
    seen = []
    while len(seen) < most and (shown := booth.next(voter)) is not None:
        booth.vote(voter, shown.pair.id, "left" if shown.left.startswith(wants) else "right")
        seen.append(shown.pair.prompt[0]["content"])
    return seen


def test_a_vote_is_for_the_answer_that_was_seen_on_that_side(tmp_path: Path) -> None:
    booth = Booth(twenty(), tmp_path / "votes.jsonl")
    seen = judge(booth, "ana", "b")
    assert sorted(seen) == sorted(f"q{n}" for n in range(20))
    assert seen != [f"q{n}" for n in range(20)]
    rows = [json.loads(line) for line in (tmp_path / "votes.jsonl").read_text().splitlines()]
    assert {row["choice"] for row in rows} == {"b"}
    assert 4 <= sum(row["left"] == "a" for row in rows) <= 16  # either one is on the left
    assert (rows[0]["a"], rows[0]["b"], rows[0]["voter"]) == ("base", "winner", "ana")
    assert booth.summary().overall == votes.Tally(0, 20, 0)


def test_who_comes_back_goes_on_and_all_see_one_order(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    first = judge(Booth(twenty(), file), "ana", "a", most=7)
    rest = judge(Booth(twenty(), file), "ana", "a")
    assert (len(first), len(rest)) == (7, 13)
    assert judge(Booth(twenty(), file), "ben", "b") == first + rest


def test_the_last_vote_on_a_pair_counts(tmp_path: Path) -> None:
    booth = Booth(twenty(), tmp_path / "votes.jsonl")
    assert booth.before("ana") is None
    judge(booth, "ana", "a", most=3)
    again = booth.before("ana")
    assert again is not None
    assert again.judged == 2
    booth.vote("ana", again.pair.id, "tie")
    assert booth.summary().overall == votes.Tally(2, 0, 1)
    assert booth.before("ana") == again


def test_every_vote_is_on_the_disk_when_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Any] = []
    monkeypatch.setattr("os.fsync", synced.append)
    judge(Booth(twenty(), tmp_path / "votes.jsonl"), "ana", "a", most=3)
    assert len(synced) == 6  # each time the file, and its folder


def test_a_line_cut_by_a_kill_is_no_vote_and_other_comparisons_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    judge(Booth(twenty(), file), "ana", "a", most=2)
    file.write_text(file.read_text() + json.dumps({"voter": "ana", "pair": "0" * 16, "choice": "b"}) + '\n{"voter": "a')
    booth = Booth(twenty(), file)
    assert booth.summary().overall == votes.Tally(2, 0, 0)
    judge(booth, "ana", "a", most=1)
    assert booth.summary().overall == votes.Tally(3, 0, 0)
    file.write_text('{"voter": "ana", "pair": "x", "choice": "c"}\n')
    with pytest.raises(FtlibError, match="line 1: it is no vote"):
        Booth(twenty(), file)


def test_what_is_no_vote_is_refused(tmp_path: Path) -> None:
    booth = Booth(twenty(), tmp_path / "votes.jsonl")
    pair = twenty().pairs[0].id
    for voter, where, side in (("", pair, "left"), ("a\nb", pair, "left"), ("ana", "x", "left"), ("ana", pair, "a")):
        with pytest.raises(InputError):
            booth.vote(voter, where, side)
    assert not (tmp_path / "votes.jsonl").exists()


def test_a_pair_is_one_unit_however_many_have_judged_it() -> None:
    ana = {"1": "b", "2": "b", "3": "a", "4": "tie"}
    ben = {"1": "b", "2": "a", "3": "a"}
    said = summed("base", "winner", {"ana": ana, "ben": ben})  # type: ignore[arg-type]
    assert said.overall == votes.Tally(1, 1, 2)
    assert said.voters["ana"] == votes.Tally(1, 2, 1)
    assert [(found.voters, found.pairs) for found in said.agreements] == [(("ana", "ben"), 3)]
    assert said.agreements[0].kappa == pytest.approx((2 / 3 - 4 / 9) / (5 / 9))
    assert said.lines() == [
        "winner against base: wins 50.0 % (9.5 to 90.5) of those decided: 1 win, 1 loss, 2 ties in 4 pairs",
        "ana: wins 66.7 % (20.8 to 93.9) of those decided: 2 wins, 1 loss, 1 tie in 4 pairs",
        "ben: wins 33.3 % (6.1 to 79.2) of those decided: 1 win, 2 losses, 0 ties in 3 pairs",
        "ana and ben: Cohen's kappa 0.40 on 3 common pairs",
    ]
    assert summed("base", "winner", {}).lines() == ["no votes yet"]
    assert summed("a", "b", {"ana": {"1": "tie"}}).lines() == ["b against a: 0 wins, 0 losses, 1 tie in 1 pair"]


def test_answers_are_paired_by_their_prompts(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "two"}]
    ours = [("one", "1"), (chat, "2"), ("one", "again"), ("alone", "x"), ("same", "s")]
    theirs = [("two", "zwei"), ("one", "eins"), ("same", "s"), ("one", "nochmal")]
    files = [
        write_jsonl(tmp_path / name, [{"prompt": prompt, "answer": answer} for prompt, answer in rows])
        for name, rows in (("ours.jsonl", ours), ("theirs.jsonl", theirs))
    ]
    files[0].write_text(files[0].read_text().rstrip("\n"))  # a last line without its end is a line
    found = pairs(*map(str, files))
    assert (found.a, found.b, found.unpaired) == ("ours", "theirs", 1)
    assert [(pair.a, pair.b) for pair in found.pairs] == [
        ("1", "eins"),
        ("2", "zwei"),
        ("again", "nochmal"),
        ("s", "s"),
    ]
    assert len(found.open) == 3


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "x"}', "line 2: there is no text under 'answer'"),
        ('{"prompt": [], "answer": "x"}', "line 2: 'prompt' is neither a text nor a chat"),
        ('{"prompt": [{"role": "user"}], "answer": "x"}', "line 2: 'prompt' is neither"),
        ("[1]", "line 2: there is no text"),
        ("{", "line 2: it is no JSON"),
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path: Path, line: str, says: str) -> None:
    good = write_jsonl(tmp_path / "good.jsonl", [{"prompt": "x", "answer": "y"}])
    bad = tmp_path / "bad.jsonl"
    bad.write_text(f'{{"prompt": "x", "answer": "y"}}\n{line}\n')
    with pytest.raises(DataError, match=f"bad.jsonl, {says}"):
        pairs(str(good), str(bad))


def test_files_without_a_common_prompt_or_a_difference_are_refused(tmp_path: Path) -> None:
    one, two = (write_jsonl(tmp_path / f"{name}.jsonl", [{"prompt": name, "answer": "y"}]) for name in ("one", "two"))
    with pytest.raises(InputError, match="no prompt in common"):
        pairs(str(one), str(two))
    with pytest.raises(InputError, match="nothing to judge"):
        Booth(pairs(str(one), str(one)), tmp_path / "votes.jsonl")
    with pytest.raises(InputError, match="is no file"):
        pairs(str(one), str(tmp_path / "nowhere.jsonl"))


def test_two_contenders_of_a_run(tmp_path: Path) -> None:
    rows = [
        {
            "task": task,
            "contender": who,
            "row": n,
            "prompt": [{"role": "user", "content": f"q{n}"}],
            "answer": f"{who}{n}",
        }
        for task in ("tickets", "general")
        for who in ("base", "winner")
        for n in range(3)
    ]
    write_jsonl(tmp_path / "answers.jsonl", rows)
    found = pairs_of_run(tmp_path, ["base", "winner"], "tickets")
    assert [(pair.a, pair.b) for pair in found.pairs] == [(f"base{n}", f"winner{n}") for n in range(3)]
    for contenders, task, says in (
        (["base", "winner"], None, "--task: name one of tickets, general"),
        (["base", "winner"], "ticket", "Did you mean 'tickets'"),
        (["base", "winer"], "tickets", "Did you mean 'winner'"),
        (["base"], "tickets", "give two of base, winner"),
    ):
        with pytest.raises(InputError, match=says):
            pairs_of_run(tmp_path, contenders, task)
    with pytest.raises(InputError, match=r"has no answers\.jsonl"):
        pairs_of_run(tmp_path / "elsewhere", ["base", "winner"])
