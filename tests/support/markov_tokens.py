"""Token sequences that need no download."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmtransmamba.datasets.token_collate import token_sample
from mmtransmamba.registry import DATASETS


@DATASETS.register_module()
class MarkovTokens(Dataset):
    """Samples of a random Markov chain.

    Each token is followed by one of ``branching`` others, with probabilities that
    depend on it. The chain depends on ``vocab_size``, ``branching`` and ``seed``, and a
    sample also on its index. Therefore, one range of indices can be used for training
    and another (``first``) for testing.

    Args:
        num_samples: Number of sequences.
        length: Tokens of each.
        vocab_size: Number of tokens.
        branching: Number of tokens that can follow a token.
        seed: Seed of the chain and the samples.
        first: Index of the first sequence.
    """

    metainfo: dict = {}

    def __init__(
        self,
        num_samples: int = 256,
        length: int = 64,
        vocab_size: int = 64,
        branching: int = 4,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        self.num_samples = num_samples
        self.length = length
        self.seed = seed
        self.first = first
        rng = np.random.default_rng(seed)
        self.successors = np.stack(
            [rng.permutation(vocab_size)[:branching] for _ in range(vocab_size)]
        )
        self.probabilities = rng.dirichlet(np.ones(branching), size=vocab_size)

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.num_samples:
            raise IndexError(f'sample {index} of {self.num_samples}')
        rng = np.random.default_rng([self.seed, 1, self.first + index])
        thresholds = rng.random(self.length)
        token = int(rng.integers(len(self.successors)))
        tokens = []
        for threshold in thresholds:
            tokens.append(token)
            chosen = np.searchsorted(self.probabilities[token].cumsum(), threshold)
            token = int(
                self.successors[token][min(chosen, self.successors.shape[1] - 1)]
            )
        return token_sample(torch.tensor(tokens))
