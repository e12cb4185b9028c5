"""The last MLP of an evaluation: computed where somebody looks, and what is seen there is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ftlib.data import load_prepared
from ftlib.methods.pack_losses import Tokens
from ftlib.models.bank_routes import Route
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.token_layout import Block
from tests.training.test_trial import setting


def test_the_last_mlp_meets_the_picked_places_alone(tree: dict[str, Any], tmp_path: Path) -> None:
    """Of trials that read the same and others; with gradients it meets all places."""
    done = setting(tree, tmp_path)
    ours = FrozenBase(done.experiment(), load_prepared(Path(done.data)), 3, 4)
    for slot in range(3):
        ours.bank.configure(slot, 4, 2.0)
    ours.bank.weights.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    prompts = [[*range(10, 50), *range(start, start + 9)] for start in (60, 80, 100)]
    block, other = (Block.of([Tokens.answer(prompt, [7, 8, 9]) for prompt in some]) for some in (prompts, prompts[:2]))
    met: list[int] = []
    for layer in ours.body.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda module, args: met.append(args[0].shape[1]))
    for blocks in ([block] * 3, [block, other, block]):
        seen = []
        for gradients in (False, True):
            with torch.set_grad_enabled(gradients), ours.computing(blocks, Route([0, 1, 2])) as outputs:
                seen.append(torch.cat([scored.logits for scored in outputs]))
        assert torch.allclose(*seen, atol=1e-5)
        assert met == [len(block.ids), 16, len(block.ids), len(block.ids)]
        met.clear()
    assert len(block.ids) > 64
