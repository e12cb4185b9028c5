"""The parts of gpu_day.py, each of which prints its rows to a file as it finds them."""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gpu
import pack_step
import torch
from torch import Tensor

from ftlib.run import context

Row = dict[str, Any]
RANK = 16
WIDTHS = [1, 2, 4, 8, 16, 32]
CLOSE = {"float32": 1e-4, "bfloat16": 1e-2}  # what certificates promise of losses


@dataclass(frozen=True)
class Place:
    """Where a part runs, and how large."""

    tiny: bool
    folder: Path

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.tiny else "cuda")

    @property
    def dtype(self) -> str:
        return "float32" if self.tiny else "bfloat16"

    @property
    def seconds(self) -> float:
        """Of measuring one thing."""
        return 0.05 if self.tiny else 1.0

    def timed(self, action: Callable[[], Any]) -> float:
        return pack_step.timed(action, self.device, self.seconds)

    def synthetic(self, shape: str, weights: bool = False, **options: Any) -> tuple[Any, Any]:
        """A base of a shape of pack_step.py and rows of random tokens: (setting, data)."""
        asked = {"shape": "small" if self.tiny else shape, "rank": RANK, "dtype": self.dtype, **options}
        with self.device:
            return pack_step.make(self.folder, argparse.Namespace(**asked), weights)

    def base(self, setting: Any, data: Any, slots: int = 1, rank: int = RANK) -> Any:
        """The frozen base of a pack; random weights are drawn on the device."""
        from ftlib.pack import frozen_base

        load = frozen_base.load_model

        def on_device(*args: Any) -> Any:
            with self.device:
                return load(*args)

        frozen_base.load_model = on_device
        return frozen_base.FrozenBase(setting.experiment(), data, slots, rank, self.device)

    def written(self, case: str, **options: Any) -> tuple[dict[str, Any], argparse.Namespace]:
        """An experiment over texts, with the model and the files of gpu.py."""
        asked: dict[str, Any] = {"tiny": self.tiny, "steps": 12, "batch": 4, "length": 64 if self.tiny else 512}
        found = argparse.Namespace(**{**asked, "folder": self.folder, "keep_activations": True, **options})
        gpu._make(found)
        return gpu._experiment(case, found), found


# --- is it right ----------------------------------------------------------------------------------------------------


def machine(place: Place) -> Iterator[Row]:
    """Versions, and what bounds everything: matrix products and memory."""
    packages = {name: _version(name) for name in ("torch", "transformers", "peft", "trl", "bitsandbytes", "triton")}
    yield {"device": _name(place), **packages}
    yield {"tflops": tflops(place)}
    x = torch.empty(2**20 if place.tiny else 2**30, device=place.device)
    yield {"gigabytes_a_second": 2 * x.nbytes / place.timed(lambda: x.clone()) / 1e9}


def certificates(place: Place, dtype: str) -> Iterator[Row]:
    """Isolation: a trial among others and alone. Truth: a trial of a pack and the same by TRL."""
    points: list[dict[str, Any]] = [
        {"adapter.r": 8, "train.learning_rate": 3e-3, "train.seed": 3},
        {"adapter.r": 2, "train.per_device_train_batch_size": 3, "train.weight_decay": 0.1},
        {"adapter.r": 4, "train.gradient_accumulation_steps": 3, "train.max_grad_norm": 0.05},
    ]
    tree, options = Place(True, place.folder).written("lora")
    tree["model"]["dtype"] = dtype
    tree["train"] |= {"max_steps": 8 if place.tiny else 24, "bf16": False, "learning_rate": 5e-3, "tf32": False}
    names = [f"{number:03d}" for number in range(len(points))]
    among, alone, theirs = (_setting({**tree, "name": name}, options.folder) for name in ("among", "alone", "trl"))
    _train(place, among, dict(zip(names, points, strict=True)))
    for name, point in zip(names, points, strict=True):
        _train(place, alone, {name: point})
    yield {"certificate": "isolation", **_apart(among, alone, names, dtype)}
    from ftlib.training.trial import run_trial

    for name, point in zip(names, points, strict=True):
        _trial(theirs, name).path.mkdir(exist_ok=True)
        run_trial(theirs, name, point, lambda row: None)
    yield {"certificate": "truth", **_apart(among, theirs, names, dtype)}


