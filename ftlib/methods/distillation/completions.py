"""`kind: sequence`: what the teacher writes for every prompt, once, as the rows that the student is fine-tuned on.

Sequence-level distillation (Kim and Rush 2016, arXiv:1606.07947) with its most likely completion, found greedily. With
`reasoning: true` the student learns the steps before the answer too (Hsieh et al. 2023, arXiv:2305.02301), between
<think> and </think>. The teacher is a model of ours, or whatever answers at an OpenAI-compatible URL.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ftlib.config import Distill
from ftlib.data.fields import BadRow
from ftlib.data.render import render
from ftlib.data.tokenize import Encoding, Tally, answers
from ftlib.errors import TrialError
from ftlib.files.json_files import append_row, read_rows
from ftlib.files.url_keys import key_for
from ftlib.methods.teacher import cached

if TYPE_CHECKING:
    import datasets

    from ftlib.data import Prepared

Answer = dict[str, Any]  # {"completion": text} or {"failed": why}
Ask = Callable[[Sequence[Any]], Iterator[Answer]]  # an answer to each prompt, in order

TRIES, PAUSE = 5, 1.0  # seconds before the second try, doubled each time
AT_ONCE = 8  # requests under way
MOST_FAILED = 0.1  # the share of prompts that may stay without an answer
THINK = "Think step by step before you answer. Write your steps between <think> and </think>, then the answer."
THOUGHT = re.compile(r"^\s*(?:<think>)?.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True)
class Written:
    """The completions of the training prompts, None where the teacher gave none."""

    completions: list[str | None]
    first_failure: str | None

    @property
    def failed(self) -> int:
        return sum(completion is None for completion in self.completions)


def write_completions(method: Distill, prompts: Prepared, identity: dict[str, Any], ask: Ask) -> Written:
    """The teacher's completions, from the cache where it has them. Answers that came before a failure are kept: a new
    start asks for the missing ones only. Raises TrialError when too many are missing."""
    parts = {"completions": identity, "prompts": prompts.hash, "reasoning": method.reasoning}
    parts["max_completion_length"] = method.max_completion_length

    def build(folder: Path) -> None:
        _ask_for_all(prompts.train["prompt"], ask, folder)

    rows = read_rows(cached(parts, build) / "completions.jsonl")
    reasons = [row["failed"] for row in rows if "failed" in row]
    return Written([row.get("completion") for row in rows], reasons[0] if reasons else None)


def _ask_for_all(prompts: Sequence[Any], ask: Ask, folder: Path) -> None:
    kept = folder.parent / f".{folder.name.split('.')[1]}.answers.jsonl"
    known = {row["prompt"]: row for row in read_rows(kept)}
    missing = [index for index in range(len(prompts)) if index not in known]
    for index, answer in zip(missing, ask([prompts[index] for index in missing]), strict=True):
        known[index] = answer
        if "completion" in answer:
            append_row(kept, {"prompt": index, **answer})
    reasons = [answer["failed"] for answer in known.values() if "failed" in answer]
    if len(reasons) > MOST_FAILED * len(prompts):
        raise TrialError(
            f"the teacher answered {len(prompts) - len(reasons)} of {len(prompts)} prompts (first failure: "
            f"{reasons[0]}). "
            "Its answers are kept: start again to ask for the others."
        )
    for index in range(len(prompts)):
        append_row(folder / "completions.jsonl", known[index])
    kept.unlink(missing_ok=True)


def as_rows(written: Written, prompts: Prepared, encoding: Encoding) -> datasets.Dataset:
    """Rows for supervised fine-tuning on what the teacher wrote. Raises TrialError when that leaves none."""
    passages = []
    for prompt, completion in zip(prompts.train["prompt"], written.completions, strict=True):
        if completion:
            turns = _turns(prompt)
            record = {"messages": [*turns, {"role": "assistant", "content": completion}], "trained_from": len(turns)}
            try:
                passages.append(render(record, encoding.tokenizer, prompts.chat_template))
            except BadRow as bad:  # a template without thoughts, and method.reasoning: true
                raise TrialError(f"what the teacher wrote cannot be learned: {bad}.") from bad
    rows = answers(passages, encoding, Tally()) if passages else ()
    if not len(rows):
        raise TrialError(
            f"what the teacher wrote leaves nothing to train on within data.max_length ({encoding.max_length} tokens)."
        )
    return rows


def _turns(prompt: Any) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _asked(prompt: Any, reasoning: bool) -> list[dict[str, str]]:
    """The conversation as the teacher gets it; the student's own prompt stays as it is."""
    turns = _turns(prompt)
    if not reasoning:
        return turns
    if turns[0]["role"] == "system":
        return [{"role": "system", "content": f"{turns[0]['content']}\n\n{THINK}"}, *turns[1:]]
    return [{"role": "system", "content": THINK}, *turns]


