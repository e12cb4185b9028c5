"""`scale.strategy`: how a trial's weights, gradients and optimizer are spread over its workers.

One class a strategy. Each says what `TrainingArguments` need (`arguments`), what comes before weights are read
(`before_loading`), what is done to the trainer before it trains or only evaluates (`prepare`, `prepare_evaluation`),
and proves at the first step that it is in use (`prove`): transformers falls back to DDP in silence.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import math
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from transformers.utils import is_torch_tf32_available
from transformers.utils.import_utils import enable_tf32

from ftlib.config import SAID_ELSEWHERE, Experiment, ScaleSection, TrainSection
from ftlib.errors import FtlibError, TrialError

if TYPE_CHECKING:
    from transformers import Trainer

# What each strategy leaves in a checkpoint beside the weights that a person can load.
STATE_FILES = ("optimizer.bin", "pytorch_model_fsdp.bin", "global_step*", "latest", "zero_to_*.py")


class Single:
    """One worker that holds everything."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.scale, self.train = experiment, experiment.scale, experiment.train

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `TrainingArguments` beyond those that all strategies share."""
        return {}

    def before_loading(self) -> None:
        """Called before the base model is read. The strategy must live until the trainer does."""

    def prepare(self, trainer: Trainer) -> None:
        """Called once the trainer is built."""

    def prepare_evaluation(self, trainer: Trainer) -> None:
        """Called before `evaluate` where nothing is trained."""

    def prove(self, trainer: Trainer) -> None:
        """Raises TrialError where the trainer that begins to train is not spread as the experiment says."""
        if trainer.args.world_size != self.scale.num_workers:
            raise _unused(self.scale, f"{trainer.args.world_size} of {self.scale.num_workers} workers train together")


class DDP(Single):
    """Every worker holds everything; gradients are averaged (Li et al. 2020, arXiv:2006.15704)."""

    def prove(self, trainer: Trainer) -> None:
        super().prove(trainer)
        if not isinstance(trainer.model_wrapped, torch.nn.parallel.DistributedDataParallel):
            raise _unused(self.scale, f"the model is a bare {type(trainer.model_wrapped).__name__}")


class FSDP(Single):
    """Weights, gradients and optimizer in N parts (FSDP2, `torch.distributed.fsdp.fully_shard`), by accelerate."""

    def arguments(self) -> dict[str, Any]:
        # Not fsdp_config's own activation checkpointing: it does not keep the random state, so dropout would differ.
        return {
            "fsdp": True,
            "fsdp_config": {
                "version": 2,
                "reshard_after_forward": self.scale.reshard_after_forward,
                "cpu_offload": self.scale.cpu_offload,
                "transformer_layer_cls_to_wrap": self.scale.transformer_layer_cls_to_wrap,
            },
        }

    def prepare(self, trainer: Trainer) -> None:
        if not trainer.is_fsdp_enabled and trainer.accelerator.device.type == "cpu":
            _use_fsdp_on_cpu(trainer)
        _save_tied_weights_once(trainer)

    def prepare_evaluation(self, trainer: Trainer) -> None:
        """accelerate shards a model only together with an optimizer: this one holds no state and never steps."""
        optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.0)
        trainer.model, _ = trainer.accelerator.prepare(trainer.model, optimizer)

    def prove(self, trainer: Trainer) -> None:
        from torch.distributed.tensor import DTensor

        super().prove(trainer)
        for name, part in trainer.model.named_parameters():
            if not isinstance(part, DTensor):
                raise _unused(self.scale, f"{name} is whole on every worker")
            if part.to_local().numel() > _rows(part, self.scale.num_workers):
                raise _unused(self.scale, f"a worker holds {part.to_local().numel():,} of {part.numel():,} in {name}")


class DeepSpeed(Single):
    """ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054): optimizer in N parts (stage 1), gradients (2), weights (3)."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        _check_deepspeed(self.scale)
        if not self.scale.use_gpu:
            os.environ["DS_ACCELERATOR"] = "cpu"  # deepspeed would take a GPU that the worker was not given

    def arguments(self) -> dict[str, Any]:
        return {"deepspeed": self._config()}

    def before_loading(self) -> None:
        """Stage 3 reads weights straight into their parts: transformers does so while this configuration lives."""
        import deepspeed
        from transformers.integrations import HfDeepSpeedConfig

        # On a CPU it would build its own all-reduce over shared memory: a minute of a C++ compiler. gloo has one.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(auto_mpi_discovery=False)  # around the process group that is there
        self.alive = HfDeepSpeedConfig(self._config())

    def _config(self) -> dict[str, Any]:
        """DeepSpeed's JSON: what the experiment's own keys say, then the user's keys."""
        train, scale = self.train, self.scale
        zero: dict[str, Any] = {"stage": scale.stage}
        if scale.offload != "none":
            target: dict[str, Any] = {"device": scale.offload, "pin_memory": scale.use_gpu}
            if scale.nvme_path:
                target["nvme_path"] = scale.nvme_path
            zero["offload_optimizer"] = target
            if scale.stage == 3:
                zero["offload_param"] = target
        if scale.stage == 3:
            zero["stage3_gather_16bit_weights_on_model_save"] = True  # else a checkpoint has no weights to load
        ours = {
            "train_micro_batch_size_per_gpu": train.per_device_train_batch_size,
            "gradient_accumulation_steps": train.gradient_accumulation_steps,
            "train_batch_size": scale.num_workers
            * train.per_device_train_batch_size
            * train.gradient_accumulation_steps,
            "gradient_clipping": train.max_grad_norm,
            "bf16": {"enabled": computes_in_bf16(self.experiment)},
            "zero_optimization": zero,
            # Else accelerate puts DeepSpeed's CPU Adam in the place of train.optim, without its betas and epsilon.
            "zero_force_ds_cpu_optimizer": False,
        }
        theirs = {key: value for key, value in (scale.deepspeed or {}).items() if key not in SAID_ELSEWHERE}
        return _merged(ours, theirs)

    def prepare(self, trainer: Trainer) -> None:
        _save_tied_weights_once(trainer)

    def prepare_evaluation(self, trainer: Trainer) -> None:
        """Without an optimizer there is nothing that stages 1 and 2 would part: the model evaluates as it is."""
        if self.scale.stage != 3:
            trainer.is_deepspeed_enabled = False

    def prove(self, trainer: Trainer) -> None:
        super().prove(trainer)
        engine = trainer.model_wrapped
        stage = engine.zero_optimization_stage() if hasattr(engine, "zero_optimization_stage") else 0
        if stage != self.scale.stage:
            raise _unused(self.scale, f"ZeRO stage {stage} is in use, not {self.scale.stage}")
        workers = self.scale.num_workers
        if stage == 3:
            held = sum(part.ds_tensor.numel() for part in engine.module.parameters())
            bound = sum(math.ceil(part.ds_numel / workers) for part in engine.module.parameters())
        else:
            held = sum(part.numel() for part in engine.optimizer.single_partition_of_fp32_groups)
            trained = sum(part.numel() for part in engine.module.parameters() if part.requires_grad)
            bound = math.ceil(trained / workers) + 2 * workers * len(engine.optimizer.param_groups)  # padding
        if held > bound:
            raise _unused(self.scale, f"a worker holds {held:,} values where {bound:,} are its part")


