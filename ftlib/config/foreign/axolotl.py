"""Axolotl's keys (its schemas of July 2026, and its 252 examples). `OURS`: key -> path here; the others: reason ->
keys."""

from __future__ import annotations

OURS: dict[str, str] = {
    # model
    "base_model": "model.name_or_path",
    "base_model_config": "model.name_or_path",
    "tokenizer_config": "model.tokenizer",
    "revision_of_model": "model.revision",
    "overrides_of_model_config": "model.config",
    "model_config": "model.config",
    "rope_scaling": "model.config: {rope_scaling: ...}",
    "torch_dtype": "model.dtype",
    "float16": "model.dtype: float16",
    "float32": "model.dtype: float32",
    "bfloat16": "train.bf16",
    "bf16": "train.bf16",
    "tf32": "train.tf32",
    "load_in_4bit": "model.quantization: nf4",
    "load_in_8bit": "model.quantization: int8",
    "attn_implementation": "model.attn_implementation",
    "flash_attention": "model.attn_implementation: flash_attention_2",
    "sdp_attention": "model.attn_implementation: sdpa",
    "eager_attention": "model.attn_implementation: eager",
    "reinit_weights": "model.init: random",
    "quantize_moe_experts": "model.quantize_moe_experts",
    "trust_remote_code": "model.trust_remote_code",
    "special_tokens": "model.special_tokens",
    "tokens": "model.special_tokens.tokens",
    "num_labels": "method.type: classify (the labels are counted in the data)",
    # method
    "rl": "method.type",
    "reward_model": "method.type: reward",
    "center_rewards_coefficient": "method.center_rewards_coefficient",
    "rl_beta": "method.beta",
    "dpo_beta": "method.beta",
    "orpo_alpha": "method.beta (of type: orpo)",
    "dpo_loss_type": "method.loss_type",
    "dpo_loss_weights": "method.loss_weights",
    "dpo_label_smoothing": "method.label_smoothing",
    "precompute_ref_log_probs": "method.precompute_ref_log_probs",
    "rpo_alpha": "method.loss_type: [sigmoid, sft], and method.loss_weights: [1.0, ALPHA]",
    "cpo_alpha": "method.cpo_alpha (of type: simpo)",
    "simpo_gamma": "method.simpo_gamma (of type: simpo)",
    "kto_desirable_weight": "method.desirable_weight",
    "kto_undesirable_weight": "method.undesirable_weight",
    "trl": "method (rewards, num_generations, max_completion_length, beta and their like are keys of it)",
    "kd_trainer": "method.type: distill",
    "kd_alpha": "method.alpha (of type: distill)",
    "kd_ce_alpha": "method.alpha (the labels' cross-entropy has the rest of 1)",
    "kd_temperature": "method.temperature",
    "kd_online_server_base_url": "method.teacher (a URL, with kind: sequence)",
    "kd_online_topk": "method.top_k",
    # adapter
    "adapter": "adapter.type",
    "full_finetune": "adapter: null",
    "lora_r": "adapter.r",
    "lora_alpha": "adapter.lora_alpha",
    "lora_dropout": "adapter.lora_dropout",
    "lora_target_modules": "adapter.target_modules",
    "lora_target_linear": "adapter.target_modules: all-linear",
    "lora_rank_pattern": "adapter.rank_pattern",
    "lora_alpha_pattern": "adapter.alpha_pattern",
    "peft_use_dora": "adapter.use_dora",
    "peft_use_rslora": "adapter.use_rslora",
    "peft_init_lora_weights": "adapter.init_lora_weights",
    "loraplus_lr_ratio": "adapter.lora_plus_ratio",
    "lora_model_dir": "adapter.from",
    "lora_modules_to_save": "adapter.modules_to_save",
    "lora_target_parameters": "adapter.target_parameters",
    "peft_ensure_weight_tying": "adapter.ensure_weight_tying",
    "unfrozen_parameters": "adapter.parameters (of type: layers)",
    # data
    "datasets": "data.train (a list of {path, weight, format, columns})",
    "pretraining_dataset": "data.train (with method.type: pretrain)",
    "test_datasets": "data.eval",
    "val_set_size": "data.eval_split",
    "chat_template": "data.template",
    "sequence_len": "data.max_length",
    "excess_length_strategy": "data.long_rows (cut, drop or error)",
    "train_on_inputs": "data.train_on_prompt",
    "sample_packing": "data.packing",
    "dataset_exact_deduplication": "data.deduplicate",
    "default_system_message": "a system turn in each row",
    # train
    "micro_batch_size": "train.per_device_train_batch_size",
    "batch_size": "train.per_device_train_batch_size (of one worker; gradient_accumulation_steps of them are a step)",
    "eval_batch_size": "train.per_device_eval_batch_size",
    "gradient_accumulation_steps": "train.gradient_accumulation_steps",
    "num_epochs": "train.num_train_epochs",
    "max_steps": "train.max_steps",
    "learning_rate": "train.learning_rate",
    "lr_scheduler": "train.lr_scheduler_type",
    "lr_scheduler_kwargs": "train.lr_scheduler_kwargs",
    "cosine_min_lr_ratio": "train.lr_scheduler_kwargs: {min_lr_rate: ...} (of lr_scheduler_type: cosine_with_min_lr)",
    "eta_min": "train.lr_scheduler_kwargs: {min_lr: ...} (of lr_scheduler_type: cosine_with_min_lr)",
    "warmup_steps": "train.warmup_steps",
    "warmup_ratio": "train.warmup_steps (below 1 it is a ratio)",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.max_grad_norm",
    "optimizer": "train.optim",
    "optim_args": "train.optim_args",
    "optim_target_modules": "train.optim_target_modules",
    "adam_beta1": "train.adam_beta1",
    "adam_beta2": "train.adam_beta2",
    "adam_epsilon": "train.adam_epsilon",
    "adam_eps": "train.adam_epsilon",
    "gradient_checkpointing": "train.activation_checkpointing",
    "neftune_noise_alpha": "train.neftune_noise_alpha",
    "noisy_embedding_alpha": "train.neftune_noise_alpha",
    "logging_steps": "train.logging_steps",
    "eval_strategy": "train.eval_strategy",
    "evaluation_strategy": "train.eval_strategy",
    "eval_steps": "train.eval_steps",
    "evals_per_epoch": "train.evals_per_epoch",
    "save_steps": "train.save_steps",
    "saves_per_epoch": "train.evals_per_epoch (each evaluation is a checkpoint), or train.save_steps",
    "early_stopping_patience": "train.early_stopping_patience",
    "dataloader_num_workers": "train.dataloader_num_workers",
    "seed": "train.seed",
    "metric_for_best_model": "sweep.metric",
    "greater_is_better": "sweep.mode",
    # scale, track, the rest
    "deepspeed": "scale.strategy: deepspeed (the file goes to scale.deepspeed)",
    "fsdp": "scale.strategy: fsdp",
    "fsdp_config": "scale.strategy: fsdp (its keys stand in scale: reshard_after_forward, cpu_offload ...)",
    "ddp": "scale.strategy: ddp",
    "use_ray": "scale.num_workers (ftlib is on Ray anyway)",
    "ray_num_workers": "scale.num_workers",
    "world_size": "scale.num_workers",
    "resources_per_worker": "scale.resources_per_worker",
    "ray_run_name": "name",
    "wandb_project": "track.wandb.project",
    "wandb_entity": "track.wandb.entity",
    "wandb_name": "track.wandb.name",
    "wandb_mode": "track.wandb.mode",
    "wandb_log_model": "track.wandb.log_model",
    "use_wandb": "track.wandb (null turns it off)",
    "use_tensorboard": "track.tensorboard",
    "use_mlflow": "track.mlflow",
    "mlflow_tracking_uri": "track.mlflow.uri",
    "mlflow_experiment_name": "track.mlflow.experiment",
    "output_dir": "storage",
    "resume_from_checkpoint": "storage (each run has its folder there: 'ftlib resume RUN' goes on with it)",
}

