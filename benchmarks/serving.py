"""Many adapters on one base: what mixing costs, what the alternatives cost, and throughput against concurrency.

    python benchmarks/serving.py engines          in one process: the bank against PEFT's ways, same rows, same tokens
    python benchmarks/serving.py http             the endpoint over HTTP at concurrency 1 to 64 -> docs/serving.svg
    python benchmarks/serving.py soak             5 minutes at twice what it can do: no 5xx, flat memory, a rollback
    python benchmarks/serving.py cycle            200 adapters in turn through 16 slots: flat memory, same answers

The base is a Llama of random weights (512 wide, 6 layers, 21M parameters), with 16 adapters of rank 16 on all its
linear layers; every answer has 48 tokens to a prompt of about 24. `http` needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving_engines import engines
from serving_world import ADAPTERS, NEW, PROMPT, replicas_memory, started

os.environ.setdefault("OMP_NUM_THREADS", "2")


async def load(
    url: str, names: list[str], clients: int, seconds: float, answered: Callable[[Any], None] = lambda _: None
) -> dict[str, Any]:
    """`clients` that ask one after the other, each answer as a stream."""
    import openai

    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)
    draw, first, total, tokens = random.Random(clients), [], [], 0
    statuses: Counter[int] = Counter()
    end = time.monotonic() + seconds

    async def one(number: int) -> None:
        nonlocal tokens
        while time.monotonic() < end:
            prompt = " ".join(f"w{draw.randrange(2, 8000)}" for _ in range(PROMPT))
            begin, heard = time.monotonic(), 0.0
            try:
                stream = await client.completions.create(
                    model=names[number % len(names)],
                    prompt=prompt,
                    max_tokens=NEW,
                    temperature=0,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                async for chunk in stream:
                    heard = heard or time.monotonic() - begin
                    if chunk.usage:
                        tokens += chunk.usage.completion_tokens
                first.append(heard)
                total.append(time.monotonic() - begin)
                statuses[200] += 1
            except openai.APIStatusError as error:
                statuses[error.status_code] += 1
                await asyncio.sleep(min(float(error.response.headers.get("retry-after", 1)), 1) * draw.random())
            answered(number)

    begin = time.monotonic()
    await asyncio.gather(*(one(number) for number in range(clients)))
    took = time.monotonic() - begin
    return {"tokens/s": tokens / took, "first": first, "total": total, "statuses": statuses}


def http(seconds: float) -> None:
    import ray

    from serve.front import app

    with tempfile.TemporaryDirectory() as folder:
        url, names = started(Path(folder), max_rows=64)
        found = []
        print("clients | adapters | tokens/s | first token p50, p99 | answer p50, p99 (s)")
        for mixed in (False, True):
            asked = names if mixed else names[:1]
            asyncio.run(load(url, asked, 4, 3))
            for clients in (1, 2, 4, 8, 16, 32, 64):
                result = asyncio.run(load(url, asked, clients, seconds))
                row = {
                    "clients": clients,
                    "adapters": len(asked),
                    "tokens_per_second": result["tokens/s"],
                    "first_p50": _quantile(result["first"], 0.5),
                    "first_p99": _quantile(result["first"], 0.99),
                    "total_p50": _quantile(result["total"], 0.5),
                    "total_p99": _quantile(result["total"], 0.99),
                }
                found.append(row)
                print(" | ".join(f"{value:.3g}" for value in row.values()), dict(result["statuses"]), flush=True)
        app.stop()
        ray.shutdown()
    print(json.dumps(found))
    plot(found, Path(__file__).parents[1] / "docs" / "serving.svg")


def plot(rows: list[dict[str, float]], path: Path) -> None:
    """Throughput and latency against concurrency, one adapter and sixteen."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2))
    for adapters, style in ((1, "o--"), (ADAPTERS, "s-")):
        own = [row for row in rows if row["adapters"] == adapters]
        clients = [row["clients"] for row in own]
        label = f"{adapters} adapter{'s' if adapters > 1 else ''}"
        left.plot(clients, [row["tokens_per_second"] for row in own], style, label=label)
        right.plot(clients, [row["total_p50"] for row in own], style, label=f"{label}, p50")
        right.plot(clients, [row["total_p99"] for row in own], style, label=f"{label}, p99", alpha=0.4)
    for axis, title in ((left, "tokens/s"), (right, "seconds for 48 tokens")):
        axis.set_xscale("log", base=2)
        axis.set_xlabel("clients at once")
        axis.set_title(title)
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    print(f"wrote {path}")