def _apart(ours: Any, theirs: Any, names: list[str], dtype: str) -> Row:
    """The largest difference of two runs' losses, relative."""
    pairs = [
        (mine["loss"], other["loss"])
        for name in names
        for mine, other in zip(_losses(ours, name), _losses(theirs, name), strict=True)
    ]
    off = max(abs(mine - other) / abs(other) for mine, other in pairs)
    return {"dtype": dtype, "losses": len(pairs), "off": off, "holds": off <= CLOSE[dtype]}


def _losses(setting: Any, name: str) -> list[Row]:
    return [row for row in _trial(setting, name).metrics() if "loss" in row]


def waits(place: Place) -> Iterator[Row]:
    """The lines that wait for the device within a step (torch says so), which should be none."""
    pack = _packed(place, "135m", 4)
    for _ in range(3):
        pack.tick()
    if place.tiny:
        return
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pack.tick()
    torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(one.filename).name}:{one.lineno}" for one in found if "synchroniz" in str(one.message)]
    yield {"waits": len(places), "where": sorted(set(places))}


def update(place: Place) -> Iterator[Row]:
    """The update of all slots at once, compiled and not, against torch's AdamW of each."""
    from ftlib.pack.update import AtOnce, OneByOne, _adamw

    pack = _packed(place, "1b", 8)
    bank, members = pack.base.bank, list(pack.members.values())
    losses = {member.slot: torch.ones((), device=place.device) for member in members}
    ways: list[tuple[str, Any]] = [("one by one", OneByOne(bank)), ("at once", AtOnce(bank))]
    if not place.tiny:
        ways.append(("at once, compiled", AtOnce(bank)))
    ways[1][1].adamw = _adamw
    first, weights = bank.weights.clone(), None
    for name, way in ways:
        bank.weights.copy_(first)
        for member in members:
            way.take(member.slot, member.tenant)
            if name == "one by one":  # torch's fused step has its count beside the weights
                state = member.optimizer.state[member.weights]
                state["step"] = state["step"].to(place.device)
        started = time.perf_counter()
        for seed in range(3):
            bank.grads.copy_(torch.randn(bank.grads.shape, generator=torch.Generator().manual_seed(seed)))
            way.step(losses)
        weights = bank.weights.clone() if weights is None else weights
        off = float((bank.weights - weights).abs().max())
        begin = time.perf_counter() - started
        taken = place.timed(lambda way=way: way.step(losses))
        bound = 8 * bank.weights.nbytes / 1e9
        yield {"update": name, "slots": bank.slots, "ms": taken * 1e3, "gigabytes": bound, "off": off, "first_s": begin}


# --- what bounds it -------------------------------------------------------------------------------------------------


def step(place: Place, shape: str) -> Iterator[Row]:
    """A step of packs of 1 to 32 trials; the bound is the frozen base's forward and input gradient, measured, and the
    roofline what their products take at the speed of one large product."""
    setting, data = place.synthetic(shape)
    base = place.base(setting, data)
    speed = tflops(place)
    flops = 4 * sum(layer.base.in_features * layer.base.out_features for layer in base.bank.layers)
    for width in WIDTHS[:2] if place.tiny else WIDTHS:
        found = pack_step.measured(base, setting, width, place.seconds)
        yield {
            "shape": shape,
            "width": width,
            "together": found["together"],
            "step_ms": found["step"] * 1e3,
            "bound_ms": found["bound"] * 1e3,
            "roofline_ms": flops * found["tokens"] / speed / 1e9,
            "tokens_a_second": found["tokens"] / found["step"],
            "peak_gib": found["peak"] / 2**30,
        }


def trainer(place: Place) -> Iterator[Row]:
    """TRL's step on the 1B shape with the rows of step-1b: LoRA, QLoRA, DPO."""
    command = [sys.executable, str(Path(gpu.__file__)), "--steps", "12", "--batch", "2", "--length", "512"]
    command += ["--keep-activations", "--out", str(place.folder), "--cases", "lora"]
    done = subprocess.run([*command, *(["--tiny"] if place.tiny else ["qlora", "dpo"])], check=False)
    for case in json.loads((place.folder / "gpu.json").read_text())["cases"]:
        yield {
            key: case[key] for key in ("case", "seconds_a_step", "tokens_a_second", "peak_gib", "error") if key in case
        }
    done.check_returncode()


