"""The initial model and processor for a small set of questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmtransmamba.datasets.word_processor import SPECIAL, word_processor


def write_start(
    folder: str | Path,
    words: Sequence[str],
    image_size: int,
    patch_size: int,
    seed: int = 0,
    **text: Any,
) -> None:
    """Write a processor and a randomly initialised small Llama into one folder.

    Use the folder as ``language`` and ``processor`` of
    :class:`~mmtransmamba.models.trainable.VisionLanguageModel`, and as ``processor`` of
    the data sets.

    Args:
        folder: Folder to write.
        words: Vocabulary, see
            :func:`~mmtransmamba.datasets.word_processor.word_processor`.
        image_size, patch_size: Sides of pictures and patches.
        seed: Seed of the weights.
        **text: Fields of the Llama's config that differ.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = dict(
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        initializer_range=0.05,
        vocab_size=len(SPECIAL) + len(words),
        pad_token_id=SPECIAL.index('<pad>'),
        bos_token_id=SPECIAL.index('<s>'),
        eos_token_id=SPECIAL.index('</s>'),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**(settings | text)))
    model.save_pretrained(folder)
    word_processor(words, image_size, patch_size).save_pretrained(folder)
