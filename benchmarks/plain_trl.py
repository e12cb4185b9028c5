"""The rival of one training: a LoRA as people train it with TRL, in a script of its own. Called by
against_plain_tune.py."""

from __future__ import annotations

import json
import sys

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main() -> None:
    told = json.loads(sys.argv[1])
    folder, (point,) = told["folder"], told["points"]
    torch.set_num_threads(told["threads"])
    rows = load_dataset("json", data_files={part: f"{folder}/{part}.jsonl" for part in ("train", "eval")})
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(f"{folder}/base"),
        args=SFTConfig(
            output_dir=told["storage"],
            max_steps=told["steps"],
            per_device_train_batch_size=told["batch"],
            learning_rate=point["rate"],
            lr_scheduler_type="linear",
            max_length=128,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=rows["train"],
        eval_dataset=rows["eval"],
        processing_class=AutoTokenizer.from_pretrained(f"{folder}/base"),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=point["r"], lora_alpha=point["alpha"], target_modules="all-linear"
        ),
    )
    trainer.train()
    print(trainer.evaluate()["eval_loss"])
    trainer.save_model()


if __name__ == "__main__":
    main()
