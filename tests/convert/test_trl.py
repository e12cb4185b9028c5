"""A converted file trains what TRL would: the same file is run by TRL itself, as `trl sft --config` runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.convert import Asked, convert
from ftlib.convert.written import text
from tests.conftest import rows, write_jsonl
from tests.training.test_trial import losses, setting, train

FILE = """
model_name_or_path: {base}
dataset_name: {data}
learning_rate: 1.0e-2
lr_scheduler_type: cosine
warmup_steps: 0.25
per_device_train_batch_size: 4
gradient_accumulation_steps: 3
num_train_epochs: 2
weight_decay: 0.1
max_length: 48
logging_steps: 1
use_peft: true
lora_r: 4
lora_alpha: 8
lora_dropout: 0.0
lora_target_modules: [q_proj, v_proj]
bf16: false
activation_checkpointing: false
use_cpu: true
report_to: none
save_strategy: "no"
optim: adamw_torch
"""
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is red."}]}
SHAPES: dict[str, list[dict[str, Any]]] = {
    "texts of prompts and completions": list(rows(3)),
    "turns": [CHAT, {"messages": CHAT["messages"] * 2}, CHAT],
    "texts": [{"text": "The car is red."}, {"text": "The house is green, the car is red."}, {"text": "A lamp."}],
    "turns of prompts and completions": [
        {"prompt": [{"role": "user", "content": row["prompt"]}],
         "completion": [{"role": "assistant", "content": row["completion"]}]}
        for row in rows(3)
    ],
}  # fmt: skip


def written(tmp_path: Path, base: Path, data: list[dict[str, Any]], more: str = "") -> Path:
    write_jsonl(tmp_path / "data" / "train.jsonl", data)
    file = tmp_path / "theirs.yaml"
    file.write_text(FILE.format(base=base, data=tmp_path / "data") + more)
    return file


def theirs(file: Path, tmp_path: Path) -> Any:
    """TRL's trainer, made from the file as `trl/scripts/sft.py` makes it."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import ModelConfig, ScriptArguments, SFTConfig, SFTTrainer, TrlParser, get_peft_config

    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig))
    given = ["--config", str(file), "--output_dir", str(tmp_path / "out"), "--disable_tqdm", "true"]
    script, arguments, model = parser.parse_args_and_config(given)
    folder = str(model.model_name_or_path)
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype),
        args=arguments,
        train_dataset=load_dataset(script.dataset_name, cache_dir=str(tmp_path / "hf"))[script.dataset_train_split],
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=get_peft_config(model),
    )


def ours(file: Path, tmp_path: Path) -> Experiment:
    """The experiment that was written, as it is read back."""
    conversion = convert(file)
    assert conversion.refused == []
    target = tmp_path / "ours.yaml"
    target.write_text(text(conversion, file.name))
    return Experiment.load(target)


def test_trl_and_the_converted_file_train_the_same(base: Path, tmp_path: Path) -> None:
    file = written(tmp_path, base, list(rows(20)))
    trainer = theirs(file, tmp_path)
    trainer.train()
    logged = [row for row in trainer.state.log_history if "loss" in row]
    experiment = ours(file, tmp_path)
    done = setting(experiment.to_dict(), tmp_path / "run", metric=experiment.objective[0])
    train(done)
    section = experiment.train
    assert section.per_device_train_batch_size * section.gradient_accumulation_steps == 12
    assert len(logged) == trainer.state.max_steps == 4
    assert [step for step, _ in losses(done)] == [row["step"] for row in logged]
    assert [loss for _, loss in losses(done)] == pytest.approx([row["loss"] for row in logged], rel=1e-4)
    from transformers import get_scheduler

    optimizer = trainer.create_optimizer()
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = section.learning_rate
    warmup = -(-trainer.state.max_steps * section.warmup_steps // 1)
    schedule = get_scheduler(section.lr_scheduler_type, optimizer, int(warmup), trainer.state.max_steps)
    rates = []
    for _ in logged:
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    assert [row["learning_rate"] for row in logged] == pytest.approx(rates)


@pytest.mark.parametrize("shape", SHAPES)
def test_three_rows_have_the_labels_that_trl_gives_them(shape: str, base: Path, tmp_path: Path) -> None:
    from ftlib.data import prepare
    from ftlib.models.base import load_tokenizer

    file = written(tmp_path, base, SHAPES[shape])
    trainer = theirs(file, tmp_path)
    expected = [trainer.data_collator([row]) for row in trainer.train_dataset]
    experiment = ours(file, tmp_path)
    data = prepare(experiment.data, experiment.method.rows, load_tokenizer(experiment.model, "causal_lm"))
    assert [row["input_ids"] for row in data.train] == [row["input_ids"][0].tolist() for row in expected]
    assert [row["labels"] for row in data.train] == [row["labels"][0].tolist() for row in expected]


def test_the_defaults_are_those_of_the_installed_trl() -> None:
    import dataclasses

    from trl import DPOConfig, GRPOConfig, KTOConfig, ModelConfig, RewardConfig, RLOOConfig, SFTConfig

    from ftlib.convert import trl

    configs = {"sft": SFTConfig, "dpo": DPOConfig, "kto": KTOConfig, "reward": RewardConfig, "grpo": GRPOConfig}
    configs["rloo"] = RLOOConfig
    names = {"train.num_train_epochs": "num_train_epochs", "train.lr_scheduler_type": "lr_scheduler_type",
             "train.optim": "optim", "train.activation_checkpointing": "gradient_checkpointing"}  # fmt: skip
    for method, config in configs.items():
        fields = {field.name: field.default for field in dataclasses.fields(config)}
        assert trl.RATES[method] == fields["learning_rate"]
        for path, name in names.items():
            assert trl.DEFAULTS[path] == fields[name], (method, name)
        for path, value in trl.METHOD.get(method, {}).items():
            assert value == fields[path.removeprefix("method.")]
    model = {field.name: field.default for field in dataclasses.fields(ModelConfig)}
    assert trl.DEFAULTS["model.dtype"] == model["dtype"]
    assert {f"adapter.{name}": model[f"lora_{name}".replace("lora_lora", "lora")]
                        for name in ("r", "lora_alpha", "lora_dropout")} == trl.LORA  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "method"),
    [("", "sft"), ("beta: 0.2", "dpo"), ("desirable_weight: 2.0", "kto"),
     ("center_rewards_coefficient: 0.01", "reward"),
     ("num_generations: 4\nreward_funcs: [accuracy_reward]\nper_device_eval_batch_size: 4", "grpo")],
)  # fmt: skip
def test_the_subcommand_is_told_by_the_keys_or_by_a_word(lines: str, method: str, base: Path, tmp_path: Path) -> None:
    file = written(tmp_path, base, list(rows(3)), lines)
    assert convert(file).at("method.type") == method
    assert convert(file, asked=Asked(method="dpo")).at("method.type") == "dpo"
