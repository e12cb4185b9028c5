"""Many questions answered at once, with drafts, get the answers that each gets alone without any."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from torch.nn.functional import cross_entropy

from ftlib.config import ModelSection
from ftlib.evaluation import greedy
from ftlib.evaluation.answers import Writer, answers, why_not_drafted
from ftlib.evaluation.task import Question, written
from ftlib.models.base import load_model, load_tokenizer
from tests.conftest import ftlib, rows, write_jsonl

BEFORE = ({"role": "user", "content": "The apple is red."}, {"role": "assistant", "content": "It is red."})
MOST = 6


@pytest.fixture(scope="module")
def loaded(base: Path) -> tuple[Any, Any]:
    section = ModelSection(name_or_path=str(base))
    return load_model(section).eval(), load_tokenizer(section)


def questions(before: tuple[dict[str, str], ...] = ()) -> list[Question]:
    """Nineteen, of other lengths than their neighbours."""
    asked = ["a" * (n % 7) + " car " * (n % 3) + str(n) for n in range(19)]
    return [
        Question((*before, {"role": "user", "content": text}), "red" * (n % 4) or "-") for n, text in enumerate(asked)
    ]


def alone(model: Any, tokenizer: Any, question: Question) -> list[int]:
    """The tokens that transformers' own loop writes."""
    text = tokenizer.apply_chat_template(list(question.prompt), tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=MOST, do_sample=False)
    return out[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("before", [BEFORE, ()], ids=["a common beginning", "none"])
@pytest.mark.parametrize("places", [8192, 120], ids=["one pass", "several passes"])
def test_they_are_those_of_generate(
    before: Any, places: int, loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greedy, "PLACES", places)
    model, tokenizer = loaded
    asked = questions(before)
    writer = Writer(tokenizer, tokenizer.chat_template, MOST)
    for question, answer in zip(asked, answers(model, writer, asked), strict=True):
        expected = alone(model, tokenizer, question)
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert answer.tokens == len(expected)


@pytest.mark.parametrize("right", [0, 1, 3, MOST])
def test_a_draft_that_is_right_for_a_while_changes_no_answer(right: int, loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    writer, asked = Writer(tokenizer, tokenizer.chat_template, MOST), questions()
    rows, ends = writer.rows(asked), frozenset({tokenizer.eos_token_id})
    expected = [alone(model, tokenizer, question) for question in asked]
    for row, ids in zip(rows, expected, strict=True):
        row.draft = [*ids[:right], *[7] * (MOST - right)]
    passes: list[int] = []
    decoder = greedy.Decoder(model, ends, tokenizer.pad_token_id, 400, torch.device("cpu"), routed=passes.append)
    decoder.write(rows)
    assert [row.written for row in rows] == expected
    if right == MOST:
        assert len(passes) <= 2  # what all begin with, and the drafts: no token was written alone


def test_what_is_drawn_depends_on_its_own_seed(loaded: tuple[Any, Any]) -> None:
    """Alone and among others the same; another seed is another text; cold, it is the most likely one."""
    model, tokenizer = loaded
    writer, ends = Writer(tokenizer, tokenizer.chat_template, 12), frozenset({tokenizer.eos_token_id})

    def drawn(temperature: float, seed: int, some: slice) -> list[list[int]]:
        rows = writer.rows(questions())[some]
        for row in rows:
            row.draft, row.temperature, row.seed = [], temperature, seed
        greedy.Decoder(model, ends, tokenizer.pad_token_id, 400, torch.device("cpu")).write(rows)
        return [row.written for row in rows]

    whole = drawn(1.0, 1, slice(None))
    assert drawn(1.0, 1, slice(4, 6)) == whole[4:6]
    assert drawn(1.0, 2, slice(None)) != whole
    assert drawn(1e-4, 1, slice(None)) == drawn(0.0, 0, slice(None))


def test_draws_are_as_likely_as_the_model_says() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(1, 1, 3)
    rows = [greedy.Row([], [], 1, temperature=1.0, seed=seed) for seed in range(2000)]
    counts = torch.tensor([greedy._chosen(logits, [row])[0][0] for row in rows]).bincount(minlength=3) / 2000
    assert counts.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.04)


def test_the_reference_has_its_likelihood(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    asked = questions()
    writer = Writer(tokenizer, tokenizer.chat_template, 2, scores=True)
    for question, answer, row in zip(asked, answers(model, writer, asked), writer.rows(asked), strict=True):
        ids = torch.tensor([row.prompt + row.draft])
        logits = model(ids).logits[0, len(row.prompt) - 1 : -1].detach().float()
        assert answer.nll == pytest.approx(float(cross_entropy(logits, torch.tensor(row.draft), reduction="sum")), 1e-4)
        assert answer.nll_tokens == len(tokenizer(question.reference)["input_ids"]) + 1


def test_without_a_template_turns_are_texts_with_blank_lines(loaded: tuple[Any, Any]) -> None:
    """And an answer ends at its first one."""
    _, tokenizer = loaded
    first, several = questions()[3], questions(BEFORE)[3]
    assert written(first.prompt, tokenizer, None) == first.prompt[-1]["content"]
    assert written(several.prompt, tokenizer, None) == (
        f"The apple is red.\n\nIt is red.\n\n{several.prompt[-1]['content']}\n\n"
    )
    writer = Writer(tokenizer, None, MOST)
    rows = writer.rows([first, several, several])
    for row, text in zip(rows, ("It is\n \nred.", "\nIt is\n \nred.", "It\nis"), strict=True):
        row.written = tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = [answer.text for answer in writer.answers(rows, frozenset(), 0.0)]
    assert texts == ["It is\n \nred.", "It is", "It\nis"]


def test_a_base_without_a_template_is_shown_examples(base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    (bare / "chat_template.jinja").unlink()
    asked, shown = write_jsonl(tmp_path / "a.jsonl", rows(4)), write_jsonl(tmp_path / "b.jsonl", rows(9)[4:])
    status, output = ftlib("evaluate", bare, asked, "--few-shot", 2, "--examples", shown, "--out", tmp_path / "out")
    assert status == 0, output
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [line["contender"] for line in lines] == [str(bare)] * 4 + [f"{bare} (few-shot)"] * 4
    assert all("\n\n" not in line["answer"] for line in lines[4:])


def test_an_adapter_with_tokens_of_its_own_answers_too(base: Path, loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    section, asked = ModelSection(name_or_path=str(base)), questions()[:5]
    lora = get_peft_model(load_model(section), LoraConfig(task_type="CAUSAL_LM"))
    prefix = get_peft_model(load_model(section), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()
    assert why_not_drafted(lora) is None
    assert "before the prompt" in str(why_not_drafted(prefix))
    writer = Writer(tokenizer, tokenizer.chat_template, MOST)
    for question, answer in zip(asked, answers(prefix, writer, asked), strict=True):
        assert answer.text == tokenizer.decode(alone(prefix, tokenizer, question), skip_special_tokens=True)
