"""What is drawn is what transformers would draw from, row by row."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from serve.engine.sampling import Sampling, draw

VOCABULARY = 50


def counts(logits: torch.Tensor, how: dict, draws: int = 4000) -> torch.Tensor:
    rows = [Sampling(seed=seed, **how) for seed in range(draws)]
    found = draw(logits.expand(draws, -1), rows)
    return torch.bincount(torch.tensor([drawn.token for drawn in found]), minlength=VOCABULARY) / draws


@pytest.mark.parametrize(
    ("how", "warpers"),
    [
        ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
        ({"temperature": 1.3, "top_k": 5}, [TemperatureLogitsWarper(1.3), TopKLogitsWarper(5)]),
        ({"temperature": 0.9, "top_p": 0.6}, [TemperatureLogitsWarper(0.9), TopPLogitsWarper(0.6)]),
        ({"min_p": 0.2}, [MinPLogitsWarper(0.2)]),
        (
            {"top_k": 20, "top_p": 0.8, "min_p": 0.05},
            [TopKLogitsWarper(20), TopPLogitsWarper(0.8), MinPLogitsWarper(0.05)],
        ),
    ],
)
def test_chances_are_those_of_transformers(how: dict, warpers: list) -> None:
    logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 2
    wanted = logits
    for warper in warpers:
        wanted = warper(None, wanted)
    chances = wanted.softmax(-1)[0]
    found = counts(logits, how)
    assert not found[chances == 0].any()  # what is cut off is never drawn
    assert (found - chances).abs().max() < 0.03


def test_rows_do_not_touch_each_other() -> None:
    logits = torch.randn(4, VOCABULARY)
    mixed = [
        Sampling(temperature=0),
        Sampling(seed=1),
        Sampling(temperature=0, logit_bias={7: 100.0}),
        Sampling(seed=1),
    ]
    before = logits.clone()
    found = draw(logits, mixed)
    assert torch.equal(logits, before)
    assert found[0].token == int(logits[0].argmax())
    assert found[2].token == 7
    again = draw(logits[1:2], [Sampling(seed=1)])
    assert again[0].token == found[1].token


def test_logprobs_are_of_the_model_and_best_first() -> None:
    logits = torch.randn(2, VOCABULARY)
    told, silent = draw(logits, [Sampling(temperature=0.5, seed=3, logprobs=4), Sampling(temperature=0)])
    likely = logits[0].log_softmax(-1)
    assert told.logprob == pytest.approx(float(likely[told.token]))
    assert [value for _, value in told.top] == pytest.approx(likely.topk(4).values.tolist())
    assert math.isnan(silent.logprob)
    assert silent.top == ()


def test_penalties_count_what_was_said() -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 3], logits[0, 5] = 2.0, 1.5
    how = Sampling(temperature=0, frequency_penalty=0.4)
    assert [draw(logits, [how])[0].token for _ in range(4)] == [3, 3, 5, 3]
    once = Sampling(temperature=0, presence_penalty=0.6)
    assert [draw(logits, [once])[0].token for _ in range(3)] == [3, 5, 3]


def test_no_numbers_no_token() -> None:
    logits = torch.full((2, VOCABULARY), float("nan"))
    logits[1] = 0.0
    broken, fine = draw(logits, [Sampling(logprobs=2), Sampling()])
    assert broken.token is None
    assert fine.token is not None