def attention(place: Place) -> Iterator[Row]:
    """Attention without padding against attention of spans of like length: the same losses, and which is faster."""
    from ftlib.pack import span_attention

    said: list[list[float]] = []
    for ragged in (False, True):
        span_attention.RAGGED = ragged
        pack = _packed(place, "135m", 8, tokens=None)
        for _ in range(3):
            pack.tick()
        for member in pack.members.values():
            member.settle()
        said.append([float(member.loss) for member in pack.members.values()])
        off = max(abs(one - other) / abs(one) for one, other in zip(said[0], said[-1], strict=True))
        yield {"ragged": ragged, "step_ms": place.timed(pack.tick) * 1e3, "off": off}


def dpo(place: Place) -> Iterator[Row]:
    """DPO on pairs, what they begin with computed once and computed for each."""
    from ftlib.pack import token_layout

    tree, options = place.written("dpo")
    tree["train"] |= {"max_steps": 10**6, "logging_steps": 10**6, "activation_checkpointing": False}
    setting = _setting(tree, options.folder)
    base = place.base(setting, _data(setting), 1)
    together = token_layout.together
    for shared in (True, False):
        token_layout.together = together if shared else token_layout.apart
        for width in (1, 2 if place.tiny else 8):
            found = pack_step.measured(base, setting, width, place.seconds)
            row = {"shared": shared, "width": width, "step_ms": found["step"] * 1e3, "places": found["tokens"]}
            yield {**row, "peak_gib": found["peak"] / 2**30}


def qlora(place: Place) -> Iterator[Row]:
    """Packs on a base of four bits."""
    setting, data = place.synthetic("1b", weights=True)
    setting.resolved["model"]["quantization"] = "nf4"
    base = place.base(setting, data)
    for width in (1, 2) if place.tiny else (1, 4, 16):
        found = pack_step.measured(base, setting, width, place.seconds)
        row = {"width": width, "step_ms": found["step"] * 1e3, "tokens_a_second": found["tokens"] / found["step"]}
        yield {**row, "bound_ms": found["bound"] * 1e3, "peak_gib": found["peak"] / 2**30}


def serving(place: Place) -> Iterator[Row]:
    """The endpoint's batch: rows by adapters, greedy, 32 tokens to a prompt of 24."""
    from serve.engine.batch import Batch
    from serve.engine.sampling import Sampling
    from serve.engine.sequence import Sequence
    from serve.engine.slots import Adapter, Slots

    setting, _ = place.synthetic("1b")
    from ftlib.models.base import load_model

    with place.device:
        model = load_model(setting.experiment().model).eval().requires_grad_(False)
    linears = {name: part for name, part in model.named_modules() if name.endswith("_proj")}

    def adapter(number: int) -> Any:
        draw = torch.Generator().manual_seed(number)
        state = {}
        for name, part in linears.items():
            state[f"{name}.lora_A.weight"] = torch.randn(RANK, part.in_features, generator=draw) * 0.01
            state[f"{name}.lora_B.weight"] = torch.randn(part.out_features, RANK, generator=draw) * 0.01
        return Adapter(f"a{number}", RANK, frozenset(linears), state)

    adapters = [adapter(number) for number in range(2 if place.tiny else 16)]
    slots = Slots(model, len(adapters), next(model.parameters()).dtype)
    batch, new = Batch(model, slots), 4 if place.tiny else 32

    def answer(rows: int, kinds: int) -> None:
        prompts = [[2 + (row + place_) % 500 for place_ in range(24)] for row in range(rows)]
        sampling = Sampling(temperature=0)
        group = [
            Sequence(prompt, new, frozenset(), sampling, lambda ids: "", adapter=adapters[row % kinds])
            for row, prompt in enumerate(prompts)
        ]
        for sequence in group:
            slots.hold(sequence.adapter)
        batch.admit(group)
        while len(batch):
            batch.step()

    for rows in (1, 4) if place.tiny else (1, 8, 64):
        for kinds in sorted({1, min(rows, len(adapters))}):
            taken = place.timed(partial(answer, rows, kinds))
            yield {"rows": rows, "adapters": kinds, "tokens_a_second": rows * new / taken}


