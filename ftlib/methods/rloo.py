"""REINFORCE leave-one-out on TRL's RLOOTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl import RLOOConfig, RLOOTrainer

from ftlib.config import RLOO, Experiment
from ftlib.methods.arguments import training_arguments
from ftlib.methods.evaluation import ByCompletions
from ftlib.methods.rewards import generation, reward_arguments

if TYPE_CHECKING:
    from transformers import Trainer

    from ftlib.data import Prepared


def trainer(experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path) -> Trainer:
    """A trainer that answers the prompts of `data` itself. A batch counts completions, not prompts."""
    method = experiment.method
    assert isinstance(method, RLOO)
    config = RLOOConfig(
        **training_arguments(experiment, output_dir),
        **generation(method),
        beta=method.beta,
        normalize_advantages=method.normalize_advantages,
    )
    built = _RLOOTrainer(
        model=model,
        args=config,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
        **reward_arguments(method),
    )
    built.reward_func_names = [reward.name for reward in method.rewards]  # TRL calls a reward model by its base
    return built


class _RLOOTrainer(ByCompletions, RLOOTrainer):
    """TRL's RLOOTrainer, evaluated by the rewards of completions."""
