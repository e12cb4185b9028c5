"""Many chats answered at once say what each says alone."""

from pathlib import Path

import pytest
import torch

from ftlib.config import ModelSection
from ftlib.evaluation.answers import answers
from ftlib.models.base import load_model, load_tokenizer

BEFORE = [{"role": "user", "content": "The apple is red."}, {"role": "assistant", "content": "It is red."}]


@pytest.mark.parametrize("before", [BEFORE, []], ids=["a common beginning", "none"])
def test_they_are_those_of_generate(before: list[dict[str, str]], base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of other lengths than their neighbours, several batches of them."""
    monkeypatch.setattr("ftlib.evaluation.answers.ROWS", 8)
    section = ModelSection(name_or_path=str(base))
    model, tokenizer = load_model(section).eval(), load_tokenizer(section)
    asked = ["a" * (n % 7) + " car " * (n % 3) + str(n) for n in range(19)]
    chats = [
        [*before, {"role": "user" if n % 2 or before else "system", "content": question}]
        for n, question in enumerate(asked)
    ]
    found = answers(model, tokenizer, chats, 6)
    for chat, said in zip(chats, found, strict=True):
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        assert said == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
