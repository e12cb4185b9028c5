"""What sequences begin with alike is computed once, and gives the losses and the gradients of what stands apart."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, MistralConfig

from ftlib.methods.pack_losses import Tokens
from ftlib.pack.gather import Gather
from ftlib.pack.prefix_trie import LEAST, PAYS, apart, together
from ftlib.pack.span_attention import ATTENTION, laid_out
from ftlib.pack.token_layout import BLOCK, Block, Layout

CPU = torch.device("cpu")


def drawn(draw: random.Random, count: int, vocabulary: int = 50) -> list[np.ndarray]:
    """Sequences that branch from each other anywhere: some the same, some the beginning of another, some of nothing
    else."""
    found = [[draw.randrange(vocabulary) for _ in range(draw.randint(1, 70))]]
    while len(found) < count:
        kept = draw.choice(found)[: draw.choice([0, 1, 20, 40, 100])]
        found.append([*kept, *(draw.randrange(vocabulary) for _ in range(draw.choice([0, 1, 5, 30])))] or [0])
    return [np.asarray(ids) for ids in draw.sample(found, count)]


@pytest.mark.parametrize("seed", range(40))
def test_each_sequence_reads_its_own_tokens(seed: int) -> None:
    draw = random.Random(seed)
    sequences = drawn(draw, draw.randint(1, 12), draw.choice([2, 50]))
    standing = together(sequences)
    ids = np.full(standing.places, -1)
    for places, sequence in zip(standing.of, sequences, strict=True):
        assert all(ids[places][ids[places] >= 0] == sequence[ids[places] >= 0])  # no place has two tokens
        ids[places] = sequence
    assert min(ids) >= 0  # and each has one
    tokens, plain = sum(map(len, sequences)), apart(sequences)
    assert plain.places == tokens
    assert standing.places == tokens or standing.places <= (1 - PAYS) * tokens
    paths = {tuple(places[:end]) for places in standing.of for end in range(1, len(places) + 1)}
    for span in standing.spans:  # a span's path is some sequence's
        assert tuple(span.path) in paths


def test_a_chat_and_pairs_stand_as_a_tree() -> None:
    system, first, second = np.arange(30), np.arange(100, 120), np.arange(200, 225)
    answers = [np.arange(start, start + 10) for start in (300, 400, 500, 600)]
    pairs = [np.concatenate([system, prompt, answer]) for prompt in (first, second) for answer in answers]
    standing = together(pairs)
    assert [(span.depth, span.length) for span in standing.spans] == [
        (0, 30),
        *[(30, 20), *[(50, 10)] * 4],
        *[(30, 25), *[(55, 10)] * 4],
    ]
    assert standing.places == 30 + 20 + 25 + 80


def test_what_saves_little_stands_apart() -> None:
    few, many = np.arange(LEAST // 2), np.arange(LEAST)
    tails = [np.arange(100, 100 + size) for size in (20, 30)]
    assert together([np.concatenate([few, tail + n]) for n, tail in enumerate(tails)]).places == 50 + LEAST
    assert together([np.concatenate([many, tail + n]) for n, tail in enumerate(tails)]).places == 50 + LEAST
    long = [np.concatenate([many, np.arange(n, n + 200)]) for n in (100, 400)]
    assert together(long).places == sum(map(len, long))  # a branching that pays, but not a tenth of all


def test_long_chains_of_beginnings_are_no_recursion() -> None:
    assert together([np.arange(size) for size in range(1, 1500)]).places < 1500 * 20


# --- the computation ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[None, 24], ids=["full", "window"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=request.param,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)


def outcome(model: torch.nn.Module, blocks: Sequence[Block]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of each block, the losses at its picked places; and the gradients of their sum."""
    model.zero_grad()
    layout = Layout.of(blocks, CPU)
    with laid_out(layout):
        hidden = model.model(input_ids=layout.ids, position_ids=layout.positions, use_cache=False).last_hidden_state
        logits = model.lm_head(layout.pick(hidden.expand(len(blocks), -1, -1)))
        losses = cross_entropy(logits.flatten(0, 1), layout.targets.flatten(), reduction="none").view(len(blocks), -1)
        own = [row[:count] for row, count in zip(losses, layout.counts, strict=True)]
        torch.cat(own).sum().backward()
    return [row.detach() for row in own], [part.grad.clone() for part in model.parameters() if part.grad is not None]


def rows(draw: random.Random) -> list[Tokens]:
    found = [ids for ids in drawn(draw, draw.randint(6, 12)) if len(ids) > 1] or [np.array([1, 2])]
    return [Tokens.of(ids.tolist(), np.arange(len(ids)) >= draw.randrange(len(ids))) for ids in found]


@pytest.mark.parametrize("seed", range(12))
def test_shared_is_not_shared(seed: int, model: torch.nn.Module) -> None:
    draw = random.Random(seed)
    trials = [rows(draw) for _ in range(3)]
    shared, alone = ([Block.of(trial, share) for trial in trials] for share in (True, False))
    assert any(block.shares for block in shared)
    assert not any(block.shares for block in alone)
    assert [block.tokens for block in shared] == [block.tokens for block in alone]
    (ours, gradients), (theirs, expected) = outcome(model, shared), outcome(model, alone)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(ours, theirs, strict=True))
    largest = max(float(gradient.abs().max()) for gradient in expected)
    assert all(torch.allclose(one, other, atol=1e-5 * largest) for one, other in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_shared_places_are_the_same_bits_in_any_company(seed: int, model: torch.nn.Module) -> None:
    draw = random.Random(seed)
    watched, *others = [Block.of(rows(draw)) for _ in range(4)]
    ((alone,), _) = outcome(model, [watched])
    (among, _) = outcome(model, [*others, watched])
    assert watched.shares
    assert torch.equal(alone, among[-1])


def test_only_the_whole_of_a_trial_is_rounded_up() -> None:
    sequences = [Tokens.answer([1, 2, 3], [n, 5]) for n in range(7)]
    block = Block.of(sequences, share=False)
    assert (block.tokens, len(block.ids)) == (35, 3 * BLOCK)


def test_a_row_that_is_taken_twice_gets_both_gradients() -> None:
    gather = Gather(np.array([2, 4, 0, 2, 2]), 4, CPU)
    table = torch.arange(8.0).view(4, 2).requires_grad_()
    taken = gather(table)
    assert taken.tolist() == [[4, 5], [0, 0], [0, 1], [4, 5], [4, 5]]
    taken.backward(torch.arange(10.0).view(5, 2))
    assert table.grad is not None
    assert table.grad.tolist() == [[4, 5], [0, 0], [0 + 6 + 8, 1 + 7 + 9], [0, 0]]
