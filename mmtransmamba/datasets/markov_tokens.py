"""Token sequences generated from a source with known entropy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmtransmamba.datasets.token_collate import token_sample
from mmtransmamba.registry import DATASETS


@DATASETS.register_module()
class MarkovTokens(Dataset):
    """Samples of a random Markov chain; needs no download.

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

    Raises:
        ValueError: ``branching`` exceeds ``vocab_size``, or is below 1.
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
        if not 1 <= branching <= vocab_size:
            raise ValueError(
                f'MarkovTokens: branching={branching} must lie in [1, '
                f'vocab_size={vocab_size}].'
            )
        if num_samples < 1 or length < 2:
            raise ValueError(
                f'MarkovTokens: num_samples={num_samples} must be positive and '
                f'length={length} 2 at least.'
            )
        self.num_samples = num_samples
        self.length = length
        self.seed = seed
        self.first = first
        rng = np.random.default_rng(seed)
        self.successors = np.stack(
            [rng.permutation(vocab_size)[:branching] for _ in range(vocab_size)]
        )
        self.probabilities = rng.dirichlet(np.ones(branching), size=vocab_size)

    def entropy_rate(self) -> float:
        """Nats per token: no model has a lower mean negative log-likelihood.

        The mean converges to this value as the sequences get longer, because the first
        token is uniform.
        """
        vocab = len(self.successors)
        transition = np.zeros((vocab, vocab))
        np.put_along_axis(transition, self.successors, self.probabilities, axis=1)
        # The mean over the powers converges even if the chain is periodic.
        state, mean = np.full(vocab, 1 / vocab), np.zeros(vocab)
        for _ in range(steps := 4096):
            state = state @ transition
            mean += state / steps
        p = self.probabilities
        return float(mean @ -(p * np.log(np.maximum(p, 1e-300))).sum(1))

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