def soak(seconds: float) -> None:
    """Twice the clients that have places; a promote and a rollback on the way."""
    import ray

    from ftlib.registry import registry
    from ftlib.run.directory import Run
    from serve.front import app

    with tempfile.TemporaryDirectory() as folder:
        url, names = started(Path(folder), max_rows=16, max_waiting=16, deadline=20)
        asyncio.run(load(url, names, 16, 5))
        memory: list[int] = []
        moves = {0.33: "promote", 0.66: "roll back"}
        begin = time.monotonic()

        def watch(_: int) -> None:
            at = (time.monotonic() - begin) / seconds
            for when in [when for when in moves if at > when]:
                move = moves.pop(when)
                if move == "promote":
                    run = Run.open(next((Path(folder) / "runs").iterdir()))
                    registry.register(run, run.trial("001"), "a0")
                else:
                    registry.rollback("a0")
                print(f"{move} a0 after {at * seconds:.0f} s", flush=True)
            if len(memory) < at * 60:
                memory.append(replicas_memory())

        result = asyncio.run(load(url, names, 64, seconds, watch))
        app.stop()
        ray.shutdown()
    settled = memory[len(memory) // 10 :]
    print(f"{sum(result['statuses'].values())} requests: {dict(result['statuses'])}; {result['tokens/s']:.0f} tokens/s")
    print(
        f"accepted: p50 {_quantile(result['total'], 0.5):.2f} s, p99 {_quantile(result['total'], 0.99):.2f} s "
        "(deadline 20 s)"
    )
    print(
        f"memory of all replicas: {min(settled) / 1e6:.0f} to {max(settled) / 1e6:.0f} MB, "
        f"{max(settled) / min(settled) - 1:.1%}"
    )
    bad = [status for status in result["statuses"] if status >= 500]
    assert not bad, result["statuses"]


def cycle(adapters: int, rounds: int) -> None:
    """All adapters once a round, eight requests at a time, each adapter with a prompt of its own."""
    import httpx
    import openai
    import ray

    from serve.front import app

    async def ask(names: list[str]) -> dict[str, str]:
        places = asyncio.Semaphore(8)

        async def one(number: int, name: str) -> tuple[str, str]:
            draw = random.Random(number)
            prompt = " ".join(f"w{draw.randrange(2, 8000)}" for _ in range(PROMPT))
            async with places:
                answer = await client.completions.create(model=name, prompt=prompt, max_tokens=8, temperature=0)
            return name, answer.choices[0].text

        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            return dict(await asyncio.gather(*(one(number, name) for number, name in enumerate(names))))

    with tempfile.TemporaryDirectory() as folder:
        url, names = started(Path(folder), adapters, 4, max_rows=16, max_adapters=ADAPTERS)
        said, memory = [], []
        for number in range(rounds):
            begin = time.monotonic()
            said.append(asyncio.run(ask(names)))
            memory.append(replicas_memory())
            print(
                f"round {number + 1}: {time.monotonic() - begin:.1f} s, replicas {memory[-1] / 1e6:.0f} MB, "
                f"{sum(said[0][name] == said[-1][name] for name in names)} of {adapters} answers as in the first",
                flush=True,
            )
        counted = httpx.get(f"{url}/metrics").text.splitlines()
        print(*(line for line in counted if line.startswith("ftlib_engine_adapter")), sep="\n")
        app.stop()
        ray.shutdown()
    growth = max(memory) / memory[0] - 1
    late = memory[rounds // 2 :]  # caches and the allocator's arenas have filled by then: a leak would go on
    slope = max(late) / min(late) - 1
    print(
        f"{len(set(said[0].values()))} different answers; memory {growth:+.1%} in all, {slope:.1%} in the second half"
    )
    assert all(answers == said[0] for answers in said)
    assert slope < 0.05


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("engines", "http", "soak", "cycle"))
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--adapters", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.action == "engines":
        engines(options.rows, options.repeats)
    elif options.action == "http":
        http(options.seconds or 15)
    elif options.action == "cycle":
        cycle(options.adapters, options.rounds)
    else:
        soak(options.seconds or 300)


if __name__ == "__main__":
    main()
