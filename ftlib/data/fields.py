"""What a row or a turn says beside its text: whether it is trained on, and fields that nobody reads.

Whatever changes what is trained is obeyed, or refused by name. What only describes a row is left aside; of any other
field `check` says that it is not used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from ftlib.config.data import printed

__all__ = ["BadRow", "Unweighted", "from_json", "printed", "refuse", "unused", "weight_of"]


class BadRow(Exception):
    """One row cannot be used; the message is the reason, without the place."""


class Unweighted(Exception):
    """Nothing of this row is trained on: it says so itself."""


# 1: trained on; 0: not. OpenAI's and Mistral's `weight`, Axolotl's `train`, ms-swift's `loss`, and their kin; also as
# `trainOnTurn` and `Train`.
WEIGHTS = ("weight", "loss_weight", "train", "trained", "trainable", "training", "train_on_turn", "loss", "loss_mask",
           "loss_scale", "do_train", "is_trained", "is_trainable", "should_train", "supervised", "learn",
           "sample_weight", "row_weight", "example_weight", "instance_weight")  # fmt: skip
# The other way. What is left out is not trained on; what is not left out says nothing of that.
LEFT_OUT = ("ignore", "ignored", "exclude", "skip")
AGAINST = ("masked", "is_masked", "no_loss", "mask_loss", "ignore_loss", "no_train", *LEFT_OUT)
SAID = frozenset((*WEIGHTS, *AGAINST))
HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
SOUNDS = re.compile(r"(weight|loss|mask)s?(_|$)|(^|_)(train_on|trainable|untrained|not_trained)")
SWITCH = {"1": 1, "1.0": 1, "true": 1, "yes": 1, "0": 0, "0.0": 0, "false": 0, "no": 0}

TEXT_ALONE = "text alone is trained on"
WHOLE_TURNS = "parts of a turn cannot be chosen: use 'train' of whole turns"
AMBIGUOUS = "it does not say whether 1 is trained on or left out: use 'weight'"
TOKENIZED_HERE = "rows are tokenized here: use 'weight' of turns"
MEDIA = dict.fromkeys(("images", "image", "videos", "video", "audios", "audio", "input_audio", "objects"), TEXT_ALONE)
REFUSED_IN_TURNS = {
    **MEDIA,
    "train_detail": WHOLE_TURNS,
    "training_detail": WHOLE_TURNS,
    "mask": AMBIGUOUS,
    "tools": "they belong to the row, beside its turns",
    "functions": "they belong to the row, beside its turns",
    "refusal": "it stands beside the content: write it into the content",
    "tool_plan": "it stands beside the content: write it into the content, or call it 'reasoning_content'",
}
REFUSED_IN_ROWS = {
    **MEDIA,
    "mask": AMBIGUOUS,
    "completion_mask": TOKENIZED_HERE,
    "assistant_masks": TOKENIZED_HERE,
    "chat_template": "all rows are written by one template: data.template",
    "train_on_input": "it holds for all rows: data.train_on_prompt",
    "train_on_inputs": "it holds for all rows: data.train_on_prompt",
    "train_on_prompt": "it holds for all rows: data.train_on_prompt",
    "mask_history": "it holds for single turns: use their 'weight'",
    "documents": "no method here gives them to the chat template: write them into the turns",
    "margin": "no method here keeps a margin between answers",
}

# Fields that describe a row or a turn, and change nothing about training.
# fmt: off
HARMLESS = frozenset((
    "id", "idx", "index", "uid", "uuid", "guid", "_id", "_from", "row_id",
    "prompt_id", "conversation_id", "question_id",
    "message_id", "hash", "source", "src", "dataset", "dataset_name", "origin", "data_source", "category",
    "categories", "domain", "topic", "topics", "subject", "task", "task_type", "task_name", "tag", "tags", "lang",
    "language", "locale", "split", "subset", "url", "link", "license", "author", "model", "model_name", "generator",
    "created", "created_at", "updated_at", "timestamp", "date", "time", "metadata", "meta", "extra_info", "info",
    "score", "score_chosen", "score_rejected", "rating", "difficulty", "level", "quality", "num_turns",
    "token_count", "num_tokens", "length", "embedding", "comment", "note", "notes", "version", "__index_level_0__",
    "parallel_tool_calls", "tool_choice", "end_turn", "recipient", "channel", "",  # pandas' nameless index
))
# fmt: on


def weight_of(said: dict[str, Any], name: str) -> int | None:
    """1 or 0 where a turn or a row says whether it is trained on, else None. Raises BadRow for any other weight."""
    found = {}
    for key, value in said.items():
        spelled = spelling(key)
        if spelled not in SAID or value in (None, ""):
            continue
        switch = _switch(value, key, name)
        if spelled in WEIGHTS:
            found[key] = switch
        elif switch or spelled not in LEFT_OUT:
            found[key] = 1 - switch
    if len(set(found.values())) > 1:
        raise BadRow(f"{name}: {' and '.join(map(repr, found))} contradict each other")
    return next(iter(found.values()), None)


def refuse(said: dict[str, Any], refused: dict[str, str], name: str) -> None:
    """Raises BadRow for a field that changes what is trained and is not supported."""
    for key, reason in refused.items():
        if said.get(key) not in (None, "", [], {}, False, "[]", "false", "False"):
            raise BadRow(f"{name} has '{key}', and {reason}")


def refuse_unknown_weights(said: Iterable[str], name: str) -> None:
    """Raises BadRow for a field that sounds as if it weighed the loss, and is no spelling of that which is known."""
    for key in said:
        if _sounds(key):
            raise BadRow(
                f"{name} has '{key}', which sounds like a weight of the loss and is none that is known: call it "
                "'weight', "
                f"or take it out (data.ignore_columns: [{key}] does, of a row)"
            )


@cache
def spelling(key: str) -> str:
    """The name of a field as most write it: loss_weight for lossWeight, Loss-Weight and LOSS_WEIGHT."""
    return HUMP.sub("_", key).lower().replace("-", "_").replace(" ", "_")


@cache
def _sounds(key: str) -> bool:
    spelled = spelling(key)
    answered = {*SAID, *REFUSED_IN_ROWS, *REFUSED_IN_TURNS} - {"mask"}
    return spelled not in answered and SOUNDS.search(spelled) is not None


def unused(fields: dict[str, Any], read: frozenset[str], turns_read: frozenset[str]) -> Iterator[str]:
    """The names of the fields that hold something, describe nothing and are not read: 'mood', 'messages[].mood'."""
    for key, value in fields.items():
        if key in read or spelling(key) in SAID:
            if isinstance(value, list):
                yield from {f"{key}[].{name}" for turn in value for name in _of_turn(turn)
                            if name not in turns_read and spelling(name) not in SAID}  # fmt: skip
        elif key.lower() not in HARMLESS and not key.startswith("Unnamed:") and value not in (None, "", [], {}):
            yield key


def from_json(value: Any, name: str) -> Any:
    """What a text of JSON holds; anything else as it is. Raises BadRow."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{name} is not valid JSON ({str(error).splitlines()[0]})") from None


def _of_turn(turn: Any) -> Iterator[str]:
    if isinstance(turn, dict):
        yield from (key for key, value in turn.items() if key not in HARMLESS and value not in (None, "", [], {}))


def _switch(value: Any, key: str, name: str) -> int:
    switch = SWITCH.get(str(value).strip().lower())
    if switch is None:
        way_out = f" (data.ignore_columns: [{key}] takes it out)" if name == "the row" else ""
        raise BadRow(f"{name} has '{key}': {value!r}, and only 0 and 1 are known: trained on, or not{way_out}")
    return switch
