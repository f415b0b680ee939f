"""Multi-query associative recall as token sequences."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmtransmamba.datasets.token_collate import token_sample
from mmtransmamba.registry import DATASETS

FILLER = 0


@DATASETS.register_module()
class MQARTokens(Dataset):
    """Key-value pairs, followed by every key once more with its value to be recalled.

    The task of Zoology (arXiv:2312.04927): ``k1 v1 k2 v2 ...``, then the keys in random
    order, each followed by its value. Only these values have labels. Keys are tokens
    from 1 to V/2 - 1, values from V/2 to V - 1, and both are drawn without
    repetition, so guessing one of the values of the row is right once in ``pairs``.
    Token 0 fills random gaps between the queries up to ``length``.

    A sample depends on ``seed`` and its index only, so different ranges of indices
    (``first``) serve for training and testing.

    Args:
        num_samples: Number of sequences.
        length: Tokens of each, at least ``4 * pairs``.
        pairs: Key-value pairs of each sequence.
        vocab_size: Number of tokens, V, even.
        seed: Seed of the samples.
        first: Index of the first sequence.

    Raises:
        ValueError: The pairs fit neither into the length nor into the vocabulary.
    """

    metainfo: dict = {}

    def __init__(
        self,
        num_samples: int = 1024,
        length: int = 64,
        pairs: int = 8,
        vocab_size: int = 128,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        if num_samples < 1 or pairs < 1:
            raise ValueError(
                f'MQARTokens: num_samples={num_samples} and pairs={pairs} must be '
                'positive.'
            )
        if length < 4 * pairs:
            raise ValueError(
                f'MQARTokens: length={length} must be at least 4 * pairs={4 * pairs}: '
                'keys and values appear twice.'
            )
        if vocab_size % 2 or pairs > vocab_size // 2 - 1:
            raise ValueError(
                f'MQARTokens: vocab_size={vocab_size} must be even and at least '
                f'{2 * pairs + 2} for pairs={pairs}.'
            )
        self.num_samples = num_samples
        self.length = length
        self.pairs = pairs
        self.vocab_size = vocab_size
        self.seed = seed
        self.first = first

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.num_samples:
            raise IndexError(f'sample {index} of {self.num_samples}')
        rng = np.random.default_rng([self.seed, self.first + index])
        half, pairs = self.vocab_size // 2, self.pairs
        keys = 1 + rng.permutation(half - 1)[:pairs]
        values = half + rng.permutation(half)[:pairs]
        both = np.stack((keys, values), axis=1)
        tokens = np.full(self.length, FILLER)
        tokens[: 2 * pairs] = both.ravel()
        # Queries of two tokens in random places of the rest, in random order.
        rest = self.length - 2 * pairs
        gaps = np.sort(rng.permutation(rest - pairs)[:pairs])
        places = 2 * pairs + gaps + np.arange(pairs)
        order = rng.permutation(pairs)
        tokens[places], tokens[places + 1] = both[order].T
        learned = np.zeros(self.length, dtype=bool)
        learned[places + 1] = True
        return token_sample(torch.from_numpy(tokens), torch.from_numpy(learned))
