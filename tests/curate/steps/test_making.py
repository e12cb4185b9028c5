"""The steps that ask a teacher, over a server of this machine; and copies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftlib.config.recipe import Recipe
from ftlib.config.recipe.making import AugmentStep, GenerateStep, PairsStep
from ftlib.config.recipe.texts import FilterStep
from ftlib.curate.blocks import to_rows
from ftlib.curate.rows import FROM, ID, Row
from ftlib.curate.runner import Build
from ftlib.curate.step import Result
from ftlib.errors import ConfigError, DataError, FtlibError
from tests.curate.conftest import as_rows, write_lines
from tests.curate.steps.test_steps import applied
from tests.curate.teachers.conftest import server
from tests.curate.teachers.server import READ, WRITTEN, Server

__all__ = ["server"]
TEXT = (
    "A pipeline is a sequence of commands that are separated by the operator |. The output of each command goes to the "
    "next."
)
QUESTION = "What is a pipeline in the shell?"
ANSWER = "A pipeline is a sequence of commands, separated by the operator |."


def generated(server: Server, rows: list[Row], kind: str, **more: Any) -> Result:
    teacher = {"model": server.url, "name": "m"}
    return applied("generate", rows, GenerateStep.model_validate({"kind": kind, "teacher": teacher, **more}))


def reasons(result: Result) -> Counter[str]:
    return Counter(note.reason for note in result.dropped)


def last(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def asks(question: str, answer: str = "") -> dict[str, Any]:
    turns = [{"role": "user", "content": question}]
    return {"messages": [*turns, {"role": "assistant", "content": answer}]} if answer else {"prompt": question}


def test_instructions_are_what_the_text_supports(server: Server) -> None:
    good = f"Question: {QUESTION}\nAnswer: {ANSWER}\n"
    pairs = [
        f"Question: {QUESTION} \nAnswer: It is {ANSWER}",
        "Question: Who wrote the shell?\nAnswer: Brian Fox wrote it for the Free Software Foundation in 1989.",
        "Question: What does the text say about commands?\nAnswer: Commands are separated by the operator.",
        "Question: What goes to the next command?\nAnswer: As an AI language model, I cannot say.",
        "Question: Was ist eine Pipeline in der Shell und wozu braucht man sie?\n"
        "Answer: Das ist eine Folge von Befehlen, die durch einen senkrechten Strich getrennt sind.",
        "Question: Which operator separates commands?\nAnswer: Which operator separates commands.",
        "Question: And one too many?\nAnswer: The output of each command.",
    ]
    server.reply = lambda body: good + "\n".join(pairs) if TEXT in last(body) else "I have no idea."
    rows = as_rows({"text": TEXT, "document": "a.pdf", "headings": ["Pipes"]}, {"text": "Other."}, {"text": ""})
    result = generated(server, rows, "instructions", per_chunk=7)
    (row,) = result.kept
    assert row == {ID: row[ID], FROM: "a.jsonl:1", "document": "a.pdf", **asks(QUESTION, ANSWER)}
    assert reasons(result) == {
        "duplicate": 1,
        "support": 1,
        "refers": 1,
        "refusal": 1,
        "language": 1,
        "repeats": 1,
        "format": 2,
    }
    assert len({row[ID], *(note.row[ID] for note in result.dropped)}) == 9
    assert "Write 7 different questions" in server.texts[0]


def test_the_last_pair_of_a_cut_reply_goes(server: Server) -> None:
    text = f"Question: {QUESTION}\nAnswer: {ANSWER}\nQuestion: What goes to the next command?\nAnswer: The output of"
    server.reply = lambda body: {"role": "assistant", "content": text, "finish_reason": "length"}
    result = generated(server, as_rows({"text": TEXT}), "instructions", per_chunk=2)
    assert len(result.kept) == 1
    assert reasons(result) == {"cut": 1}


def test_a_prompt_of_ones_own(server: Server) -> None:
    server.reply = lambda body: "Question: And this?\nAnswer: The output goes on."
    prompt = "Ask {count}, like Answer: The output goes on.\n{text}"
    result = generated(server, as_rows({"body": TEXT}), "instructions", field="body", prompt=prompt, per_chunk=2)
    assert server.texts == [f"Ask 2, like Answer: The output goes on.\n{TEXT}"]
    assert reasons(result) == {"prompt": 1}


def test_questions_are_asked_for_sentences_and_lead_back_to_them(server: Server) -> None:
    said = {
        "A pipeline": "What is a pipeline in the shell?",
        "The output": "What goes to the next command?",
        "The status": "How many legs has a spider?",
        "The shell": "The shell waits.",
        "The commands": "Which operator separates the commands of a pipeline?",
    }
    server.reply = lambda body: next(reply for begin, reply in said.items() if f"Sentence: {begin}" in last(body))
    text = (
        f"{TEXT} The status of it is the status of the last command. The shell waits for all of them before it says so."
        " The commands run in subshells, each of them in one of its own."
    )
    chunk = {"text": text, "document": "a.pdf", "headings": ["3. Basics", "3.2.3 Pipelines"]}
    rows = as_rows(chunk, {"text": "Short."})
    result = generated(server, rows, "questions", per_chunk=9)
    kept = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in result.kept}
    assert set(kept) == {said["A pipeline"], said["The output"]}
    assert kept[said["The output"]] == "The output of each command goes to the next."
    assert reasons(result) == {"support": 1, "format": 2, "elsewhere": 1}
    assert all(row["document"] == "a.pdf" and "text" not in row for row in result.kept)
    assert server.texts[0].startswith("Topic: Basics: Pipelines\nSentence: ")


def test_questions_in_ones_own_words(server: Server) -> None:
    server.reply = lambda body: f"**{QUESTION}**"
    prompt = "{topic}: ask for: {text}"
    result = generated(server, as_rows({"text": TEXT, "document": "a/pipes.pdf"}), "questions", prompt=prompt)
    assert server.texts[0].startswith("pipes: ask for: ")
    assert reasons(result) == {"format": 1}  # it ends without a question mark


def test_self_instruct_shows_other_rows_and_says_so(server: Server) -> None:
    def reply(body: dict[str, Any]) -> str:
        own = last(body).split("Task: ")[1].split("\n")[0]
        return f"Question: {own}\nAnswer: The same.\nQuestion: How far is the moon from us today?\nAnswer: Far away."

    server.reply = reply
    rows = as_rows(*(asks(f"Write a short poem on the number {number}.", "Yes.") for number in range(9)))
    result = generated(server, rows, "self_instruct", per_chunk=2)
    assert len(result.kept) == 18
    assert reasons(result) == {"overlap": 9}
    new = [row for row in result.kept if row not in rows]
    assert all(row[FROM].count("a.jsonl:") == 4 for row in new)
    assert all(text.count("Task: ") == 4 for text in server.texts)


def test_paraphrases_keep_label_and_answer(server: Server) -> None:
    def reply(body: dict[str, Any]) -> str:
        if "same" in last(body):
            return "This stays the same."
        return "My card was charged two times this month."

    server.reply = reply
    rows = as_rows(
        {"text": "I was charged twice in one month.", "label": "billing"},
        asks("Why was I charged twice in a month?", "It is a fault of ours."),
        {"text": "This stays the same.", "label": "x"},
    )
    result = generated(server, rows, "paraphrase")
    new = [row for row in result.kept if row not in rows]
    assert [row.get("label") for row in new] == ["billing", None]
    assert new[1]["messages"][1]["content"] == "It is a fault of ours."
    assert new[1]["messages"][0]["content"] == new[0]["text"] == "My card was charged two times this month."
    assert len(result.kept) == 5
    assert reasons(result) == {"overlap": 1}


def test_there_and_back(server: Server) -> None:
    server.reply = lambda body: "Wo ist es?" if "German" in last(body) else "In what place is it?"
    result = generated(server, as_rows({"text": "Where is it now?"}), "back_translate")
    assert [row["text"] for row in result.kept] == ["Where is it now?", "In what place is it?"]
    assert ["into German" in server.texts[0], "into English" in server.texts[1]] == [True, True]


def test_evolved_questions_get_answers(server: Server) -> None:
    def reply(body: dict[str, Any]) -> str:
        if "Rewrite" in last(body):
            return "How many eggs do eight hens lay in three weeks of summer?"
        return "" if "silent" in last(body) else "They lay about a hundred."

    server.reply = reply
    result = generated(server, as_rows(asks("How many eggs does a hen lay?", "One a day.")), "evolve", keep=False)
    (row,) = result.kept
    assert row["messages"][1]["content"] == "They lay about a hundred."
    server.reply = lambda body: "How many eggs does a duck lay?"
    result = generated(server, as_rows(asks("How many eggs does a duck lay?")), "evolve", keep=False)
    assert reasons(result) == {"overlap": 1}


def test_reasoning_is_kept_where_the_answer_is_right(server: Server) -> None:
    said = iter([
        {"role": "assistant", "content": "Answer: 42", "reasoning_content": "Six times seven."},
        "Six and seven.\nAnswer: 13",
        "<think>6 * 7</think>We multiply.\nAnswer: $42",
    ])  # fmt: skip
    server.reply = lambda body: next(said)
    rows = as_rows(asks("What is 6 times 7?", "6 * 7 = 42 #### 42"))
    result = generated(server, rows, "reasoning", per_chunk=3, temperature=1.0)
    assert [row["messages"][1] for row in result.kept] in (
        [{"role": "assistant", "content": "42", "reasoning_content": "Six times seven."},
         {"role": "assistant", "content": "$42", "reasoning_content": "6 * 7\n\nWe multiply."}],
        [{"role": "assistant", "content": "$42", "reasoning_content": "6 * 7\n\nWe multiply."},
         {"role": "assistant", "content": "42", "reasoning_content": "Six times seven."}],
    )  # fmt: skip
    assert [note.reason for note in result.dropped] == ["wrong"]
    server.reply = lambda body: "It is big.\nAnswer: Paris"
    rows = as_rows(asks("Which city is the capital?", "Paris"), asks("Which city?"))
    result = generated(server, rows, "reasoning", reasoning="answer")
    assert result.kept[0]["messages"][1] == {"role": "assistant", "content": "It is big.\n\nParis"}
    assert reasons(result) == {"format": 1}


def test_answers_take_the_place_of_those_that_are_there(server: Server) -> None:
    server.reply = lambda body: "Sorry, no." if "bad" in last(body) else "New."
    rows = as_rows(asks("good?", "Old."), {"instruction": "bad?", "output": "Old."}, {"text": "x", "label": "y"})
    result = generated(server, rows, "answers")
    assert [row.get("messages", [{}])[-1].get("content") for row in result.kept] == ["New.", "New."]
    assert reasons(result) == {"refusal": 1}


def paired(rows: list[Row], **keys: Any) -> Result:
    return applied("pairs", rows, PairsStep.model_validate(keys))


def test_the_judge_chooses(server: Server) -> None:
    def reply(body: dict[str, Any]) -> str:
        if body["messages"][0]["role"] == "system":
            return json.dumps({"score": 9 if "long and good" in last(body) else 2})
        if "same" in last(body):
            return f"Bad {body['temperature']}."
        return "A long and good answer." if body["temperature"] > 0.5 else "Bad."

    server.reply = reply
    teacher = {"model": server.url, "name": "m"}
    judge = {"model": server.url, "name": "judge"}
    result = paired(as_rows(asks("Which?", "This."), asks("same?")), teacher=teacher, judge=judge)
    (row,) = result.kept
    assert row["prompt"] == [{"role": "user", "content": "Which?"}]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("A long and good answer.", "Bad.")
    assert [(note.reason, note.detail) for note in result.changed] == [("chosen_longer", "23 and 4 characters")]
    assert reasons(result) == {"equal": 1}
    assert {body["model"] for body in server.asked} == {"m", "judge"}
    assert "RIGHT ANSWER" in next(last(body) for body in server.asked if body["model"] == "judge")


def test_a_metric_chooses(server: Server) -> None:
    server.reply = lambda body: "LOUD" if body["temperature"] > 0.5 else "quiet"
    teacher = {"model": server.url, "name": "m"}
    result = paired(as_rows(asks("Which?")), teacher=teacher, metric={"type": "regex", "pattern": "^[a-z]+$"})
    (row,) = result.kept
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("quiet", "LOUD")
    server.reply = lambda body: "quiet"
    result = paired(as_rows(asks("And?")), teacher=teacher, metric={"type": "regex", "pattern": "^[a-z]+$"})
    assert reasons(result) == {"equal": 1}  # two answers that are one
    server.reply = lambda body: {"role": "assistant", "content": "And so", "finish_reason": "length"}
    result = paired(as_rows(asks("Long?")), teacher=teacher, metric={"type": "regex", "pattern": "^[a-z]+$"})
    assert reasons(result) == {"cut": 1}
    with pytest.raises(ConfigError, match="cannot be imported|no_such"):
        paired(as_rows(asks("And?")), teacher=teacher, metric={"type": "function", "function": "no_such_module:f"})


def test_a_weaker_model_is_rejected(server: Server) -> None:
    server.reply = lambda body: "Weak." if body["model"] == "small" else "Strong."
    weak, strong = {"model": server.url, "name": "small"}, {"model": server.url, "name": "large"}
    result = paired(as_rows(asks("Which?", "Mine."), asks("No answer?")), rejected=weak)
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in result.kept] == [("Mine.", "Weak.")]
    assert reasons(result) == {"format": 1}
    result = paired(as_rows(asks("Which?", "Mine.")), rejected=weak, teacher=strong)
    assert result.kept[0]["chosen"][0]["content"] == "Strong."


def test_a_constitution_revises(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "principles.yaml"
    file.write_text("- Be kind.\n")

    def reply(body: dict[str, Any]) -> str:
        if "Write a better answer" in last(body):
            return "Please go."
        return "It is rude." if "Be kind." in last(body) else "Go!"

    server.reply = reply
    teacher = {"model": server.url, "name": "m"}
    result = paired(as_rows(asks("What now?")), teacher=teacher, constitution=str(file))
    (row,) = result.kept
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("Please go.", "Go!")
    assert "It is rude." in server.texts[-1]
    file.write_text("kind: yes\n")
    with pytest.raises(ConfigError, match="is no list of texts"):
        paired(as_rows(asks("What now?")), teacher=teacher, constitution=str(file))


def test_a_judge_filters_what_other_conditions_leave(server: Server) -> None:
    server.reply = lambda body: (
        "hm" if "odd" in last(body) else '{"score": 8}' if "good" in last(body) else '{"score": 3}'
    )
    judge = {"model": server.url, "name": "j"}
    settings = FilterStep.model_validate(
        {"min_chars": 3, "quality": {"judge": judge, "at_least": 7, "rubric": "Is it?"}}
    )
    texts = [{"text": text, "label": "l"} for text in ("a good one", "a bad one", "x", "an odd one")]
    result = applied("filter", as_rows(*texts), settings)
    assert [row["text"] for row in result.kept] == ["a good one"]
    assert [(note.reason, note.detail) for note in result.dropped if note.reason == "quality"] == [
        ("quality", "3 of 10")
    ]
    assert reasons(result) == {"quality": 1, "no_score": 1, "min_chars": 1}
    assert len(server.asked) == 3


def test_a_recipe_gives_the_same_bytes_and_asks_once(
    server: Server, tmp_path: Path, made: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftlib.curate.blocks.BLOCK_ROWS", 4)
    server.reply = lambda body: f"Said {len(server.asked)}: " + last(body)[::-1]
    write_lines(tmp_path / "t.jsonl", [{"prompt": f"Question {number}?"} for number in range(10)])
    step = {"generate": {"kind": "answers", "teacher": {"model": server.url, "name": "m"}}}
    first = rows_of(made(tmp_path / "t.jsonl", step))
    again = rows_of(made(tmp_path / "t.jsonl", step, storage=str(tmp_path / "other")))
    assert first == again
    assert len(first) == len(server.asked) == 10


def test_the_cost_is_known_before(server: Server, tmp_path: Path) -> None:
    from ftlib.driver.data_build import expected

    write_lines(tmp_path / "t.jsonl", [{"text": TEXT}] * 4)
    teacher = {"model": server.url, "name": "m", "price_per_million": [1000, 2000], "max_cost": 3}
    steps = [{"filter": {"min_chars": 9}}, {"generate": {"kind": "evolve", "teacher": teacher, "max_tokens": 50}},
             {"pairs": {"rejected": server.url}}]  # fmt: skip
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps({"name": "t", "from": [str(tmp_path / "t.jsonl")], "steps": steps}))
    told = expected(str(recipe))
    assert told[0].startswith("generate: 8 requests to m: about ")
    assert "at most 400 to write. That costs at most about " in told[0]
    assert told[0].endswith("The budget is 3.00.")
    assert told[1:] == ["pairs: is known once generate is done: build, and look again."]
    assert not server.asked
    recipe.write_text(json.dumps({"name": "t", "from": [str(tmp_path / "t.jsonl")], "steps": steps[:1]}))
    assert expected(str(recipe)) == ["no step of the recipe asks a model: building it costs nothing."]


def test_a_budget_leaves_rows_out_and_says_so(server: Server, tmp_path: Path, made: Callable[..., Build]) -> None:
    from ftlib.driver.data_build import unanswered

    write_lines(tmp_path / "t.jsonl", [{"prompt": f"Question {number}?"} for number in range(20)])
    teacher = {"model": server.url, "name": "m", "max_total_tokens": 400}
    step = {"generate": {"kind": "answers", "teacher": teacher, "max_tokens": 20}}
    built = made(tmp_path / "t.jsonl", step)
    assert len(server.asked) * (READ + WRITTEN) <= 400
    assert built.rows == len(server.asked) == 6
    assert built.counts["generate"]["dropped"] == {"budget": 14}
    assert list(unanswered(built.counts)) == [
        "steps: generate: its budget has ended: 14 rows are left out. A larger budget goes on there: the answers so "
        "far are kept."
    ]
    larger = {"generate": {**step["generate"], "teacher": {**teacher, "max_total_tokens": 10_000}}}
    assert made(tmp_path / "t.jsonl", larger).rows == 20
    assert len(server.asked) == 20


def test_a_teacher_that_breaks_down_loses_nothing(server: Server, tmp_path: Path, made: Callable[..., Build]) -> None:
    answered: list[str] = []

    def reply(body: dict[str, Any]) -> str | int:
        if len(answered) >= 12:
            return 503
        answered.append(last(body))
        return "fine"

    server.reply = reply
    write_lines(tmp_path / "t.jsonl", [{"prompt": f"Question {number}?"} for number in range(20)])
    step = {"generate": {"kind": "answers", "teacher": {"model": server.url, "name": "m"}}}
    with pytest.raises(FtlibError, match="answers 503. The answers so far are kept: build again to go on"):
        made(tmp_path / "t.jsonl", step)
    server.asked.clear()
    server.reply = lambda body: "fine"
    assert made(tmp_path / "t.jsonl", step).rows == 20
    assert len(server.asked) == 20 - len(answered)
    server.reply = lambda body: "Nonsense."
    with pytest.raises(DataError, match=r"after generate no row is left \(20 format\)"):
        made(tmp_path / "t.jsonl", {"generate": {**step["generate"], "kind": "self_instruct", "keep": False}})


def test_copies_are_drawn_row_by_row(tmp_path: Path) -> None:
    rows = as_rows(*({"text": f"Please help me with the order {number}", "label": "help"} for number in range(50)))
    rows += as_rows({"messages": asks("Please help me here", "Please wait for help")["messages"]})
    file = tmp_path / "words.yaml"
    file.write_text("help: [assist, support]\n")
    settings = AugmentStep.model_validate({"typos": 0.5, "case": 1.0, "synonyms": 0.2, "thesaurus": str(file)})
    result = applied("augment", rows, settings, blocks=3)
    assert applied("augment", rows, settings, blocks=1) == result
    copies = [row for row in result.kept if row not in rows]
    assert 50 < len(copies) < 51 * 3
    assert {row.get("label") for row in copies} == {"help", None}
    assert all(row["messages"][1]["content"] == "Please wait for help" for row in copies if "messages" in row)
    assert len({row[ID] for row in result.kept[:-5]}) == len(result.kept[:-5])
    assert any("assist" in row.get("text", "") or "support" in row.get("text", "") for row in copies)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"augment": {}}, "say one of typos, case, synonyms"),
        ({"augment": {"synonyms": 0.1}}, "synonyms needs thesaurus, .*WordNet is a download"),
        ({"generate": {"kind": "answers", "teacher": "m", "min_support": 0.1}}, "min_support is for instructions"),
        ({"generate": {"kind": "answers", "teacher": "m", "prompt": "hi"}}, r"prompt needs \{text\}"),
        ({"generate": {"kind": "evolve", "teacher": "m", "prompt": "{text} {hw}"}}, r"Did you mean 'how'"),
        ({"generate": {"kind": "evolv", "teacher": "m"}}, "kind"),
        ({"pairs": {"teacher": "m"}}, "say one of judge, metric, rejected, constitution, not none"),
        ({"pairs": {"judge": "http://h/v1"}}, "judge needs teacher"),
        ({"pairs": {"teacher": "m", "metric": "number", "temperatures": [0]}}, "gives the same answer each time"),
    ],
)
def test_bad_settings_are_refused_by_name(step: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Recipe.parse({"name": "t", "from": ["a.csv"], "steps": [step]})


def rows_of(built: Build) -> list[Row]:
    return [row for block in built.blocks for row in to_rows(built.store.get(block.key))]
