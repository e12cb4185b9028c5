"""A tokenizer as a GGUF file has it: tokens, their types, merges or scores, and the name of how text is cut.

llama.cpp has the cutting rules in its own code, by name (`tokenizer.ggml.pre`). Here the name is found by the rules
that a tokenizer of the library tokenizers has; rules without a name are refused, for they would be cut as another's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gguf import GGUFWriter, TokenType

from ftlib.errors import InputError

# Names of llama.cpp whose regular expression transformers has in its own table of GGUF files.
NAMED = ("llama-bpe", "qwen2", "gpt-4o", "tekken", "qwen35")
GPT2, DIGITS = "gpt-2", "smollm"
SPACE = "▁"  # SentencePiece's
UNMERGED = -1e4  # the score of a token that no merge makes


class Vocabulary:
    """A fast tokenizer, read from what it tells of itself. Raises InputError for one that llama.cpp does not have."""

    def __init__(self, tokenizer: Any, owner: str) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.tokenizer, self.owner = tokenizer, owner
        self.told: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
        if (self.told.get("model") or {}).get("type") != "BPE":
            kind = (self.told.get("model") or {}).get("type") or type(tokenizer).__name__
            raise InputError(f"{owner}: its tokenizer is {kind}, and a GGUF file of ftlib's holds BPE alone.")
        self.bytewise = not self.told["model"].get("byte_fallback")
        self.pre = cutting(self.told["pre_tokenizer"], owner) if self.bytewise else "default"

    def write(self, writer: GGUFWriter, rows: int, template: str | None, ends: frozenset[int]) -> None:
        """Adds it to a file of a model with so many `rows` of embeddings; rows without a token are called unused."""
        tokens, types = self._tokens(rows)
        writer.add_tokenizer_model("gpt2" if self.bytewise else "llama")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in self.told["model"]["merges"]]
        if self.bytewise:
            writer.add_token_merges(merges)
        else:
            writer.add_token_scores(scores(tokens, merges))
            writer.add_add_space_prefix(self._opens_with_space())
        self._write_special(writer, ends)
        if template is not None:
            writer.add_chat_template(template)

    def _tokens(self, rows: int) -> tuple[list[str], list[TokenType]]:
        known = {number: token for token, number in self.tokenizer.get_vocab().items()}
        if max(known) >= rows:
            raise InputError(f"{self.owner}: its tokenizer has token {max(known)}, and the model {rows} embeddings.")
        added = {token["id"]: token for token in self.told["added_tokens"]}
        unknown = self.told["model"].get("unk_token")
        tokens, types = [], []
        for number in range(rows):
            token = known.get(number, f"[PAD{number}]")
            tokens.append(token if number not in added or added[number]["special"] else token.replace(SPACE, " "))
            types.append(self._type(token, added.get(number), number in known, token == unknown))
        return tokens, types

    def _type(self, token: str, added: dict[str, Any] | None, known: bool, unknown: bool) -> TokenType:
        if not known:
            return TokenType.UNUSED
        if not self.bytewise and unknown:
            return TokenType.UNKNOWN
        if added is not None:
            return TokenType.CONTROL if added["special"] or _looks_special(token) else TokenType.USER_DEFINED
        if not self.bytewise and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return TokenType.BYTE
        return TokenType.NORMAL

    def _opens_with_space(self) -> bool:
        """Whether a text is read with a space before it."""
        told = json.dumps([self.told.get("normalizer"), self.told.get("pre_tokenizer")], ensure_ascii=False)
        return '"Prepend"' in told or '"prepend_scheme": "first"' in told or '"prepend_scheme": "always"' in told

    def _write_special(self, writer: GGUFWriter, ends: frozenset[int]) -> None:
        """The tokens that begin, end and fill. A file has places for three that end an answer: eos, eot and eom."""
        tokenizer = self.tokenizer
        one = tokenizer("a")["input_ids"]
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        named = {
            writer.add_bos_token_id: bos,
            writer.add_eos_token_id: eos,
            writer.add_unk_token_id: tokenizer.unk_token_id,
            writer.add_pad_token_id: tokenizer.pad_token_id,
        }
        for add, number in named.items():
            if number is not None:
                add(number)
        for add, number in zip((writer.add_eot_token_id, writer.add_eom_token_id), sorted(ends - {eos}), strict=False):
            add(number)
        writer.add_add_bos_token(bool(one) and bos is not None and one[0] == bos)
        writer.add_add_eos_token(bool(one) and eos is not None and one[-1] == eos)


def cutting(told: dict[str, Any] | None, owner: str) -> str:
    """llama.cpp's name of the rules by which a byte-level tokenizer cuts text before its merges.

    `told` is `pre_tokenizer` of tokenizer.json. Raises InputError for rules that have no name there.
    """
    steps = told.get("pretokenizers", [told]) if told else []
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return GPT2
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1].get("use_regex", True):
        return DIGITS
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True) and "Regex" in steps[0]["pattern"]:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

        for name in NAMED:
            if GGUF_PRE_TOKENIZER_SPLITS.get(name) == steps[0]["pattern"]["Regex"]:
                return name
    raise InputError(
        f"{owner}: its tokenizer cuts text by rules ({', '.join(kinds) or 'none'}) that ftlib knows no name of in "
        "llama.cpp: --to merged, and llama.cpp's own convert_hf_to_gguf.py."
    )


def scores(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """The scores of a SentencePiece model, by which llama.cpp merges: the earlier a merge, the higher its token's."""
    found: dict[str, float] = {}
    for rank, pair in enumerate(merges):
        found.setdefault("".join(pair.split(" ", 1)), -float(rank))
    return [found.get(token, UNMERGED) for token in tokens]


def _looks_special(token: str) -> bool:
    """Tokens of chats that some models forget to call special."""
    return token.startswith(("<|", "<｜", "<unused")) and token.endswith(">")