STRATEGIES: dict[str, type[Single]] = {
    "single": Single,
    "ddp": DDP,
    "fsdp": FSDP,
    "deepspeed": DeepSpeed,
}


def strategy_of(experiment: Experiment) -> Single:
    """The strategy of `scale.strategy`. Raises TrialError when this machine cannot run it."""
    return STRATEGIES[experiment.scale.strategy](experiment)


def computes_in_bf16(experiment: Experiment) -> bool:
    """`train.bf16`, or, where that is null, whether the worker's GPU has it."""
    if experiment.train.bf16 is not None:
        return experiment.train.bf16
    return experiment.scale.use_gpu and torch.cuda.is_bf16_supported()


def use_tf32(train: TrainSection) -> None:
    """`train.tf32` for this process, as `TrainingArguments` sets it. Raises FtlibError where the GPU has none."""
    if train.tf32 and not is_torch_tf32_available():
        raise FtlibError("train.tf32 needs an Ampere GPU or a newer one: set it to null.")
    if train.tf32 is not None:
        enable_tf32(train.tf32)


def _use_fsdp_on_cpu(trainer: Trainer) -> None:
    """accelerate takes FSDP from a trainer on the CPU (`AcceleratorState.__init__` tests for GPUs only); its FSDP2
    itself runs on gloo, so this says to it what it would have said to itself on a GPU."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
    if trainer.accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(trainer.accelerator.mixed_precision)
    AcceleratorState._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    trainer.is_fsdp_enabled = True


def _save_tied_weights_once(trainer: Trainer) -> None:
    """Gathered weights are copies, so `save_pretrained` cannot see any more which of them are one."""
    gather, tied = trainer.accelerator.get_state_dict, getattr(trainer.model, "all_tied_weights_keys", None) or {}

    def gather_once(*args: Any, **kwargs: Any) -> dict[str, Any]:
        gathered = gather(*args, **kwargs) or {}  # rank 0 has the weights
        return {name: part for name, part in gathered.items() if name not in tied}

    trainer.accelerator.get_state_dict = gather_once


def _rows(part: torch.Tensor, workers: int) -> int:
    """The most that a worker may hold of a tensor cut along its first dimension."""
    return int(math.ceil(part.shape[0] / workers) * (part.numel() // part.shape[0]))


def _check_deepspeed(scale: ScaleSection) -> None:
    """Raises TrialError where deepspeed is missing, or what its NVMe offload needs: it is built at first use."""
    if importlib.util.find_spec("deepspeed") is None:
        raise TrialError("scale.strategy is 'deepspeed', which is not installed: pip install 'ftlib[deepspeed]'.")
    if scale.offload != "nvme":
        return
    _own_programs_are_found()
    missing = [program for program in ("ninja", "c++") if shutil.which(program) is None]
    if missing:
        raise TrialError(
            f"scale.offload is 'nvme', a part of deepspeed that is built at first use, but the worker has no "
            f"{' and no '.join(missing)}: install a C++ compiler and ninja."
        )
    if ctypes.util.find_library("aio") is None:
        raise TrialError("scale.offload is 'nvme', but the worker has no libaio: install it, or set offload: cpu.")


def _own_programs_are_found() -> None:
    """ninja comes with ftlib[deepspeed] and lies beside python, also where nobody activated the environment."""
    path, own = os.environ.get("PATH", ""), str(Path(sys.executable).parent)
    if own not in path.split(os.pathsep):
        os.environ["PATH"] = f"{path}{os.pathsep}{own}"


def _merged(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """`theirs` over `ours`, section by section; an "auto" is answered with ours."""
    merged = dict(ours)
    for key, value in theirs.items():
        if isinstance(value, dict):
            merged[key] = _merged(ours.get(key, {}), value)
        elif value != "auto" or key not in ours:
            merged[key] = value
    return merged


def _unused(scale: ScaleSection, why: str) -> TrialError:
    return TrialError(f"scale.strategy is '{scale.strategy}', but it is not in use: {why}.")
