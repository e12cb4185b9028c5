"""A process of another environment, which has llama-cpp-python and no ftlib: one request in JSON on standard input, one
answer on standard output."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

SPARE = 8  # places of a context beyond what is asked for


def main() -> None:
    """Reads the request, does it, prints the answer as the last line."""
    request = json.load(sys.stdin)
    found = {"version": version, "logits": logits, "read": read, "write": write, "quantize": quantize}[request["do"]](
        request
    )
    print(json.dumps(found))


def version(request: dict[str, Any]) -> dict[str, Any]:
    """The version of llama-cpp-python."""
    import llama_cpp

    return {"version": llama_cpp.__version__}


def logits(request: dict[str, Any]) -> dict[str, Any]:
    """Of the last positions of each probe, into an .npz file: arrays "0", "1", ... of [positions, vocabulary]."""
    import numpy as np

    longest = max(len(ids) for ids in request["probes"])
    model = load(request, longest + SPARE, all_logits=True)
    found: dict[str, Any] = {}
    for number, ids in enumerate(request["probes"]):
        model.reset()
        model.eval(ids)
        found[str(number)] = np.array(model.scores[max(0, len(ids) - request["last"]) : len(ids)])
    np.savez(request["to"], **found)
    return {}


def read(request: dict[str, Any]) -> dict[str, Any]:
    """The chat template, the tokens of texts, and the tokens that end an answer."""
    model = load(request, 16)
    return {
        "template": model.metadata.get("tokenizer.chat_template"),
        "tokens": [model.tokenize(text.encode(), add_bos=False, special=True) for text in request["texts"]],
        "ends": sorted(ends_of(model)),
    }


def write(request: dict[str, Any]) -> dict[str, Any]:
    """The likeliest token, again and again, after each prompt, up to one that ends the answer."""
    longest = max(len(ids) for ids in request["prompts"])
    model = load(request, longest + request["most"] + SPARE)
    ends, written, started = ends_of(model), [], time.perf_counter()
    for ids in request["prompts"]:
        answer: list[int] = []
        for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            answer.append(int(token))
            if token in ends or len(answer) >= request["most"]:
                break
        written.append(answer)
    return {"written": written, "ends": sorted(ends), "seconds": time.perf_counter() - started}


def quantize(request: dict[str, Any]) -> dict[str, Any]:
    """Another file of the same model, in one of llama.cpp's types."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{request['dtype'].upper()}")
    params.nthread = request["threads"]
    if llama_cpp.llama_model_quantize(request["model"].encode(), request["to"].encode(), params):
        raise SystemExit(f"llama_model_quantize cannot make {request['dtype']} of it")
    return {}


def load(request: dict[str, Any], places: int, all_logits: bool = False) -> Any:
    """The model, with its adapter, as llama.cpp's users load it, with the numbers that it computes with by default."""
    from llama_cpp import Llama

    return Llama(
        request["model"],
        lora_path=request["adapter"],
        n_ctx=places,
        n_batch=places,
        n_threads=request["threads"],
        logits_all=all_logits,
        verbose=False,
    )


def ends_of(model: Any) -> set[int]:
    """All tokens at which llama.cpp ends an answer."""
    import llama_cpp

    vocabulary = llama_cpp.llama_model_get_vocab(model.model)
    return {token for token in range(model.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocabulary, token)}


if __name__ == "__main__":
    main()
