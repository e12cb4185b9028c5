"""GRPO and RLOO: the model answers, is rewarded, and gets better at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.errors import ConfigError
from ftlib.methods import check
from ftlib.methods.rewards import exact_match, length, regex
from ftlib.run.directory import Run
from ftlib.training.build import build
from tests.training.test_trial import setting, train


def turns(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_exact_match() -> None:
    assert exact_match(["It is  RED.", turns("it is blue."), ""], ["It is red.", "It is red.", ""]) == [1, 0, 0]
    pattern = r"#### (-?[0-9,]+)"
    said = ["so #### 72", "#### 7", "72"]
    assert exact_match(said, ["because #### 72"] * 3, pattern=pattern) == [1, 0, 0]


def test_regex_and_length() -> None:
    assert regex(["<think>a\nb</think> c", turns("c")], r"<think>.*</think>") == [1, 0]
    assert length(["", "", ""], completion_ids=[[1] * 5, [1] * 10, [1] * 3], target=5) == [1, 0, pytest.approx(0.6)]


@pytest.fixture
def online(quick: dict[str, Any]) -> dict[str, Any]:
    quick["method"] = {
        "type": "grpo",
        "rewards": [{"function": "length", "arguments": {"target": 3}}],
        "num_generations": 4,
        "max_completion_length": 8,
    }
    return quick


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_reward_rises(online: dict[str, Any], tmp_path: Path, method: str) -> None:
    """Rewarded is the share of a completion's tokens in the lower half of the vocabulary: at first about a half."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def low(completion_ids, **columns):\n    return [sum(i < 200 for i in ids) / len(ids) for ids in "
        "completion_ids]\n"
    )
    online["method"].update(type=method, rewards=[f"{mine}:low"])
    online["adapter"] = None
    online["train"].update(max_steps=24, per_device_train_batch_size=32, eval_strategy="steps", eval_steps=12)
    done = setting(online, tmp_path, metric="eval_reward", mode="max")
    reports = train(done)
    assert reports[-1]["eval_reward"] > reports[0]["eval_reward"]
    assert reports[-1]["tokens"] > 0
    assert "rewards/low/mean" in Run(Path(done.run)).trial("000").metrics()[0]


def test_an_evaluations_reward_is_the_mean_over_its_completions(online: dict[str, Any], tmp_path: Path) -> None:
    """The last batch is a smaller one: in a mean of batches' means its completions would count too much."""
    told = tmp_path / "told.txt"
    (tmp_path / "mine.py").write_text(
        "def size(completion_ids, **columns):\n"
        f"    open({str(told)!r}, 'a').write(''.join(f'{{len(ids)}}\\n' for ids in completion_ids))\n"
        "    return [float(len(ids)) for ids in completion_ids]\n"
    )
    online["method"]["rewards"] = [{"function": f"{tmp_path}/mine.py:size", "weight": 2.0}]
    online["train"]["per_device_eval_batch_size"] = 12
    done = setting(online, tmp_path, metric="eval_reward", mode="max")
    trainer, data = build(Experiment.parse(online), done, Run(Path(done.run)).trial("000"))
    found = trainer.evaluate()
    rewards = [float(line) for line in told.read_text().split()]
    assert len(rewards) == 4 * len(data.eval) == 64
    assert found["eval_reward"] == pytest.approx(2 * sum(rewards) / 64)
    assert found["eval_rewards/size/mean"] == pytest.approx(sum(rewards) / 64)
    assert found["eval_completions/mean_length"] == pytest.approx(sum(rewards) / 64)
    assert len(found["eval_reward_parts"]) == 16


def test_rewards_that_are_all_the_same_are_said(online: dict[str, Any], tmp_path: Path) -> None:
    from ftlib.errors import TrialError

    online["method"]["rewards"] = [{"function": "regex", "arguments": {"pattern": "no such text"}}]
    for adapter in (online["adapter"], None):
        online["adapter"] = adapter
        with pytest.raises(TrialError, match="all completions of each prompt got the same reward"):
            train(setting(online, tmp_path / str(bool(adapter))))


def test_a_trained_reward_model_rewards(online: dict[str, Any], tmp_path: Path, pairs_file: Path, base: Path) -> None:
    """RLHF in two experiments: `reward`, then `grpo` against its adapter, beside a function of the user's own."""
    rewarding = {**online, "method": {"type": "reward"}, "data": {**online["data"], "train": str(pairs_file)}}
    done = setting(rewarding, tmp_path / "reward")
    train(done)
    folder = Run(Path(done.run)).trial("000").weights
    (tmp_path / "mine.py").write_text("def shortness(completions, **columns):\n    return [-1.0] * len(completions)\n")
    online["method"]["rewards"] = [
        {"function": "reward_model", "arguments": {"model": str(folder)}},
        {"function": f"{tmp_path}/mine.py:shortness", "weight": 0.5},
    ]
    check(Experiment.parse(online))
    done = setting(online, tmp_path / "grpo", metric="eval_reward", mode="max")
    reports = train(done)
    assert reports[-1]["eval_rewards/shortness/mean"] == -1
    (model,) = (
        key for key in reports[-1] if key.startswith("eval_rewards/") and "shortness" not in key and "mean" in key
    )
    assert reports[-1]["eval_reward"] == pytest.approx(reports[-1][model] - 0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("reward", "reason"),
    [
        ("exact_mach", "Did you mean 'exact_match'"),
        ("regex", "needs arguments: {pattern: ...}"),
        ({"function": "regex", "arguments": {"pattern": "("}}, "no regular expression"),
        ("no.such.module:f", "no.such.module cannot be imported"),
        ("json:loadz", "Did you mean 'load"),
        ("reward_model", "registry:NAME"),
    ],
)
def test_a_wrong_reward_is_named_before_anything_starts(online: dict[str, Any], reward: Any, reason: str) -> None:
    online["method"]["rewards"] = [reward]
    with pytest.raises(ConfigError) as error:
        check(Experiment.parse(online))
    assert reason in str(error.value)
    assert "method.rewards.0" in str(error.value)


def test_batches_hold_whole_groups(online: dict[str, Any]) -> None:
    online["train"]["per_device_train_batch_size"] = 6
    with pytest.raises(ConfigError, match=r"train.per_device_train_batch_size: .* use a multiple of num_generations"):
        Experiment.parse(online)


def test_the_loss_is_no_objective(online: dict[str, Any]) -> None:
    online["sweep"] = {"space": {"train.learning_rate": [1e-3, 1e-4]}, "num_samples": 2}
    assert Experiment.parse(online).objective == ("eval_reward", "max")
    online["sweep"]["metric"] = "eval_loss"
    with pytest.raises(ConfigError, match="use metric: eval_reward"):
        Experiment.parse(online)
    online["sweep"].update(metric="eval_reward", mode="max")
    assert Experiment.parse(online).objective == ("eval_reward", "max")


def test_steps_count_completions(online: dict[str, Any], tmp_path: Path) -> None:
    from ftlib.data import load_prepared
    from ftlib.training.estimate import steps_and_tokens

    online["train"].update(max_steps=None, num_train_epochs=1, per_device_train_batch_size=64)
    done = setting(online, tmp_path)
    expected, _ = steps_and_tokens(Experiment.parse(online), load_prepared(Path(done.data)).report)
    online["method"]["rewards"] = [{"function": "length", "arguments": {"target": 5}}]
    train(setting(online, tmp_path / "again"))
    run = next(path for path in (tmp_path / "again").iterdir() if path.is_dir())
    assert Run(run).trial("000").metrics()[-1]["step"] == expected
