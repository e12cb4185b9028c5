"""What each export of one winner keeps: a table of format, logits, greedy tokens, task, bytes and speed.

    python benchmarks/exports.py NAME [--formats merged:float32,gguf:q8_0,...] [--rows 40] [--keep FOLDER]

NAME is what `ftlib export` takes. A line is one export through its gate, and says what a refused one lacked. `logits`
is how far the logits are from what was trained, as a share of their size; `effect`, in the first line, how far the
base's are. `kept` is the share of the tune (ftlib/export/gate.py), `greedy` of the probes' positions with the same
likeliest token, `answers` of the task's with the same text; `layer` is how far the farthest layer is. The speeds are
what the program wrote while it did the task, a second of the clock and a second of a processor (llama.cpp's has the
loading of the file in it): another thing for each program, so compare formats of one program, on a quiet machine: on a
busy one both were seen to fall to a third.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ftlib.driver.export import TasksAgain, opened
from ftlib.driver.quiet import quiet_libraries
from ftlib.errors import FtlibError
from ftlib.export.export import export
from ftlib.export.program import Program
from ftlib.export.source import Source


class Timed(TasksAgain):
    """The tasks, and the processor's seconds that the artifact takes for them."""

    seconds = 0.0

    def check(self, program: Program, owner: str) -> dict[str, Any]:
        before = processor_seconds()
        found = super().check(program, owner)
        self.seconds = processor_seconds() - before
        return found


def processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


FORMATS = (
    "merged:float32,merged:bfloat16,merged:float16,peft,vllm,gguf:f32,gguf:f16,gguf:bf16,gguf:q8_0,gguf:q6_k,"
    "gguf:q5_k_m,gguf:q4_k_m,gguf-adapter,ollama:q8_0,int8,int4,fp8"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--formats", default=FORMATS)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder, opened(asked.name, print) as source:
        out = asked.keep or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        tasks = Timed(source, asked.rows)
        trained = source.trained(lambda who, model: tasks.loaded(who, model, source))
        for task in tasks.tasks:
            for who, scores in task.scores.items():
                print(f"{who} on {task.task.name}: {', '.join(f'{m} {s.number():.3g}' for m, s in scores.items())}")
        print("format | logits | kept | greedy | task | answers | layer | MB | tokens/s | tokens/processor s | program")
        for name in asked.formats.split(","):
            print(line(name, source, out, tasks, trained), flush=True)
            if asked.keep is None:
                shutil.rmtree(out / name.replace(":", "-"), ignore_errors=True)


def line(name: str, source: Source, out: Path, tasks: Timed, trained: Any) -> str:
    to, _, dtype = name.partition(":")
    try:
        told = export(source, to, out / name.replace(":", "-"), dtype or None, lambda _: None, tasks, trained).figures
    except FtlibError as error:
        return f"{name} | refused: {error}"
    done = next((one for one in told["tasks"].values() if isinstance(one, dict)), None)
    task = "" if done is None else ", ".join(f"{value:.3g}" for value in done["numbers"]["exported"].values())
    same = "" if done is None else f"{done['same_answers']}/{done['rows']}"
    speed = "" if done is None else done["tokens_per_second"]
    written = sum(answer.tokens for one in tasks.tasks for answer in one.answers.get("exported", []))
    steady = f"{written / tasks.seconds:.1f}" if written else ""
    layer = told["farthest_layer"] if told["farthest_layer"] is not None else ""
    effect = f" (effect {told['effect']:.2g})" if name.startswith("merged:float32") else ""
    cells = (name, f"{told['apart']:.2g}{effect}", f"{told['kept']:.3f}", f"{told['tokens']:.0%}", task, same,
             layer, f"{told['bytes'] / 1e6:.1f}", speed, steady, told["program"])  # fmt: skip
    return " | ".join(map(str, cells))


if __name__ == "__main__":
    main()
