"""LLaMA-Factory's keys (its hparams of August 2026, and its 95 examples). `OURS`: key -> path here; the others:
reason -> keys. Those that it takes from transformers are in `trl`."""

from __future__ import annotations

OURS: dict[str, str] = {
    "model_name_or_path": "model.name_or_path",
    "model": "model.name_or_path",
    "model_revision": "model.revision",
    "quantization_bit": "model.quantization (4: nf4, 8: int8)",
    "flash_attn": "model.attn_implementation (fa2: flash_attention_2)",
    "rope_scaling": "model.config: {rope_scaling: ...}",
    "train_from_scratch": "model.init: random",
    "trust_remote_code": "model.trust_remote_code",
    "add_tokens": "model.special_tokens.tokens",
    "add_special_tokens": "model.special_tokens.additional_special_tokens",
    "new_special_tokens_config": "model.special_tokens.additional_special_tokens",
    "pure_bf16": "model.dtype: bfloat16",
    "compute_dtype": "model.dtype",
    "infer_dtype": "model.dtype",
    "adapter_name_or_path": "adapter.from",
    "stage": "method.type (pt: pretrain, rm: reward)",
    "pref_loss": "method.loss_type (of type: dpo; orpo and simpo are types of their own)",
    "pref_beta": "method.beta",
    "pref_ftx": "method.loss_type: [sigmoid, sft], and method.loss_weights: [1.0, FTX]",
    "dpo_label_smoothing": "method.label_smoothing",
    "kto_chosen_weight": "method.desirable_weight",
    "kto_rejected_weight": "method.undesirable_weight",
    "simpo_gamma": "method.simpo_gamma (of type: simpo)",
    "reward_model": "method.rewards: [{function: model, arguments: {model: ...}}] (of type: grpo or rloo)",
    "finetuning_type": "adapter.type (full: adapter: null; freeze: type: layers)",
    "lora_rank": "adapter.r",
    "lora_alpha": "adapter.lora_alpha",
    "lora_dropout": "adapter.lora_dropout",
    "lora_target": "adapter.target_modules (all: all-linear)",
    "additional_target": "adapter.modules_to_save",
    "use_dft_loss": "method.loss_type: dft (of type: sft)",
    "moe_aux_loss_coef": "method.router_aux_loss_coef (of type: sft or pretrain)",
    "loraplus_lr_ratio": "adapter.lora_plus_ratio",
    "use_rslora": "adapter.use_rslora",
    "use_dora": "adapter.use_dora",
    "pissa_init": "adapter.init_lora_weights: pissa",
    "pissa_iter": "adapter.init_lora_weights: pissa_niter_16",
    "freeze_trainable_layers": "adapter.num_layers (of type: layers)",
    "oft_rank": "adapter.r (of type: oft)",
    "oft_block_size": "adapter.oft_block_size (of type: oft)",
    "oft_target": "adapter.target_modules (of type: oft)",
    "module_dropout": "adapter.module_dropout (of type: oft)",
    "dataset": "data.train (a list of {path, weight, format, columns})",
    "train_dataset": "data.train",
    "dataset_dir": "data.train (a path)",
    "eval_dataset": "data.eval",
    "interleave_probs": "data.train (each set's weight)",
    "mix_strategy": "data.train (each set's weight says how often its rows are met)",
    "template": "data.template",
    "cutoff_len": "data.max_length",
    "train_on_prompt": "data.train_on_prompt",
    "packing": "data.packing",
    "neat_packing": "data.packing",
    "max_samples": "data.max_rows",
    "val_size": "data.eval_split",
    "default_system": "a system turn in each row",
    "early_stopping_steps": "train.early_stopping_patience",
    "use_galore": "train.optim: galore_adamw",
    "galore_target": "train.optim_target_modules",
    "galore_rank": "train.optim_args: rank=...",
    "galore_update_interval": "train.optim_args: update_proj_gap=...",
    "galore_scale": "train.optim_args: scale=...",
    "galore_proj_type": "train.optim_args: proj_type=...",
    "galore_layerwise": "train.optim: galore_adamw_layerwise",
    "use_apollo": "train.optim: apollo_adamw",
    "apollo_target": "train.optim_target_modules",
    "apollo_rank": "train.optim_args: rank=...",
    "apollo_update_interval": "train.optim_args: update_proj_gap=...",
    "apollo_scale": "train.optim_args: scale=...",
    "apollo_proj": "train.optim_args: proj=...",
    "apollo_proj_type": "train.optim_args: proj_type=...",
    "apollo_scale_type": "train.optim_args: scale_type=...",
    "apollo_layerwise": "train.optim: apollo_adamw_layerwise",
    "apollo_scale_front": "train.optim_args: scale_front=...",
    "optim_config": "train.optim",
    "ray_num_workers": "scale.num_workers",
    "num_processes": "scale.num_workers",
    "num_machines": "scale.num_workers (Ray places them)",
    "dist_config": "scale.strategy",
    "distributed_type": "scale.strategy",
    "mixed_precision": "train.bf16",
    "fsdp_transformer_layer_cls_to_wrap": "scale.transformer_layer_cls_to_wrap",
    "peft_config": "adapter",
    "quant_config": "model.quantization",
    "init_config": "model.init",
    "max_new_tokens": "max_completion_tokens of a request to the endpoint (method.max_completion_length in training)",
}

