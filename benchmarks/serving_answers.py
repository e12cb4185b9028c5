"""16 answers of 48 tokens over HTTP, against the same work without a server: ratios in one run, both sides in turn.

    python benchmarks/serving_answers.py smollm     SmolLM2-135M with a LoRA adapter, plain and streamed, against
                                                    `generate` with PEFT that writes the same 16 as one batch
    python benchmarks/serving_answers.py toy        the 21M Llama of `serving.py`, streamed, against its engine alone

Each round asks 16 clients' new questions at once, with a system prompt as the model's template writes it. All sides
have the same two cores, and `generate` one thread or two, whichever is faster; clients (plain httpx) and HTTP side
share the engine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving_world import NEW, PROMPT, listening, lora, started

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the endpoint's engines have it
ROWS = 16
SMOLLM = Path(".cache/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf")
THINGS = ["dog", "cat", "river", "house", "cloud", "stone", "lamp", "book"]
THINGS += ["horse", "shoe", "car", "apple", "boat", "tree", "king", "queen"]
PLACES = ["in Rome", "at sea", "on a farm", "in a school", "at night", "in a tower", "on an island", "in the snow"]


@dataclass
class Round:
    """Seconds of the clock, of all processors, and to each first token."""

    seconds: float
    spent: float
    firsts: list[float] = field(default_factory=list)


Way = Callable[[int], Round]


async def _one(http: Any, path: str, body: dict[str, Any]) -> tuple[int, float]:
    """(tokens, seconds to the first of them) of one answer; 0 seconds where it comes as one."""
    begin, first, tokens = time.perf_counter(), 0.0, 0
    if not body.get("stream"):
        answer = (await http.post(path, json=body)).raise_for_status().json()
        return answer["usage"]["completion_tokens"], first
    async with http.stream("POST", path, json={**body, "stream_options": {"include_usage": True}}) as answer:
        async for line in answer.raise_for_status().aiter_lines():
            first = first or time.perf_counter() - begin
            if '"usage"' in line:
                tokens = json.loads(line[6:])["usage"]["completion_tokens"]
    return tokens, first


def over_http(url: str, path: str, bodies: Callable[[int], list[dict[str, Any]]], **more: Any) -> Way:
    import httpx

    async def ask(number: int) -> Round:
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:
            begin, spent = time.perf_counter(), _spent()
            found = await asyncio.gather(*(_one(http, path, {**body, **more}) for body in bodies(number)))
            made = Round(time.perf_counter() - begin, _spent() - spent, [first for _, first in found if first])
        assert all(tokens == NEW for tokens, _ in found), found
        return made

    return lambda number: asyncio.run(ask(number))


def _spent() -> float:
    """Processor seconds of this process and of all that it started: Ray's and Serve's too."""
    import psutil

    total, me = 0.0, psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def compare(ways: dict[str, Way], rounds: int, rivals: int) -> None:
    """Each in turn; the first round warms up. Ratios are to the fastest of the last `rivals` ways."""
    made: dict[str, list[Round]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            made[name].append(way(number))
            print(f"round {number}: {name} {made[name][-1].seconds:.2f} s", flush=True)
    seconds = {name: statistics.median(one.seconds for one in kept[1:]) for name, kept in made.items()}
    spent = {name: statistics.median(one.spent for one in kept[1:]) for name, kept in made.items()}
    rival = min([*ways][-rivals:], key=lambda name: seconds[name])
    for name in ways:
        firsts = [first for one in made[name][1:] for first in one.firsts]
        told = f", first token p50 {statistics.median(firsts):.3f} s" if firsts else ""
        speed, ratio = ROWS * NEW / seconds[name], seconds[rival] / seconds[name]
        print(f"{name:28} {speed:7.0f} tokens/s, {ratio:.2f} of {rival}; {spent[name]:.2f} processor seconds{told}")


# --- SmolLM2 ------------------------------------------------------------------------------------------------------


def smollm(rounds: int) -> None:
    import ray
    import torch
    from peft import get_peft_model

    from ftlib.config import ModelSection
    from ftlib.models import gguf
    from ftlib.models.base import load_model, load_tokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FTLIB_HOME"] = str(Path(".cache/tests").absolute())  # where it lies dequantized, from the tests
        section = ModelSection(name_or_path=str(gguf.as_folder("model.name_or_path", SMOLLM)), dtype="float32")
        os.environ["FTLIB_HOME"] = str(folder / "home")
        tokenizer = load_tokenizer(section)
        tuned = get_peft_model(load_model(section), lora(0, 8)).eval()
        torch.manual_seed(0)
        for part, weight in tuned.named_parameters():
            if "lora_B" in part:
                torch.nn.init.normal_(weight, std=0.02)
        _promote(folder, tuned, tokenizer, section)
        url = listening(["tuned"], max_rows=ROWS)
        # No answer ends by itself, on either side.
        ends = {str(token): -100.0 for token in {tokenizer.eos_token_id, tuned.generation_config.eos_token_id}}

        def chats(number: int) -> list[str]:
            return [f"Write a short story about a {thing} {PLACES[number % len(PLACES)]}." for thing in THINGS]

        def bodies(number: int) -> list[dict[str, Any]]:
            shared = {"model": "tuned", "max_tokens": NEW, "temperature": 0, "logit_bias": ends}
            return [{**shared, "messages": [{"role": "user", "content": chat}]} for chat in chats(number)]

        def generate(number: int, threads: int) -> Round:
            torch.set_num_threads(threads)
            begin, spent = time.perf_counter(), time.process_time()
            texts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": chat}], tokenize=False, add_generation_prompt=True
                )
                for chat in chats(number)
            ]
            batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
            with torch.inference_mode():
                made = tuned.generate(**batch, do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW)
            tokenizer.batch_decode(made[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
            return Round(time.perf_counter() - begin, time.process_time() - spent)

        path = "/v1/chat/completions"
        ways = {
            "over HTTP": over_http(url, path, lambda number: bodies(3 * number)),
            "over HTTP, streamed": over_http(url, path, lambda number: bodies(3 * number + 1), stream=True),
            "generate + PEFT, 1 thread": lambda number: generate(3 * number, 1),
            "generate + PEFT, 2 threads": lambda number: generate(3 * number, 2),
        }
        compare(ways, rounds, rivals=2)
        _stop(ray)


def _promote(folder: Path, tuned: Any, tokenizer: Any, section: Any) -> None:
    from ftlib.files.atomic import write_json
    from ftlib.models.base import fingerprint
    from ftlib.registry import registry
    from ftlib.run.directory import Run

    run = Run.create(folder / "runs", "bench", "", {})
    trial = run.trial("000")
    tuned.save_pretrained(trial.path / "adapter")
    tokenizer.save_pretrained(trial.path / "adapter")
    where = section.name_or_path
    identity = {"name_or_path": where, "revision": None, "fingerprint": fingerprint(Path(where))}
    model = {"name_or_path": where, "dtype": "float32"}
    write_json(trial.path / "manifest.json", {"kind": "adapter", "base": identity, "experiment": {"model": model}})
    trial.set_state("finished")
    registry.register(run, trial, "tuned")


# --- the toy ------------------------------------------------------------------------------------------------------


def toy(rounds: int) -> None:
    import ray
    from serving_engines import bank, tuned

    with tempfile.TemporaryDirectory() as folder:
        url, names = started(Path(folder), max_rows=ROWS)
        alone = bank(tuned())

        def prompts(number: int) -> list[list[int]]:
            draw = random.Random(number)
            return [[draw.randrange(2, 8000) for _ in range(PROMPT)] for _ in range(ROWS)]

        def bodies(number: int) -> list[dict[str, Any]]:
            shared = {"max_tokens": NEW, "temperature": 0}
            return [{**shared, "model": names[row], "prompt": ids} for row, ids in enumerate(prompts(number))]

        def engine(number: int) -> Round:
            begin, spent = time.perf_counter(), time.process_time()
            alone(prompts(number), lambda row: row)
            return Round(time.perf_counter() - begin, time.process_time() - spent)

        ways = {
            "over HTTP": over_http(url, "/v1/completions", lambda number: bodies(3 * number)),
            "over HTTP, streamed": over_http(
                url, "/v1/completions", lambda number: bodies(3 * number + 1), stream=True
            ),
            "the engine alone": lambda number: engine(3 * number + 2),
        }
        compare(ways, rounds, rivals=1)
        _stop(ray)


def _stop(ray: Any) -> None:
    from serve.front import app

    app.stop()
    ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("smollm", "toy"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    {"smollm": smollm, "toy": toy}[options.action](options.rounds)


if __name__ == "__main__":
    main()