def completed(content: str, thought: str | None, reasoning: bool) -> str:
    """What the student learns to write, given what the teacher said and, where a server tells them apart, thought."""
    if not reasoning:
        return THOUGHT.sub("", content).strip()
    return f"<think>\n{thought.strip()}\n</think>\n\n{content.strip()}" if thought else content.strip()


# --- a teacher of ours -------------------------------------------------------------------------------------------


def local(load: Callable[[], Any], tokenizer: Any, method: Distill, batch_size: int) -> Ask:
    """Asks a model that is loaded here, when there is something to ask."""

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def ask(prompts: Sequence[Any]) -> Iterator[Answer]:
        if not prompts:
            return
        model = load()
        for start in range(0, len(prompts), batch_size):
            texts = [_prompted(prompt, tokenizer, method.reasoning) for prompt in prompts[start : start + batch_size]]
            read = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt", add_special_tokens=False)
            read = {name: read[name].to(model.device) for name in ("input_ids", "attention_mask")}
            written = model.generate(
                **read,
                max_new_tokens=method.max_completion_length,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
            for ids in written[:, read["input_ids"].shape[1] :]:
                text = completed(tokenizer.decode(ids, skip_special_tokens=True), None, method.reasoning)
                yield {"completion": text} if text else {"failed": "the teacher wrote nothing"}

    return ask  # type: ignore[no-any-return]


def _prompted(prompt: Any, tokenizer: Any, reasoning: bool) -> str:
    if isinstance(prompt, str) or not tokenizer.chat_template:
        text = "\n\n".join(turn["content"] for turn in _turns(prompt))
        return (tokenizer.bos_token or "") + text
    chat: str = tokenizer.apply_chat_template(_asked(prompt, reasoning), tokenize=False, add_generation_prompt=True)
    return chat


# --- a teacher at a URL ------------------------------------------------------------------------------------------


def remote(method: Distill) -> Ask:
    """Asks an OpenAI-compatible server, several prompts at once. Raises ConfigError as `key_for`."""
    key = key_for(method.teacher, method.teacher_api_key_env, "method.teacher_api_key_env")

    def answer(prompt: Any) -> Answer:
        body = {
            "model": method.teacher_name,
            "messages": _asked(prompt, method.reasoning),
            "max_tokens": method.max_completion_length,
            "temperature": 0,
        }
        try:
            message = _post(f"{method.teacher.rstrip('/')}/chat/completions", body, key)["choices"][0]["message"]
        except _Failed as failure:
            return {"failed": str(failure)}
        except (KeyError, IndexError, TypeError):
            return {"failed": "the server's reply is not one of OpenAI's chat API"}
        thought = message.get("reasoning_content") or message.get("reasoning")
        text = completed(message.get("content") or "", thought, method.reasoning)
        return {"completion": text} if text else {"failed": "the teacher wrote nothing"}

    def ask(prompts: Sequence[Any]) -> Iterator[Answer]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from pool.map(answer, prompts)

    return ask


class _Failed(Exception):
    """A request that has had all its tries; the message is the reason."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: where one leads, the key was not meant for."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_Stay)


def _post(url: str, body: dict[str, Any], key: str | None) -> Any:
    """One request, tried again while the server is busy or away. Raises TrialError where every other would fail too."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            request = urllib.request.Request(url, json.dumps(body).encode(), headers)
            with _opener.open(request, timeout=600) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code in (401, 403):
                raise TrialError(f"{url} refused us ({reason}): name its key in method.teacher_api_key_env.") from None
            if error.code < 500 and error.code not in (408, 409, 425, 429):
                break
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
    raise _Failed(reason)
