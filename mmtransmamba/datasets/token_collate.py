"""Samples for language models, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmtransmamba.registry import FUNCTIONS

IGNORED = -100
"""Label of what is not learned; PyTorch's and transformers' convention."""

_PADDING = {'input_ids': 0, 'attention_mask': 0, 'labels': IGNORED}


def token_sample(tokens: Tensor, learned: Tensor | None = None) -> dict[str, Tensor]:
    """A sample of a causal language model.

    Args:
        tokens: Token ids ``[L]`` of an integer type.
        learned: Bool ``[L]``, False where a token belongs to a prompt; by default all
            tokens are learned.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, int64 ``[L]``. As in
        transformers, a label is the token at its own position: the loss function does
        the shift.
    """
    tokens = tokens.long()
    labels = tokens.clone()
    if learned is not None:
        labels[~learned] = IGNORED
    return dict(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=labels)


@FUNCTIONS.register_module()
def collate_tokens(
    batch: Sequence[Mapping[str, Tensor]], pad_token: int = 0
) -> dict[str, Tensor]:
    """Stack samples of :func:`token_sample`, the shorter ones padded at the end.

    Args:
        batch: Samples.
        pad_token: Id that pads ``input_ids``.

    Returns:
        The same keys with ``[B, L]``; padding has mask 0 and an ignored label.
    """
    fill = dict(_PADDING, input_ids=pad_token)
    length = max(len(sample['input_ids']) for sample in batch)
    return {
        key: torch.stack(
            [
                torch.nn.functional.pad(
                    sample[key], (0, length - len(sample[key])), value=value
                )
                for sample in batch
            ]
        )
        for key, value in fill.items()
    }
