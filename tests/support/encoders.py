"""Tiny encoders with random weights, whose tokenizers have no end-of-text token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPES: dict[str, dict[str, Any]] = {
    "bert": {**SHAPE, "max_position_embeddings": 64},
    "roberta": {**SHAPE, "max_position_embeddings": 66},
    "electra": {**SHAPE, "embedding_size": 32, "max_position_embeddings": 64},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64},
}


def make_encoder(folder: Path, texts: Sequence[str], kind: str = "bert") -> Path:
    """An encoder without a head, and a tokenizer of one token a word of `texts`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    # Not trained: a trained vocabulary is ordered anew in each process, and with it what random weights can learn.
    words = sorted({word for text in texts for word in text.split()})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {**SHAPES[kind], "pad_token_id": 0, "initializer_range": 0.2}
    AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=len(fast), **shape)).save_pretrained(folder)
    return folder
