"""What a tool's words mean, as the experiment says it: the batch, the schedule, the rows and the loss of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlib.convert import Asked, Conversion, convert
from ftlib.errors import InputError
from tests.conftest import write_jsonl

AXOLOTL: dict[str, Any] = {
    "base_model": "org/model", "datasets": [{"path": "org/rows", "type": "alpaca"}], "sequence_len": 512,
    "micro_batch_size": 2, "gradient_accumulation_steps": 4, "learning_rate": 2e-4,
}  # fmt: skip
FACTORY: dict[str, Any] = {
    "model_name_or_path": "org/model", "stage": "sft", "finetuning_type": "lora", "dataset": "identity",
    "template": "llama3", "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "bf16": True,
}  # fmt: skip


def of(tmp_path: Path, source: dict[str, Any], gpus: int | None = None, **asked: Any) -> Conversion:
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(source, sort_keys=False))
    return convert(file, asked=Asked(gpus=gpus, **asked))


def settings(conversion: Conversion, *paths: str) -> list[Any]:
    return [conversion.at(path) for path in paths]


def why(conversion: Conversion) -> dict[str, str]:
    return {fate.key: fate.text for fate in conversion.refused}


def test_axolotls_batch_is_of_all_gpus(tmp_path: Path) -> None:
    paths = (
        "train.per_device_train_batch_size",
        "train.gradient_accumulation_steps",
        "scale.num_workers",
        "scale.strategy",
    )
    assert settings(of(tmp_path, AXOLOTL), *paths) == [2, 4, None, None]
    assert settings(of(tmp_path, AXOLOTL, 8), *paths) == [2, 4, 8, "ddp"]
    fsdp = AXOLOTL | {"fsdp_config": {"fsdp_offload_params": False, "reshard_after_forward": True}}
    assert settings(of(tmp_path, fsdp, 4), *paths) == [2, 4, 4, "fsdp"]
    qlora = fsdp | {"adapter": "qlora", "load_in_4bit": True, "lora_r": 8}  # FSDP leaves such weights whole
    assert settings(of(tmp_path, qlora, 4), *paths, "scale.stage") == [2, 4, 4, "deepspeed", 3]
    two_a_row = AXOLOTL | {"context_parallel_size": 2}  # 8 GPUs, 4 rows at once: as many rows a step as there
    assert settings(of(tmp_path, two_a_row, 8), *paths) == [2, 2, 8, "ddp"]
    assert "--gpus says how many" in why(of(tmp_path, two_a_row))["context_parallel_size"]
    one_batch = two_a_row | {"gradient_accumulation_steps": 1, "micro_batch_size": 1}
    assert settings(of(tmp_path, one_batch, 8), *paths) == [1, 1, 4, "ddp"]
    assert "one GPU would compute all" in why(of(tmp_path, one_batch, 2))["context_parallel_size"]
    older = {key: value for key, value in AXOLOTL.items() if key != "gradient_accumulation_steps"} | {"batch_size": 6}
    assert of(tmp_path, older).at("train.gradient_accumulation_steps") == 3


def test_axolotls_defaults_are_written_out(tmp_path: Path) -> None:
    found = of(tmp_path, AXOLOTL | {"bf16": "auto", "val_set_size": 0.05, "evals_per_epoch": 4, "warmup_ratio": 0.1})
    said = {
        "data.long_rows": "drop", "data.eval_split": 0.05, "train.eval_strategy": "epoch", "train.evals_per_epoch": 4,
        "train.warmup_steps": 0.1, "train.lr_scheduler_type": "cosine", "train.optim": "adamw_torch_fused",
        "model.dtype": "bfloat16", "train.bf16": True, "train.per_device_eval_batch_size": 2, "adapter": None,
    }  # fmt: skip
    assert {path: found.at(path) for path in said} == said
    assert of(tmp_path, AXOLOTL | {"evals_per_epoch": 4}).at("train.eval_strategy") == "end"  # nothing is held out
    assert "below 1" in why(of(tmp_path, AXOLOTL | {"val_set_size": 500}))["val_set_size"]


TURNS = {"field_messages": "conversations", "message_property_mappings": {"role": "from", "content": "value"}}


@pytest.mark.parametrize(
    ("member", "more", "format_name", "columns", "template"),
    [
        ({"type": "alpaca"}, {}, "stanford", None, "alpaca"),
        ({"type": "alpaca:chat"}, {}, "stanford", None, "alpaca_chat"),
        ({"type": "chat_template", "drop_system_message": True}, {}, "messages", None, "tokenizer"),
        ({"type": "chat_template", **TURNS}, {"chat_template": "llama3"}, "sharegpt", None, "llama3"),
        ({"type": "chat_template", "field_messages": "talk"}, {"chat_template": "phi_35"}, "messages",
         {"messages": "talk"}, "tokenizer"),
        ({"type": "completion", "field": "chapter"}, {}, "text", {"text": "chapter"}, None),
        ({"type": "chatml.intel"}, {"rl": "dpo"}, "preference", {"prompt": "question"}, "chatml"),
        ({"type": "llama3.ultra"}, {"rl": "kto"}, "kto", None, "llama3"),
        ({"type": "chat_template.default", "field_messages": "talk"}, {"rl": "ipo"}, "preference",
         {"conversations": "talk"}, "tokenizer"),
        ({"type": {"field_instruction": "q", "field_output": "a", "format": "{instruction}"}}, {},
         "prompt_completion", {"prompt": "q", "completion": "a"}, "none"),
    ],
)  # fmt: skip
def test_axolotls_types_of_data_sets(
    member: dict[str, Any], more: dict[str, Any], format_name: str, columns: Any, template: Any, tmp_path: Path
) -> None:
    found = of(tmp_path, AXOLOTL | {"datasets": [{"path": "org/rows", "split": "train[:5%]", **member}], **more})
    assert why(found) == {}
    assert settings(found, "data.train", "data.hub_split") == ["org/rows", "train[:5%]"]
    assert settings(found, "data.format", "data.columns", "data.template") == [format_name, columns, template]


@pytest.mark.parametrize(
    ("datasets", "says"),
    [
        ([{"path": "x", "type": "alpaca:phi"}], "the prompt of type 'alpaca:phi' is Axolotl's own text"),
        ([{"path": "x", "type": "input_output"}], "the prompt of type 'input_output'"),
        ([{"path": "x", "type": {"format": "[INST] {instruction}"}}], "its prompt is a text of your own"),
        ([{"path": "x", "type": "alpaca"}, {"path": "y", "type": "chat_template"}], "they are written by 2 templates"),
        ([{"path": "x", "type": "chat_template", "roles_to_train": ["user"]}], "the assistant's turns alone"),
        ([{"path": "x", "type": "chat_template", "train_on_eos": "last"}], "every answer is trained on to its end"),
        ([{"path": "x", "type": "chat_template", "shardz": 3}], "ftlib has no such key of a data set"),
    ],
)
def test_what_cannot_be_read_alike_is_refused(datasets: list[Any], says: str, tmp_path: Path) -> None:
    assert any(says in text for text in why(of(tmp_path, AXOLOTL | {"datasets": datasets})).values())


def test_axolotls_methods(tmp_path: Path) -> None:
    pairs = {"datasets": [{"path": "x", "type": "chatml.ultra"}]}
    found = of(tmp_path, AXOLOTL | pairs | {"rl": "orpo", "orpo_alpha": 0.2, "rl_beta": None})
    assert settings(found, "method.type", "method.beta") == ["orpo", 0.2]
    found = of(tmp_path, AXOLOTL | pairs | {"rl": "simpo", "simpo_gamma": 1.0})
    assert settings(found, "method.beta", "method.simpo_gamma", "method.cpo_alpha") == [0.1, 1.0, 1.0]
    assert of(tmp_path, AXOLOTL | pairs | {"rl": "ipo"}).at("method.loss_type") == "ipo"
    assert "no 'ebft'" in why(of(tmp_path, AXOLOTL | pairs | {"rl": "ebft"}))["rl"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"adapter": "lora", "lora_modules_to_save": ["lm_head"], "peft_ensure_weight_tying": True},
         {"adapter.modules_to_save": ["lm_head"], "adapter.ensure_weight_tying": True}),
        ({"adapter": "lora", "lora_target_parameters": ["experts.down_proj"]},
         {"adapter.target_parameters": ["experts.down_proj"]}),
        ({"lora_modules_to_save": ["lm_head"]}, {"adapter": None}),
        ({"adapter": "qlora", "load_in_4bit": True, "quantize_moe_experts": True},
         {"model.quantization": "nf4", "model.quantize_moe_experts": True}),
        ({"adapter": "qlora", "quantize_moe_experts": True, "fsdp_config": {"fsdp_version": 2}},
         {"model.quantize_moe_experts": True, "scale.strategy": "ddp"}),
        ({"cosine_min_lr_ratio": 0.1, "lr_scheduler": "cosine"},
         {"train.lr_scheduler_type": "cosine_with_min_lr", "train.lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),
        ({"lr_scheduler": "cosine", "cosine_min_lr_ratio": 0.1}, {"train.lr_scheduler_type": "cosine_with_min_lr"}),
        ({"lr_scheduler": "linear", "cosine_min_lr_ratio": 0.1}, {"train.lr_scheduler_type": "linear"}),
        ({"eta_min": 7e-7}, {"train.lr_scheduler_type": "cosine", "train.lr_scheduler_kwargs": None}),
        ({"unfrozen_parameters": ["^lm_head.weight$", "model.layers.4[4-9]+.mlp"]},
         {"adapter": {"type": "layers", "parameters": [r"^lm_head\.weight$", r"model\.layers\.4[4-9]+\.mlp"]}}),
        ({"model_config": {"output_router_logits": True}}, {"method.router_aux_loss_coef": None, "model.config": None}),
        ({"val_set_size": 0.1}, {"method.router_aux_loss_coef": 0}),  # TRL adds it of itself, Axolotl does not
        ({"dataset_exact_deduplication": True}, {"data.deduplicate": True}),
        ({"streaming": True, "streaming_multipack_buffer_size": 100, "max_steps": 9}, {"train.max_steps": 9}),
    ],
)  # fmt: skip
def test_axolotls_ways(more: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    found = of(tmp_path, AXOLOTL | more, 2)
    assert {path: found.at(path) for path in expected} == expected
    assert why(found) == {}


@pytest.mark.parametrize(
    ("more", "key", "says"),
    [
        ({"unfrozen_parameters": ["model.embed_tokens.weight$[:32000]"]}, "unfrozen_parameters", "as a whole"),
        ({"lr_quadratic_warmup": True}, "lr_quadratic_warmup", "rises in a line"),
        ({"adapter": "qlora", "quantize_moe_experts": True, "lora_target_parameters": ["experts.down_proj"]},
         "quantize_moe_experts", "does not take its B A off"),
    ],
)  # fmt: skip
def test_what_axolotl_does_otherwise_is_refused(more: dict[str, Any], key: str, says: str, tmp_path: Path) -> None:
    assert says in why(of(tmp_path, AXOLOTL | more))[key]


def test_llama_factorys_defaults_and_its_own_data(tmp_path: Path) -> None:
    found = of(tmp_path, FACTORY | {"lora_target": "q_proj,v_proj", "lora_rank": 4})
    said = {
        "adapter.r": 4, "adapter.lora_alpha": 8, "adapter.target_modules": ["q_proj", "v_proj"],
        "train.learning_rate": 5e-5, "train.num_train_epochs": 3.0, "train.lr_scheduler_type": "linear",
        "data.max_length": 2048, "data.eval_split": 0, "model.dtype": "bfloat16", "data.train": "data/identity.json",
        "data.format": "alpaca", "data.template": "llama3", "train.activation_checkpointing": True,
    }  # fmt: skip
    assert {path: found.at(path) for path in said} == said
    (look,) = [fate for fate in found.fates if fate.look]
    assert "copy data/ of LLaMA-Factory's repository" in look.text
    assert of(tmp_path, FACTORY | {"finetuning_type": "full"}).at("model.dtype") == "float32"  # trained weights
    assert "--dataset-info names" in why(of(tmp_path, FACTORY | {"dataset": "mine"}))["dataset"]
    assert why(of(tmp_path, FACTORY | {"dataset": "mllm_demo"})) == {"dataset": "ftlib trains on text"}


def test_llama_factorys_dataset_info_is_read(tmp_path: Path) -> None:
    info = {
        "mine": {"file_name": "x.jsonl", "columns": {"prompt": "q", "response": "a"}},
        "turns": {"hf_hub_url": "org/x", "formatting": "sharegpt", "split": "test",
                  "columns": {"messages": "talk"}, "tags": {"role_tag": "role"}},
        "pairs": {"hf_hub_url": "org/y", "ranking": True, "columns": {"prompt": "instruction", "chosen": "good"}},
    }  # fmt: skip
    (tmp_path / "info.json").write_text(json.dumps(info))
    found = of(tmp_path, FACTORY | {"dataset": "mine, turns"}, dataset_info=tmp_path / "info.json")
    assert found.at("data.train") == [
        {"path": "data/x.jsonl", "format": "alpaca", "columns": {"instruction": "q", "output": "a"}},
        {"path": "org/x", "format": "messages", "columns": {"messages": "talk"}, "hub_split": "test"},
    ]
    found = of(tmp_path, FACTORY | {"stage": "dpo", "dataset": "pairs"}, dataset_info=tmp_path / "info.json")
    assert settings(found, "data.train", "data.columns") == ["org/y", {"chosen": "good"}]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"stage": "pt", "dataset": "c4_demo"}, {"method.type": "pretrain", "data.format": "text"}),
        ({"stage": "dpo", "dataset": "dpo_en_demo", "pref_loss": "simpo", "pref_beta": 2.0},
         {"method.type": "simpo", "method.beta": 2.0}),
        ({"stage": "dpo", "dataset": "dpo_en_demo", "pref_ftx": 0.5},
         {"method.loss_type": ["sigmoid", "sft"], "method.loss_weights": [1.0, 0.5]}),
        ({"quantization_bit": 4}, {"model.quantization": "nf4"}),
        ({"additional_target": "embed_tokens,lm_head"}, {"adapter.modules_to_save": ["embed_tokens", "lm_head"]}),
        ({"use_dft_loss": True}, {"method.loss_type": "dft", "method.router_aux_loss_coef": 0}),
        ({"moe_aux_loss_coef": 0.01}, {"method.router_aux_loss_coef": 0.01}),
        ({"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": '{"min_lr": 1e-6}'},
         {"train.lr_scheduler_kwargs": {"min_lr": 1e-6}}),
        ({"use_distributed_optimizer": True, "mixed_precision": "bf16_mixed", "pipeline_model_parallel_size": 2},
         {"train.bf16": True, "train.gradient_accumulation_steps": 4}),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 3}, {"adapter": {"type": "layers", "num_layers": 3}}),
        ({"finetuning_type": "full", "use_galore": True, "galore_rank": 64, "galore_target": "all"},
         {"train.optim": "galore_adamw", "train.optim_target_modules": "all-linear"}),
        ({"deepspeed": "examples/deepspeed/ds_z3_offload_config.json"}, {"scale.stage": 3, "scale.offload": "cpu"}),
    ],
)  # fmt: skip
def test_llama_factorys_ways(more: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    found = of(tmp_path, FACTORY | more, 2)
    assert {path: found.at(path) for path in expected} == expected
    assert why(found) == {}


def test_torchtunes_components(tmp_path: Path) -> None:
    source = {
        "output_dir": "/tmp/x",
        "model": {"_component_": "torchtune.models.llama3_2.lora_llama3_2_1b", "lora_rank": 64, "lora_alpha": 128,
                  "lora_attn_modules": ["q_proj", "output_proj"], "apply_lora_to_mlp": False},
        "tokenizer": {"_component_": "torchtune.models.llama3.llama3_tokenizer", "path": "x", "max_seq_len": None},
        "checkpointer": {"_component_": "torchtune.training.FullModelHFCheckpointer",
                         "checkpoint_dir": "${output_dir}"},
        "dataset": {"_component_": "torchtune.datasets.chat_dataset", "source": "org/x", "conversation_column": "talk",
                    "conversation_style": "sharegpt", "packed": False},
        "optimizer": {"_component_": "torch.optim.AdamW", "lr": "3e-4", "fused": True},
        "lr_scheduler": {"_component_": "x.get_cosine_schedule_with_warmup", "num_warmup_steps": 100},
        "loss": {"_component_": "torchtune.modules.loss.LinearCrossEntropyLoss"},
        "epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 8, "dtype": "bf16", "max_steps_per_epoch": 5,
    }  # fmt: skip
    found = of(tmp_path, source)
    said = {
        "model.name_or_path": "/tmp/x", "adapter.target_modules": ["q_proj", "o_proj"], "adapter.r": 64,
        "train.max_steps": 10, "train.learning_rate": 3e-4, "train.weight_decay": 0.01, "train.max_grad_norm": 0,
        "train.warmup_steps": 100, "data.format": "sharegpt", "data.columns": {"conversations": "talk"},
        "data.long_rows": "error", "train.optim": "adamw_torch_fused",
    }  # fmt: skip
    assert {path: found.at(path) for path in said} == said
    assert why(found) == {}
    alpaca = source | {"dataset": {"_component_": "torchtune.datasets.alpaca_dataset"}}
    assert "Alpaca's prompt" in why(of(tmp_path, alpaca))["dataset"]


SCRIPT = """
from unsloth import FastLanguageModel
import os; os.system("touch RAN")
rank = 16
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name = "org/model", max_seq_length = 2048, load_in_4bit = True)
model = FastLanguageModel.get_peft_model(
    model, r = rank, lora_alpha = rank * 2, target_modules = ["q_proj"], bias = "none")
