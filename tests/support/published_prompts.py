"""A check of the prompts and pixels of published folders of LLaVA's kind."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from tiny_vlms import tiny_tokenizer

from mmtransmamba.datasets.conversations import Conversation, Turn, encode_prompt
from mmtransmamba.models.trainable import VisionLanguageModel
from mmtransmamba.utils.processors import load_processor


def check_prompt(folder: Path, tokens: int, corner: float) -> None:
    """Ask about a wide white image, as data sets and evaluation do.

    Args:
        folder: The published folder, which gets a tokenizer.
        tokens: Tokens that the image must have.
        corner: Normalised value in the middle of the upper margin.
    """
    tiny_tokenizer().save_pretrained(folder)
    processor = load_processor(folder)
    conversation = Conversation(
        [Turn('user', '<image>\nWhy?')], images=[Image.new('RGB', (24, 12), 'white')]
    )
    sample = encode_prompt(processor, conversation)
    model = VisionLanguageModel(path=str(folder))
    image = model.lm.config.image_token_id
    ids = torch.as_tensor(sample['input_ids'])
    assert int((ids == image).sum()) == tokens
    text = processor.tokenizer.decode(ids)
    assert text.replace('<image>' * tokens, '<image>').endswith(
        "user's questions. USER: <image>\nWhy? ASSISTANT:"
    )
    pixels = torch.as_tensor(sample['pixel_values'])
    torch.testing.assert_close(
        pixels[0, :, 0, 6], torch.full((3,), corner), atol=0.02, rtol=0
    )
    logits = model.lm(input_ids=ids[None], pixel_values=pixels).logits
    assert torch.isfinite(logits).all()
    assert model.companions.processor.image_token == '<image>'