HARMLESS: dict[str, str] = {
    "the model's own config says its class and family": (
        "model_type type_of_model tokenizer_type tokenizer_use_fast tokenizer_legacy is_falcon_derived_model "
        "is_llama_derived_model is_mistral_derived_model is_qwen_derived_model cls_model_config processor_type"
    ),
    "prepared data is kept under FTLIB_HOME by its content, and found again": (
        "dataset_prepared_path dataset_processes dataset_num_proc dataset_keep_in_memory dataset_shard_num "
        "dataset_shard_idx num_dataset_shards_to_save is_preprocess preprocess_iterable skip_prepare_dataset "
        "remove_unused_columns sample_packing_mp_start_method"
    ),
    "every evaluation is a checkpoint, the best weights are kept, and a run is gone on with by 'ftlib resume'": (
        "save_strategy save_total_limit save_only_model save_first_step load_best_model_at_end "
        "auto_resume_from_checkpoints dynamic_checkpoint save_safetensors fsdp_final_state_dict_type merge_lora "
        "tokenizer_save_jinja_files"
    ),
    "weights are always safetensors and read on the device that trains": (
        "low_cpu_mem_usage lora_on_cpu device device_map local_rank max_memory gpu_memory_limit "
        "experimental_skip_move_to_device hf_use_auth_token"
    ),
    "it is a matter of speed alone, and ftlib chooses it": (
        "dataloader_pin_memory dataloader_prefetch_factor group_by_length pad_to_sequence_len pad_to_multiple_of "
        "multipack_real_batches sample_packing_group_size sample_packing_bin_size sample_packing_eff_est "
        "sample_packing_seq_len_multiplier sample_packing_sequentially eval_sample_packing batch_flattening "
        "max_packed_sequence_len total_num_tokens total_supervised_tokens torch_empty_cache_steps gc_steps "
        "gc_collect_steps ddp_bucket_cap_mb ddp_broadcast_buffers ddp_find_unused_parameters ddp_timeout "
        "dpo_use_logits_to_keep dpo_padding_free qlora_sharded_model_loading fsdp_version accelerator_config "
        "auto_find_batch_size include_tokens_per_second include_tkps flash_attn_rms_norm flash_attn_fuse_mlp "
        "flash_attn_cross_entropy xformers_attention peft_autocast_adapter_dtype embeddings_skip_upcast"
    ),
    "activations are recomputed in the way that works with everything else": "gradient_checkpointing_kwargs",
    "rows are met in an order that train.seed draws": "shuffle_merged_datasets shuffle_before_merging_datasets",
    "it is for looking into Axolotl itself, or into the machine it runs on": (
        "debug strict axolotl_config_path capabilities env_capabilities profiler_steps profiler_steps_start test_value"
    ),
    "it belongs to a cloud's or a service's own launcher; 'ftlib submit' takes a cluster.yaml": (
        "project_name secrets gpu gpu_count node_count provider timeout branch memory memory_preprocess "
        "dockerfile_commands timeout_preprocess volumes base_model_ignore_patterns"
    ),
    "plugins load Axolotl's own code; what ftlib has of them are keys": "plugins",
    "a tracker's run is made for each trial, and resumed with it": (
        "wandb_run_id wandb_watch mlflow_run_name hf_mlflow_log_artifacts"
    ),
    "rows that cannot be used are named; data.on_bad_row: skip leaves them out": "min_sample_len",
    "rows are read whole, in an order that train.seed draws": (
        "streaming streaming_multipack_buffer_size pretrain_multipack_buffer_size"
    ),
    "the untuned base is evaluated before a sweep's trials (sweep.baseline)": "do_causal_lm_eval",
}