dataset = load_dataset("org/rows", split = "train")
WRITER
trainer = SFTTrainer(model = model, tokenizer = tokenizer, train_dataset = dataset, args = SFTConfig(
    per_device_train_batch_size = 2, gradient_accumulation_steps = 4, warmup_steps = 5, max_steps = 60,
    learning_rate = 2e-4, optim = "adamw_8bit", weight_decay = 0.001, lr_scheduler_type = "linear", seed = 3407,
    bf16 = is_bfloat16_supported(), report_to = "none"))
trainer.train()
model, tokenizer = FastLanguageModel.from_pretrained(model_name = "saved")
"""


@pytest.mark.parametrize("ending", [".py", ".ipynb"])
def test_unsloths_arguments_are_read_and_nothing_is_run(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"x{ending}"
    code = SCRIPT.replace("touch RAN", f"touch {tmp_path}/RAN").replace("WRITER", "")
    notebook = {"cells": [{"cell_type": "code", "source": ["%%capture\n", "!pip install unsloth\n"]},
                          {"cell_type": "code", "source": code}]}  # fmt: skip
    file.write_text(code if ending == ".py" else json.dumps(notebook))
    found = convert(file)
    said = {
        "model.name_or_path": "org/model", "model.quantization": "nf4", "adapter.r": 16, "adapter.lora_alpha": 32,
        "data.train": "org/rows", "train.max_steps": 60, "train.warmup_steps": 5, "train.optim": "adamw_8bit",
        "train.gradient_accumulation_steps": 4, "train.seed": 3407, "data.max_length": 2048,
    }  # fmt: skip
    assert {path: found.at(path) for path in said} == said
    assert why(found) == {}
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (SCRIPT.replace("WRITER", "dataset = dataset.map(formatting_prompts_func)"), "own function formatting_prompts"),
        (SCRIPT.replace("WRITER", "").replace("rank * 2", "choose()"), "the script computes it (choose())"),
    ],
)
def test_what_only_running_a_script_could_tell_is_refused(code: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(code)
    assert any(says in text for text in why(convert(tmp_path / "x.py")).values())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.py", "print(1)", "this file trains nothing of Unsloth's"),
        ("x.py", "(" * 10_000, "this file trains nothing of Unsloth's"),
        ("x.py", "x = " + "-" * 100_000 + "1", "this file trains nothing of Unsloth's"),
        ("x.py", "x" * 1_000_001, "larger than 1,000,000 bytes"),
        ("x.py", b"\xff\xfe", "not readable as UTF-8"),
        ("x.ipynb", "[" * 100_000, "not readable as a notebook"),
        ("x.ipynb", '{"cells": 3}', "it has no list of cells"),
        ("x.py", "FastVisionModel.from_pretrained('x')", "ftlib trains on text"),
    ],
)
def test_a_script_that_is_none_is_refused_in_a_sentence(
    name: str, content: str | bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=says):
        convert(tmp_path / name)


def test_trls_split_of_a_folder_is_a_file(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_jsonl(tmp_path / "rows" / f"{split}.jsonl", [{"text": split}])
    source = {"model_name_or_path": "m", "dataset_name": "rows", "eval_strategy": "epoch", "learning_rate": 1e-4}
    found = of(tmp_path, source)
    assert found.at("data.train") == [{"path": str(tmp_path / "rows/train.jsonl")}]
    assert settings(found, "data.eval", "data.train_on_prompt") == [str(tmp_path / "rows/test.jsonl"), True]
    assert found.at("train.learning_rate") == 1e-4
    assert "data.max_length" in why(of(tmp_path, source | {"max_length": None}))["max_length"]