HARMLESS: dict[str, str] = {
    "prepared data is kept under FTLIB_HOME by its content, and found again": (
        "overwrite_cache preprocessing_batch_size preprocessing_num_workers tokenized_path data_shared_file_system "
        "cache_dir"
    ),
    "each run has a folder of its own, so nothing is written over": "overwrite_output_dir",
    "the tokenizer is the model's own": "use_fast_tokenizer split_special_tokens",
    "new tokens get rows of their own, drawn around the mean of the others": "resize_vocab init_special_tokens",
    "the labels of a prompt carry no loss": "ignore_pad_token_for_loss",
    "weights are read on the device that trains": "low_cpu_mem_usage device_map offload_folder quantization_device_map",
    "a token of the environment (HF_TOKEN) is used": "hf_hub_token ms_hub_token om_hub_token",
    "it prints, and metrics.jsonl keeps the numbers": (
        "print_param_status plot_loss include_effective_tokens_per_second compute_accuracy"
    ),
    "nf4 with its constants quantized too is what model.quantization: nf4 means": (
        "quantization_method quantization_type double_quantization"
    ),
    "activations are recomputed in the way that works with everything else": "use_reentrant_gc",
    "Ray starts the workers and tells them of each other": (
        "ray_init_kwargs master_addr master_port rdzv_backend same_network machine_rank main_process_ip "
        "main_process_port main_training_function compute_environment tpu_env tpu_use_cluster tpu_use_sudo "
        "downcast_bf16 debug"
    ),
    "an adapter is kept beside its base; 'ftlib merge' computes it in": (
        "export_dir export_size export_device export_legacy_format create_new_adapter pissa_convert adapter_folder"
    ),
    "the class is the model's own": "model_class batching_strategy sample_backend kernel_config use_v1_kernels",
    "a classifier of ftlib serves itself, and a request has its own temperature and stop": (
        "infer_backend use_kv_cache do_sample num_beams length_penalty skip_special_tokens eval_num_beams"
    ),
}