# Here they are not; without them the same is learned.
ABSENT: dict[str, str] = {
    "experts stand where the rest of the model stands, and are computed by the model's own code": (
        "dp_shard_size dp_replicate_size expert_parallel_size expert_parallel_backend "
        "expert_parallel_fallback_on_unsupported expert_parallel_num_nvl_bytes expert_parallel_num_rdma_bytes "
        "expert_parallel_token_capacity expert_backend experts_implementation moe_grouped_backend "
        "moe_dequant_chunk_size llama4_linearized_experts dsv4_shared_mlp_lora_kernel gemma4_hybrid_attn_impl"
    ),
    "it exists for CUDA alone, and changes no number (Liger's and other fused kernels)": (
        "liger_cross_entropy liger_fused_linear_cross_entropy liger_glu_activation liger_layer_norm liger_rms_norm "
        "liger_rms_norm_gated liger_rope liger_swiglu liger_use_token_scaling cut_cross_entropy chunked_cross_entropy "
        "chunked_cross_entropy_num_chunks large_head_attention lora_embedding_kernel lora_mlp_kernel lora_o_kernel "
        "lora_qkv_kernel dpo_use_liger_kernel fused_attn_kernel tiled_mlp tiled_mlp_num_shards "
        "tiled_mlp_use_original_mlp use_kernels moe_bnb_fast use_scattermoe use_sonicmoe use_dsv4_kernels "
        "use_glm_dsa_kernels flex_attention flex_attn_compile_kwargs sage_attention sdpa_varlen "
        "flash_attn_d512 pretrain_multipack_attn torch_compile torch_compile_backend torch_compile_mode "
        "torch_compile_options deepcompile flash_optimum torchdistx_path"
    ),
    "activations are recomputed or kept on the GPU, and never sent to the CPU; use train.activation_checkpointing": (
        "activation_offloading selective_checkpointing layer_offloading"
    ),
    "a model is not quantized after its training; the endpoint serves it as it was trained": "quantization",
    "a tokenizer's new tokens get rows of their own, as many as there are": (
        "resize_token_embeddings_to_32x shrink_embeddings mean_resizing_embeddings"
    ),
    "the loss is watched: one that is no number ends the trial": "loss_watchdog_threshold loss_watchdog_patience",
    "an evaluation gives the method's own numbers": (
        "eval_causal_lm_metrics eval_table_size eval_max_new_tokens do_bench_eval bench_dataset bench_split "
        "generate_samples num_generation_samples generation_max_new_tokens generation_temperature generation_top_p "
        "generation_top_k generation_do_sample generation_prompt_ratio lm_eval_batch_size lm_eval_model "
        "lm_eval_post_train lm_eval_tasks"
    ),
    "trackers are W&B, MLflow and TensorBoard (track.wandb, track.mlflow, track.tensorboard)": (
        "use_comet "
        "comet_api_key comet_workspace comet_project_name comet_experiment_key comet_mode comet_online "
        "comet_experiment_config use_trackio trackio_project_name trackio_run_name trackio_space_id use_swanlab "
        "swanlab_api_host swanlab_api_key swanlab_completion_log_interval swanlab_completion_max_buffer "
        "swanlab_description swanlab_experiment_name swanlab_lark_secret swanlab_lark_webhook_url "
        "swanlab_log_completions swanlab_log_model swanlab_mode swanlab_project swanlab_web_host swanlab_workspace "
        "use_otel_metrics otel_metrics_host otel_metrics_port"
    ),
    "weights stay where storage says; a winner is put into the registry with 'ftlib promote'": (
        "hub_model_id hub_strategy hub_revision push_dataset_to_hub"
    ),
    "models are tried at the page of the endpoint ('ftlib serve')": (
        "gradio_title gradio_share gradio_server_name gradio_server_port gradio_max_new_tokens gradio_temperature"
    ),
    "completions of grpo and rloo are written by the model itself, in the trainer": "vllm",
}

