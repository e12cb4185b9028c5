"""Makes data and a tokenizer for a tiny base from the Python standard library's own source. No network is needed.

    python experiments/pretrain_tiny/prepare.py [FOLDER]

Writes to FOLDER (default .cache/quickstart):
  functions.jsonl   {prompt: a function's signature, completion: the first line of its docstring}
  text.jsonl        {text: ...}, the docstrings and signatures to pretrain on
  base/             a BPE tokenizer with a chat template, and the config of a small Llama (no weights yet)
"""

from __future__ import annotations

import ast
import json
import os
import random
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from rich.progress import track
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

VOCABULARY = 1024
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{{ eos_token + '\n' if message['role'] == 'assistant' else '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def main(folder: Path) -> None:
    """Makes all three."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    sources = [path for path in sources if not {"site-packages", "test", "tests", "idlelib"} & set(path.parts)]
    pairs, texts = [], []
    for path in track(sources, "reading the standard library"):
        for signature, docstring in functions(path):
            summary = docstring.strip().splitlines()[0].strip()
            if 10 <= len(summary) <= 100 and len(signature) <= 120:
                pairs.append({"prompt": signature, "completion": summary})
            texts.append({"text": f"{signature}\n{docstring.strip()[:600]}"})
    pairs = list({pair["prompt"]: pair for pair in pairs}.values())
    random.Random(0).shuffle(pairs)
    random.Random(0).shuffle(texts)
    write_rows(folder / "functions.jsonl", pairs)
    write_rows(folder / "text.jsonl", texts)
    make_base(folder / "base", [row["text"] for row in texts])
    print(
        f"{folder}: {len(pairs):,} function-docstring pairs, {len(texts):,} texts, a tokenizer of {VOCABULARY} tokens"
    )


def functions(path: Path) -> Iterator[tuple[str, str]]:
    """(signature, docstring) of every documented function in a file."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring and docstring.strip():
                yield f"def {node.name}({ast.unparse(node.args)})", docstring


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Writes a whole JSON Lines file or nothing of it."""
    staged = path.with_suffix(".tmp")
    staged.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(staged, path)


def make_base(folder: Path, texts: list[str]) -> None:
    """Trains the tokenizer on `texts` and writes it with the model's config."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", chat_template=CHAT_TEMPLATE
    )
    fast.save_pretrained(folder)
    LlamaConfig(
        vocab_size=len(fast),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    ).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/quickstart"))