def low_rank(place: Place) -> Iterator[Row]:
    """A layer's x A: one padded product a slot, against torch's grouped product of ragged rows."""
    grouped = getattr(torch.nn.functional, "grouped_mm", None)
    slots, most, inputs = (2, 32, 64) if place.tiny else (16, 1024, 2048)
    lengths = torch.linspace(0.8 * most, most, slots).int()  # as ragged as trials of one pass are
    options: Any = {"device": place.device, "dtype": torch.bfloat16}
    x, a = torch.randn(slots, most, inputs, **options), torch.randn(slots, inputs, RANK, **options)
    yield {"product": "bmm, padded", "ms": place.timed(lambda: torch.bmm(x, a)) * 1e3}
    if grouped is not None and not place.tiny:
        flat = torch.cat([rows[:length] for rows, length in zip(x, lengths.tolist(), strict=True)])
        ends = lengths.cumsum(0).int().to(place.device)
        yield {"product": "grouped_mm, ragged", "ms": place.timed(lambda: grouped(flat, a, offs=ends)) * 1e3}


# --- what parts share -----------------------------------------------------------------------------------------------


def tflops(place: Place) -> float:
    """10^12 operations a second of one large product in the part's dtype."""
    size = 256 if place.tiny else 8192
    x: Tensor = torch.randn(size, size, device=place.device, dtype=getattr(torch, place.dtype))
    return 2 * size**3 / place.timed(lambda: x @ x) / 1e12


def _packed(place: Place, shape: str, width: int, **more: Any) -> Any:
    setting, data = place.synthetic(shape, **more)
    return pack_step.packed(place.base(setting, data), setting, width, other_batches=True)


def _setting(tree: dict[str, Any], folder: Path) -> Any:
    from ftlib.config import Experiment
    from ftlib.data import prepare
    from ftlib.models.base import load_tokenizer
    from ftlib.run.directory import Run

    experiment = Experiment.parse(tree)
    data = prepare(experiment.data, experiment.method.rows, load_tokenizer(experiment.model))
    run = Run.create(folder / "runs", tree["name"], "", {"experiment": experiment.to_dict()})
    return context.Setting(run=str(run.path), data=str(data.path), resolved=experiment.to_dict())


def _data(setting: Any) -> Any:
    from ftlib.data import load_prepared

    return load_prepared(Path(setting.data))


def _trial(setting: Any, name: str) -> Any:
    from ftlib.run.directory import Run

    return Run(Path(setting.run)).trial(name)


def _train(place: Place, setting: Any, points: dict[str, dict[str, Any]]) -> None:
    from ftlib.pack.engine import Pack

    def failed(reason: str) -> None:
        raise SystemExit(reason)

    pack = Pack(place.base(setting, _data(setting), len(points), 8), setting)
    for name, point in points.items():
        pack.join(name, point, lambda row: None, failed)
    while pack.members:
        pack.tick()


def _name(place: Place) -> str:
    if place.tiny:
        return f"{platform.machine()} (--tiny: not a measurement)"
    return f"{torch.cuda.get_device_name()} of {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"


def _version(name: str) -> str:
    return version(name) if gpu._is_installed(name) else "none"


PARTS: dict[str, Callable[[Place], Iterator[Row]]] = {
    "machine": machine,
    "certificates-float32": partial(certificates, dtype="float32"),
    "certificates-bfloat16": partial(certificates, dtype="bfloat16"),
    "waits": waits,
    "update": update,
    **{f"step-{shape}": partial(step, shape=shape) for shape in ("135m", "1b", "8b")},
    "trainer": trainer,
    "attention": attention,
    "dpo": dpo,
    "qlora": qlora,
    "serving": serving,
    "low-rank": low_rank,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    context.PACKAGES = tuple(name for name in context.PACKAGES if gpu._is_installed(name))  # a trial needs no ray
    if not options.tiny and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device: try --tiny")
    with tempfile.TemporaryDirectory() as folder:
        for row in PARTS[options.part](Place(options.tiny, Path(folder))):
            with options.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            if any(isinstance(value, float) and not math.isfinite(value) for value in row.values()):
                sys.exit(f"a row is no number: {row}")


if __name__ == "__main__":
    main()
