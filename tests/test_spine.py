"""From a finished sweep to an answer, through the front doors: promote, serve, OpenAI's client over HTTP."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ftlib.run.directory import Run

from .conftest import foreign, ftlib, rows


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def greedy(base: Path, adapter: Path, prompt: str, tokens: int) -> str:
    """What plain transformers and PEFT answer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    messages = [{"role": "user", "content": prompt}]
    given = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        out = model.generate(**given, max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(out[0, given["input_ids"].shape[1] :], skip_special_tokens=True))


def test_the_winner_answers_as_its_adapter_does(swept: tuple[Run, str], base: Path, ftlib_home: Path) -> None:
    from openai import NotFoundError, OpenAI

    run, _ = swept
    best = (run.path / "leaderboard.csv").read_text().splitlines()[2].split(",")[1]
    assert ftlib("promote", run.path, "--as", "winner")[0] == 0
    assert ftlib("promote", run.path, "000", "--as", "first")[0] == 0
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "ftlib.cli", "serve", "winner", "first", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving "), line + process.stdout.read()  # the first line is ours
        assert f"http://127.0.0.1:{port}/v1" in line
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        assert {model.id for model in client.models.list()} == {"winner", "first"}
        prompt = rows(1)[0]["prompt"]
        for name, trial in (("winner", best), ("first", "000")):
            answer = client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=12
            )
            weights = run.trial(trial).weights
            assert weights is not None
            assert answer.choices[0].message.content == greedy(base, weights, prompt, 12)
        with pytest.raises(NotFoundError):
            client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert foreign(out) == []