# Here they are not; without them the same is learned.
ABSENT: dict[str, str] = {
    "how Megatron keeps its optimizer, sends, fuses and recomputes changes nothing that is learned": (
        "use_distributed_optimizer overlap_grad_reduce overlap_param_gather apply_rope_fusion bias_activation_fusion "
        "moe_grouped_gemm moe_token_dispatcher_type recompute_granularity sequence_parallel cp_mode "
        "use_packed_sequences export_hf_on_finish"
    ),
    "it exists for CUDA alone, and changes no number": (
        "enable_liger_kernel use_unsloth use_unsloth_gc block_diag_attn use_kt kt_config kt_cpu_activation "
        "kt_weight_path kt_non_expert_weight_path kt_expert_checkpoint_path kt_use_lora_experts kt_lora_expert_num "
        "kt_lora_expert_intermediate_size"
    ),
    "it is set where the endpoint is started ('ftlib serve')": (
        "vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank vllm_config sglang_maxlen "
        "sglang_mem_fraction sglang_tp_size sglang_config sglang_lora_backend"
    ),
    "weights stay where storage says; a winner is put into the registry with 'ftlib promote'": "export_hub_model_id",
    "trackers are W&B, MLflow and TensorBoard (track.wandb, track.mlflow, track.tensorboard)": (
        "use_swanlab swanlab_project swanlab_workspace swanlab_run_name swanlab_mode swanlab_api_key swanlab_logdir "
        "swanlab_lark_webhook_url swanlab_lark_secret"
    ),
    "ftlib has no profiler; torch's own can be put around 'python -m ftlib.cli train'": (
        "enable_torch_profiler profiler_output_dir profiler_wait_steps profiler_warmup_steps profiler_active_steps "
        "profiler_repeat profiler_record_shapes profiler_profile_memory profiler_with_stack profile_modules"
    ),
    "an evaluation gives the method's own numbers, and writes no text": "predict_with_generate",
}

REFUSED: dict[str, str] = {
    "PPO needs four models at once; use method: {type: grpo} or {type: rloo}": (
        "ppo_buffer_size ppo_epochs ppo_score_norm ppo_target ppo_whiten_rewards reward_model_adapters "
        "reward_model_quantization_bit reward_model_type"
    ),
    "the reference of a preference method is the base itself": (
        "ref_model ref_model_adapters ref_model_quantization_bit"
    ),
    "DPO is computed as TRL does, with what method has": "pref_bco_weight ld_alpha",
    "attention is the model's own, over the whole row": "shift_attn",
    "losses are those of method.type": "use_asft_loss asft_alpha use_eaft_loss eaft_alpha",
    "one learning rate is for all weights": "loraplus_lr_embedding",
    "of a model the last layers are trained, or all (adapter: {type: layers}, or null)": (
        "freeze_trainable_modules freeze_extra_modules use_llama_pro mixture_of_depths"
    ),
    "the optimizer is one of transformers' (train.optim)": (
        "use_badam badam_mode badam_start_block badam_switch_mode badam_switch_interval badam_update_ratio "
        "badam_mask_mode badam_verbose use_adam_mini use_muon"
    ),
    "a model is split by parameters (scale.strategy: fsdp or deepspeed), not by tensors, sequences or experts": (
        "use_mca use_megatron_bridge megatron_bridge_args use_hyper_parallel hyper_parallel_args "
        "hyper_parallel_cp_size pipeline_model_parallel_size tensor_model_parallel_size expert_model_parallel_size "
        "cp_size context_parallel_size"
    ),
    "weights of 8 or fewer bits are frozen ones (model.quantization: nf4 or int8)": (
        "fp8 fp8_backend fp8_enable_fsdp_float8_all_gather export_quantization_bit export_quantization_dataset "
        "export_quantization_nsamples export_quantization_maxlen"
    ),
    "ftlib trains on text": (
        "freeze_vision_tower freeze_multi_modal_projector freeze_language_model media_dir image_max_pixels "
        "image_min_pixels image_do_pan_and_scan crop_to_patches video_max_pixels video_min_pixels video_fps "
        "video_maxlen use_audio_in_video audio_sampling_rate"
    ),
    "rows are read whole before training, so data sets must fit on the disk": "streaming buffer_size",
    "every answer of a conversation is trained on; a turn's weight of 0 leaves it out": "mask_history",
    "all evaluation rows are one set (data.eval)": "eval_on_each_dataset",
    "tools and thoughts are written by the tokenizer's own template (data.template: tokenizer)": (
        "tool_format enable_thinking preserve_thinking"
    ),
    "activations are kept unless train.activation_checkpointing says otherwise": "disable_gradient_checkpointing",
    "weights have the dtype that model.dtype says": "upcast_layernorm upcast_lmhead_output",
    "rows are met in an order that train.seed draws": "disable_shuffling",
    "a model's window is its own": "model_max_length",
}
