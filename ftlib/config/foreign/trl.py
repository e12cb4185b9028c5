"""The fields of TRL's configs (SFT, DPO, KTO, Reward, GRPO, RLOO, ORPO, CPO), of transformers' TrainingArguments,
and of their command lines (TRL 1.16, transformers 5.23), as far as they are not keys here under the same name. Older
names are here too, which many files still have. `OURS`: key -> path here; the others: reason -> keys."""

from __future__ import annotations

OURS: dict[str, str] = {
    "model_name_or_path": "model.name_or_path",
    "model_revision": "model.revision",
    "model_init_kwargs": "model (dtype, revision, attn_implementation and config are its keys)",
    "torch_dtype": "model.dtype",
    "tokenizer_name_or_path": "model.tokenizer",
    "load_in_4bit": "model.quantization: nf4",
    "load_in_8bit": "model.quantization: int8",
    "eos_token": "model.special_tokens.eos_token",
    "pad_token": "model.special_tokens.pad_token",
    "use_peft": "adapter.type (null for full fine-tuning)",
    "lora_r": "adapter.r",
    "rank": "adapter.r",
    "alpha": "adapter.lora_alpha",
    "dropout": "adapter.lora_dropout",
    "lora_target_modules": "adapter.target_modules",
    "lora_modules_to_save": "adapter.modules_to_save",
    "lora_target_parameters": "adapter.target_parameters",
    "router_aux_loss_coef": "method.router_aux_loss_coef (of type: sft or pretrain)",
    "dataset_name": "data.train",
    "dataset_config": "data.hub_config",
    "dataset_train_split": "data.hub_split",
    "dataset_test_split": "data.eval",
    "dataset_text_field": "data.columns: {text: ...}",
    "max_seq_length": "data.max_length",
    "max_prompt_length": "data.max_length (of prompt and answer together)",
    "max_length": "data.max_length",
    "chat_template_path": "data.template",
    "completion_only_loss": "data.train_on_prompt (its opposite)",
    "assistant_only_loss": "data.train_on_prompt (its opposite)",
    "mask_prompt": "data.train_on_prompt (its opposite)",
    "data_seed": "data.split_seed (rows are met in an order that train.seed draws)",
    "lr": "train.learning_rate",
    "epochs": "train.num_train_epochs",
    "per_gpu_train_batch_size": "train.per_device_train_batch_size",
    "warmup_ratio": "train.warmup_steps (below 1 it is a ratio)",
    "lr_scheduler": "train.lr_scheduler_type",
    "lr_scheduler_kwargs": "train.lr_scheduler_kwargs",
    "optimizer": "train.optim",
    "label_smoothing_factor": "method.label_smoothing",
    "gradient_checkpointing": "train.activation_checkpointing",
    "evaluation_strategy": "train.eval_strategy",
    "logging_first_step": "train.logging_steps: 1",
    "metric_for_best_model": "sweep.metric",
    "greater_is_better": "sweep.mode",
    "fsdp": "scale.strategy: fsdp",
    "fsdp_config": "scale.strategy: fsdp (its keys stand in scale: reshard_after_forward, cpu_offload ...)",
    "deepspeed": "scale.strategy: deepspeed (the file goes to scale.deepspeed)",
    "use_cpu": "scale.resources_per_worker (without GPU)",
    "no_cuda": "scale.resources_per_worker (without GPU)",
    "report_to": "track.wandb, track.tensorboard",
    "run_name": "name",
    "project": "track.wandb.project",
    "output_dir": "storage",
    "resume_from_checkpoint": "storage (each run has its folder there: 'ftlib resume RUN' goes on with it)",
    "reward_weights": "method.rewards (each has its weight)",
    "reward_funcs": "method.rewards",
    "reward_model_name_or_path": "method.rewards: [{function: model, arguments: {model: ...}}]",
    "cpo_alpha": "method.cpo_alpha (of type: simpo)",
    "simpo_gamma": "method.simpo_gamma (of type: simpo)",
}

