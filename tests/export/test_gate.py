"""What the gate says of logits: rounding passes, each way to lose a tune is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ftlib.errors import FtlibError
from ftlib.export.gate import Limits, Reading, Trained, agreement, check_logits, check_reading

READING = Reading("{{ messages }}", [[1, 2, 3], [4]], frozenset({2, 7}), True)


@pytest.fixture
def trained() -> Trained:
    torch.manual_seed(0)
    base = [torch.randn(8, 50) for _ in range(3)]
    tuned = [logits + 0.3 * torch.randn(8, 50) for logits in base]
    return Trained([[1]] * 3, "3 rows", [], base, tuned, 50, 1e-4, READING)


def moved(trained: Trained, share: float, noise: float = 0.0) -> list[torch.Tensor]:
    """The base's logits, so much of the way to the tuned ones, and noise as a share of their size."""
    assert trained.untuned is not None
    pairs = zip(trained.untuned, trained.tuned, strict=True)
    return [b + share * (t - b) + noise * torch.randn_like(t) * t.norm() / t.numel() ** 0.5 for b, t in pairs]


def test_the_tuned_models_own_logits_agree(trained: Trained) -> None:
    found = check_logits(trained, trained.tuned, Limits(1e-4), "it")
    assert (found.apart, found.kept, found.tokens, found.decided) == (0, pytest.approx(1), 1, 1)
    assert found.effect == pytest.approx(0.28, abs=0.05)


@pytest.mark.parametrize("share", [0.0, 0.5, 2.0, -1.0])
def test_a_part_of_the_tune_is_not_the_tune(trained: Trained, share: float) -> None:
    """Whatever noise a format is allowed: half of the tune is what a forgotten alpha leaves."""
    with pytest.raises(FtlibError, match=rf"it has lost the tune: on 3 rows it has {share:.0%} of what the tune does"):
        check_logits(trained, moved(trained, share), Limits(1.0, rounds=True), "it")


def test_rounding_is_told_from_loss(trained: Trained) -> None:
    """Noise as large as the tune itself passes in a format that rounds to a few bits, and in no other."""
    noisy = moved(trained, 1.0, 0.25)
    found = check_logits(trained, noisy, Limits(0.4, rounds=True), "it")
    assert found.kept == pytest.approx(1, abs=0.15)
    with pytest.raises(FtlibError, match=r"lost the tune in rounding: .*export it with more bits"):
        check_logits(trained, noisy, Limits(0.4), "it")
    with pytest.raises(FtlibError, match=r"it is not what was trained: .* where this format gives at most 0.1"):
        check_logits(trained, noisy, Limits(0.1, rounds=True), "it")


def test_numbers_that_are_none_and_positions_that_lack(trained: Trained) -> None:
    with pytest.raises(FtlibError, match="no numbers"):
        check_logits(trained, [tensor * float("nan") for tensor in trained.tuned], Limits(1.0), "it")
    with pytest.raises(FtlibError, match=r"its logits are \(7, 50\), and the trained ones \(8, 50\)"):
        check_logits(trained, [tensor[:7] for tensor in trained.tuned], Limits(1.0), "it")
    with pytest.raises(FtlibError, match=r"its logits are \(8, 49\)"):
        check_logits(trained, [tensor[:, :49] for tensor in trained.tuned], Limits(1.0), "it")
    padded = [torch.cat([tensor, torch.full((8, 6), -50.0)], 1) for tensor in trained.tuned]
    assert check_logits(trained, padded, Limits(1e-4), "it").apart == 0


def test_without_a_base_only_the_distance_is_known(trained: Trained) -> None:
    alone = replace(trained, untuned=None)
    assert agreement(alone, trained.tuned).to_json() == {
        "apart": 0.0, "effect": None, "kept": None, "tokens": 1.0, "decided": None,
    }  # fmt: skip
    with pytest.raises(FtlibError, match="not what was trained"):
        check_logits(alone, moved(trained, 0.0), Limits(1e-3), "it")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"template": None}, "lost the chat template of its training: it has none"),
        ({"template": "{{ bos_token }}"}, "it has another"),
        ({"tokens": [[1, 2, 9], [4]]}, r"from token 2 on it reads \[9\], and training \[3\]"),
        ({"ends": frozenset({2})}, "token 7 ended the answers in training"),
        ({"tied": False}, "were tied in training, and are two matrices now"),
    ],
)
def test_each_way_to_read_otherwise_is_found(change: dict[str, object], reason: str) -> None:
    with pytest.raises(FtlibError, match=reason):
        check_reading(READING, replace(READING, **change), "it")  # type: ignore[arg-type]


def test_what_a_program_does_not_say_is_not_asked() -> None:
    check_reading(READING, replace(READING, template="{{ messages }}\n", tokens=None, ends=None, tied=None), "it")
    check_reading(Reading(), READING, "it")
