"""In one process: the bank against PEFT's ways, with the same rows and the same tokens."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from serving_world import ADAPTERS, NEW, PROMPT, RANK, lora, model


def tuned() -> Any:
    """The base with all adapters, as PEFT holds them."""
    import torch
    from peft import get_peft_model

    peft = get_peft_model(model(), lora(0), adapter_name="a0")
    for number in range(1, ADAPTERS):
        peft.add_adapter(f"a{number}", lora(number))
    for name, part in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(part, std=0.02)
    return peft.eval()


def bank(peft: Any) -> Callable[[list[list[int]], Callable[[int], int]], list[list[int]]]:
    """The same adapters in the engine's batch: a function of prompts, and of which adapter a row has."""
    import torch

    from ftlib.models.onednn import freeze_linears
    from serve.engine.batch import Batch
    from serve.engine.sampling import Sampling
    from serve.engine.sequence import Sequence
    from serve.engine.slots import Adapter, Slots

    def banked(name: str) -> Adapter:
        state = {}
        for key, part in peft.state_dict().items():
            if f".{name}.weight" in key:
                scale = 2.0 if "lora_B" in key else 1.0
                state[key.removeprefix("base_model.model.").replace(f".{name}.", ".")] = part * scale
        return Adapter(name, RANK, frozenset(key.rpartition(".lora_")[0] for key in state), state)

    base = model()
    freeze_linears(base, gradients=False)  # as the endpoint does on a CPU
    slots = Slots(base, ADAPTERS, torch.float32)
    adapters = [banked(f"a{number}") for number in range(ADAPTERS)]
    batch = Batch(base, slots)

    def write(prompts: list[list[int]], which: Callable[[int], int]) -> list[list[int]]:
        group = [
            Sequence(prompt, NEW, frozenset(), Sampling(temperature=0), lambda ids: "", adapter=adapters[which(row)])
            for row, prompt in enumerate(prompts)
        ]
        for sequence in group:
            assert slots.hold(sequence.adapter)
        batch.admit(group)
        while len(batch):
            batch.step()
        return [sequence.tokens for sequence in group]

    return write


def engines(rows: int, repeats: int) -> None:
    import torch

    torch.set_grad_enabled(False)
    peft = tuned()
    written = bank(peft)
    draw = random.Random(0)
    prompts = [[draw.randrange(2, 8000) for _ in range(PROMPT)] for _ in range(rows)]

    ids = torch.tensor(prompts)
    greedy = {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW, "pad_token_id": 1}

    def generated(part: Any, **options: Any) -> list[list[int]]:
        made = peft.generate(input_ids=part, attention_mask=torch.ones_like(part), **greedy, **options)
        return [row[PROMPT:].tolist() for row in made]

    def mixed_by_peft() -> list[list[int]]:
        return generated(ids, adapter_names=[f"a{row % ADAPTERS}" for row in range(rows)])

    def one_by_one() -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for number in range(min(rows, ADAPTERS)):
            peft.set_adapter(f"a{number}", inference_mode=True)
            own = list(range(number, rows, ADAPTERS))
            found |= dict(zip(own, generated(ids[own]), strict=True))
        return [found[row] for row in range(rows)]

    def single_by_peft() -> list[list[int]]:
        peft.set_adapter("a0", inference_mode=True)
        return generated(ids)

    ways: dict[str, Callable[[], list[list[int]]]] = {
        "bank, one adapter": lambda: written(prompts, lambda _: 0),
        "bank, mixed": lambda: written(prompts, lambda row: row % ADAPTERS),
        "generate, one adapter": single_by_peft,
        "generate, adapter_names": mixed_by_peft,
        "generate, one adapter after the other": one_by_one,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    said: dict[str, list[list[int]]] = {}
    for turn in range(repeats + 1):  # in turn, so that a slow moment of the machine is everyone's; the first warms up
        for name, way in ways.items():
            begin = time.perf_counter()
            said[name] = way()
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    rate = {name: rows * NEW / statistics.median(times) for name, times in seconds.items()}
    mine = rate["bank, mixed"]
    print(f"{rows} rows, {min(rows, ADAPTERS)} adapters, {NEW} tokens each, {torch.get_num_threads()} threads")
    for name, speed in rate.items():
        print(f"  {name:40} {speed:8.0f} tokens/s    the mixed bank is {mine / speed:5.2f} times that")
    same = sum(
        one == other
        for one, other in zip(said["bank, mixed"], said["generate, one adapter after the other"], strict=True)
    )
    print(f"  {same} of {rows} answers are the same as one adapter after the other gives")