HARMLESS: dict[str, str] = {
    "every evaluation is a checkpoint, the best weights are kept, and a run is gone on with by 'ftlib resume'": (
        "save_strategy save_total_limit save_only_model save_on_each_node save_safetensors load_best_model_at_end "
        "ignore_data_skip restore_callback_states_from_checkpoint enable_jit_checkpoint overwrite_output_dir"
    ),
    "rows come tokenized, with the columns that the trainer takes": (
        "dataset_kwargs dataset_num_proc remove_unused_columns label_names length_column_name padding_value "
        "is_encoder_decoder ignore_bias_buffers"
    ),
    "it is a matter of speed alone, and ftlib chooses it": (
        "dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
        "dataloader_multiprocessing_context dataloader_in_order group_by_length train_sampling_strategy use_cache "
        "padding_free pad_to_multiple_of torch_empty_cache_steps auto_find_batch_size skip_memory_metrics "
        "eval_accumulation_steps eval_do_concat_batches eval_use_gather_object batch_eval_metrics "
        "precompute_ref_batch_size "
        "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout "
        "accelerator_config ds3_gather_for_generation bf16_full_eval cache_implementation "
        "use_transformers_continuous_batching transformers_continuous_batching_config use_transformers_paged"
    ),
    "activations are recomputed in the way that works with everything else": (
        "activation_checkpointing_kwargs gradient_checkpointing_kwargs"
    ),
    "each command says what is done, and each run has its own log": (
        "do_train do_eval do_predict logging_strategy log_level log_level_replica log_on_each_node disable_tqdm "
        "logging_dir logging_nan_inf_filter include_num_input_tokens_seen include_for_metrics prediction_loss_only "
        "debug local_rank log_completions num_completions_to_print log_unique_prompts log_multimodal "
        "log_completions_hub_repo generate_during_eval"
    ),
    "the untuned base is evaluated before a sweep's trials (sweep.baseline)": "eval_on_start eval_delay",
    "TRL's default is what ftlib does": (
        "truncation_mode packing_strategy shuffle shuffle_dataset disable_dropout lora_task_type eval_packing "
        "average_tokens_across_devices use_bnb_nested_quant bnb_4bit_quant_type bnb_4bit_quant_storage"
    ),
}

# Here they are not; without them the same is learned.
ABSENT: dict[str, str] = {
    "it exists for CUDA alone, and changes no number": (
        "use_liger_kernel liger_kernel_config use_liger_loss torch_compile torch_compile_backend torch_compile_mode"
    ),
    "activations are recomputed or kept on the GPU, and never sent to the CPU; use train.activation_checkpointing": (
        "activation_offloading"
    ),
    "completions of grpo and rloo are written by the model itself, in the trainer": (
        "use_vllm vllm_mode vllm_model_impl vllm_enable_sleep_mode vllm_structured_outputs_regex vllm_server_base_url "
        "vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port vllm_gpu_memory_utilization "
        "vllm_max_model_length vllm_tensor_parallel_size vllm_importance_sampling_correction "
        "vllm_importance_sampling_mode vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min "
        "vllm_importance_sampling_cap"
    ),
    "a trial's numbers hang on train.seed alone on one machine, and no mode makes other machines agree": (
        "full_determinism"
    ),
    "trackers are W&B, MLflow and TensorBoard (track.wandb, track.mlflow, track.tensorboard)": (
        "trackio_space_id trackio_bucket_id trackio_static_space_id"
    ),
    "weights stay where storage says; a winner is put into the registry with 'ftlib promote'": (
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision"
    ),
}

REFUSED: dict[str, str] = {
    "float16 needs a scaler of gradients; use train.bf16, or model.dtype: float32": (
        "fp16 fp16_full_eval half_precision_backend"
    ),
    "a model is split by parameters (scale.strategy: fsdp or deepspeed), not by tensors or sequences": (
        "parallelism_config"
    ),
    "DPO is computed as TRL does, with what method has": (
        "ld_alpha f_alpha_divergence_coef use_weighting discopop_tau sync_ref_model ref_model_mixup_alpha "
        "ref_model_sync_steps"
    ),
    "grpo and rloo are computed as TRL does, with what method has": (
        "cast_lm_head_to_fp32 num_generations_eval generation_batch_size steps_per_generation top_k min_p "
        "generation_kwargs chat_template_kwargs repetition_penalty delta epsilon_high sapo_temperature_neg "
        "sapo_temperature_pos vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg importance_sampling_level "
        "multi_objective_aggregation mask_truncated_completions top_entropy_quantile entropy_coef use_adaptive_entropy "
        "entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target max_tool_calling_iterations "
        "off_policy_mask_threshold use_bias_correction_kl reward_clip_range"
    ),
    "rows are read whole before training, so data sets must fit on the disk": "dataset_streaming",
    "the last batch of an epoch is trained on like the others": "dataloader_drop_last",
}