REFUSED: dict[str, str] = {
    "weights of 8 or fewer bits are frozen ones (model.quantization: nf4 or int8)": (
        "fp8 fp8_enable_fsdp_float8_all_gather gptq gptq_model_v1 gptq_groupsize gptq_disable_exllama "
        "bnb_config_kwargs model_quantization_config model_quantization_config_kwargs nonexpert_quantization "
        "gemma4_fp8_nonexpert gemma4_nf4_nonexpert nvfp4_merge_aware nvfp4_merge_aware_start_step peft "
        "llmcompressor use_onebitllms"
    ),
    "train.qat rounds weights alone, int4 in groups of 32, and no activations: set it where that is meant": "qat",
    "float16 needs a scaler of gradients; use train.bf16, or model.dtype: float32": "fp16",
    "a model is split by parameters (scale.strategy: fsdp or deepspeed), not by tensors or sequences": (
        "tensor_parallel_size context_parallel_size context_parapllel_size sequence_parallel_degree heads_k_stride "
        "ring_attn_func"
    ),
    "experts are computed as the model's code does, in the dtype of the model": (
        "dense_mixer dsv4_bf16_all dsv4_fp4_grouped_mode dsv4_fp8_lora_kernel dsv4_fp8_nonexpert_mode"
    ),
    "embeddings are trained as a whole (adapter.modules_to_save: [embed_tokens]), and not some rows of them": (
        "peft_trainable_token_indices fix_untrained_tokens"
    ),
    "a LoRA stands on all layers that adapter.target_modules matches (a list, or a regular expression over names)": (
        "peft_layers_to_transform peft_layers_pattern peft_layer_replication lora_fan_in_fan_out"
    ),
    "the weights that are trained are the same in all steps (adapter: {type: layers} names them)": (
        "spectrum_top_fraction spectrum_model_name lisa_n_layers lisa_step_interval lisa_layers_attribute"
    ),
    "LoRA is not merged and begun again during training (ReLoRA, MoRA)": (
        "relora relora_prune_ratio relora_prune_method relora_cpu_offload jagged_restart_steps "
        "jagged_restart_warmup_steps jagged_restart_anneal_steps mora merge_method"
    ),
    "the schedule is one of transformers' (train.lr_scheduler_type), after a warmup in a line": (
        "lr_quadratic_warmup lr_div_factor cosine_constant_lr_ratio"
    ),
    "rows are met in an order that train.seed draws, not in that of the file": "curriculum_sampling",
    "one learning rate is for all weights": "lr_groups embedding_lr embedding_lr_scale loraplus_lr_embedding",
    "AdamW has two betas and one epsilon (train.adam_beta1, adam_beta2, adam_epsilon)": "adam_beta3 adam_epsilon2",
    "the optimizer is one of transformers' (train.optim)": (
        "dion_lr dion_momentum dion_rank_fraction dion_rank_multiple_of grokfast_alpha grokfast_lamb "
        "qgalore_cos_threshold qgalore_gamma_proj qgalore_proj_bits qgalore_proj_group_size qgalore_proj_quant "
        "qgalore_proj_type qgalore_queue_size qgalore_rank qgalore_scale qgalore_update_proj_gap"
    ),
    "the trainer is TRL's or transformers', chosen by method.type": "trainer_cls",
    "DPO is computed as TRL does, with what method has": "dpo_use_weighting dpo_norm_loss dpo_generate_during_eval",
    "a distillation has one temperature and the logits that the teacher gives": (
        "kd_beta kd_normalize_topk kd_online_server kd_online_timeout kd_temperature_min"
    ),
    "attention is the model's own, over the whole row": "s2_attention",
    "losses are those of method.type": "use_eaft eaft_alpha eaft_k process_reward_model ebft diffusion",
    "tools and thoughts are written by the tokenizer's own template (data.template: tokenizer)": (
        "chat_template_jinja chat_template_kwargs eot_tokens role_boundaries added_tokens_overrides "
        "tokenizer_use_mistral_common"
    ),
    "the model's code is transformers'": "overrides_of_model_kwargs processor_kwargs",
    "rows are read whole before training, so data sets must fit on the disk": (
        "pretraining_sample_concatenation sample_packing_streaming"
    ),
    "a row that is longer than data.max_length is cut, for prompts and answers together": (
        "max_prompt_len eval_sequence_len use_pose pose_max_context_len pose_num_chunks pose_split_on_token_ids"
    ),
    "the last batch of an epoch is trained on like the others": "dataloader_drop_last",
    "ftlib trains on text": ("freeze_mm_modules image_size image_resize_algorithm"),
    "attention is computed as the model's code says (model.attn_implementation)": (
        "scaling_softmax scaling_softmax_factor scaling_softmax_bias fp32_norms fp32_norm_classes"
    ),
    "an environment of its own cannot be asked for rewards; method.rewards takes Python functions and models": (
        "nemo_gym_auto_clone nemo_gym_auto_start nemo_gym_config_paths nemo_gym_datasets nemo_gym_dir "
        "nemo_gym_enabled nemo_gym_head_port nemo_gym_max_turns nemo_gym_model_name nemo_gym_multi_turn "
        "nemo_gym_run_timeout nemo_gym_server_timeout nemo_gym_verify_timeout hatchery"
    ),
}
