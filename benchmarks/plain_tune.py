"""The rival: a plain, well-written Ray Tune sweep with TRL, or with transformers' Trainer for classes; one process a
trial. Called by against_plain_tune.py."""

from __future__ import annotations

import json
import sys
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler


def train(config: dict[str, Any]) -> None:
    import torch
    from datasets import load_dataset
    from transformers import TrainerCallback

    torch.set_num_threads(1)
    folder, point, steps = config["folder"], config["point"], config["steps"]
    rows = load_dataset("json", data_files={part: f"{folder}/{part}.jsonl" for part in ("train", "eval")})
    arguments = {
        "output_dir": tune.get_context().get_trial_dir(),
        "max_steps": steps,
        "per_device_train_batch_size": config["batch"],
        "learning_rate": point["rate"],
        "lr_scheduler_type": "linear",
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    make = classifier if config["method"] == "classify" else writer
    trainer = make(config, arguments, rows)

    class Rungs(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if config["asha"] and state.global_step in (max(steps // 9, 1), steps // 3):
                loss = trainer.evaluate()["eval_loss"]
                tune.report({"eval_loss": loss, "step": state.global_step})

    trainer.add_callback(Rungs())
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()
    tune.report({"eval_loss": metrics["eval_loss"], "step": steps})


def classifier(config: dict[str, Any], arguments: dict[str, Any], rows: Any) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    folder, point = config["folder"], config["point"]
    tokenizer = AutoTokenizer.from_pretrained(f"{folder}/base")
    labels = sorted(set(rows["train"]["label"]))

    def ready(row: dict[str, Any]) -> dict[str, Any]:
        ids = tokenizer(row["text"], truncation=True, max_length=128)["input_ids"]
        return {"input_ids": ids, "labels": labels.index(row["label"])}

    rows = rows.map(ready, remove_columns=["text", "label"])
    model = AutoModelForSequenceClassification.from_pretrained(f"{folder}/base", num_labels=len(labels))
    lora = LoraConfig(task_type="SEQ_CLS", r=point["r"], lora_alpha=point["alpha"], target_modules="all-linear")
    return Trainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(**arguments),
        train_dataset=rows["train"],
        eval_dataset=rows["eval"],
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )


def writer(config: dict[str, Any], arguments: dict[str, Any], rows: Any) -> Any:
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    method, folder, point = config["method"], config["folder"], config["point"]
    arguments |= {"max_length": config["length"]}
    parts = {
        "model": AutoModelForCausalLM.from_pretrained(f"{folder}/base"),
        "train_dataset": rows["train"],
        "eval_dataset": rows["eval"],
        "processing_class": AutoTokenizer.from_pretrained(f"{folder}/base"),
        "peft_config": LoraConfig(
            task_type="CAUSAL_LM", r=point["r"], lora_alpha=point["alpha"], target_modules="all-linear"
        ),
    }
    if method == "dpo":
        from trl import DPOConfig, DPOTrainer

        # The reference of all rows before, where most are trained on; else with each step, which is less work.
        before = config["steps"] * config["batch"] * 2 > len(rows["train"])
        return DPOTrainer(args=DPOConfig(**arguments, precompute_ref_log_probs=before), **parts)
    from trl import SFTConfig, SFTTrainer

    if method == "sft":
        return SFTTrainer(args=SFTConfig(**arguments), **parts)

    import torch
    from torch.nn.functional import kl_div, log_softmax
    from transformers import AutoModelForCausalLM

    teacher = AutoModelForCausalLM.from_pretrained(f"{folder}/teacher").eval().requires_grad_(False)

    class Distiller(SFTTrainer):
        """Hinton's distillation as people write it: the teacher beside the student, both losses on labelled tokens."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            if not model.training:
                return super().compute_loss(model, inputs, return_outputs, **kwargs)
            inputs.pop("labels_mask", None)
            outputs = model(**inputs)
            with torch.no_grad():
                taught = teacher(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
            counted = inputs["labels"][:, 1:] != -100
            ours, theirs = outputs.logits[:, :-1][counted] / 2.0, taught[:, :-1][counted] / 2.0
            kl = kl_div(log_softmax(ours, -1), log_softmax(theirs, -1), reduction="batchmean", log_target=True) * 4.0
            return 0.5 * kl + 0.5 * outputs.loss

    return Distiller(args=SFTConfig(**arguments), **parts)


def main() -> None:
    arguments = json.loads(sys.argv[1])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    space = {key: arguments[key] for key in ("folder", "steps", "batch", "method", "asha", "length")}
    steps = arguments["steps"]
    asha = ASHAScheduler(time_attr="step", grace_period=max(steps // 9, 1), reduction_factor=3, max_t=100 * steps)
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={**space, "point": tune.grid_search(arguments["points"])},
        tune_config=tune.TuneConfig(
            metric="eval_loss",
            mode="min",
            reuse_actors=arguments["reuse"],
            scheduler=asha if arguments["asha"] else None,
        ),
        run_config=tune.RunConfig(storage_path=arguments["storage"], verbose=0),
    )
    best = tuner.fit().get_best_result()
    print(best.config["point"], best.metrics["eval_loss"])


if __name__ == "__main__":
    main()
