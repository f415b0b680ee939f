"""Which students the study of ``mqar.py`` has, and their sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LENGTH, PAIRS, VOCAB = 32, 8, 32
HIDDEN, LAYERS, HEADS = 64, 2, 2
BATCH = 32
LEARNING_RATES = (1e-3, 3e-3, 1e-2)
TEACHER_RATES = (5e-3, 2e-3, 1e-3)
"""Tried in turn until a teacher has learned its task."""
MIXERS = ('Mamba2', 'GatedDeltaNet', 'KDA', 'SlidingWindow')
TEST_FIRST = 10**8
"""Index of the first test sequence, far behind those of any training."""
TESTED = 256


@dataclass(frozen=True)
class Run:
    """One student.

    Attributes:
        mixer: Type of the mixer that replaces the attention.
        head_dim: Size of the teacher's heads, K.
        rate: Highest learning rate.
        seed: Seed of teacher, student and data.
    """

    mixer: str
    head_dim: int
    rate: float
    seed: int

    @property
    def key(self) -> str:
        return f'{self.mixer}_k{self.head_dim}_lr{self.rate:g}_seed{self.seed}'

    @property
    def fields(self) -> dict[str, Any]:
        """Type and fields of the mixer."""
        if self.mixer != 'SlidingWindow':
            return dict(type=self.mixer)
        # window + sinks - 1 slots with keys and values of all heads.
        return dict(
            type=self.mixer,
            window=self.state // (2 * HEADS * self.head_dim),
            sinks=1,
        )

    @property
    def state(self) -> int:
        """Numbers in the state of a layer, without the convolution's inputs."""
        return HEADS * self.head_dim**2


def plan(head_dims: list[int], seeds: list[int]) -> list[Run]:
    """All students: a whole table of one seed before the next seed."""
    return [
        Run(mixer, head_dim, rate, seed)
        for seed in seeds
        for head_dim in head_dims
        for mixer in MIXERS
        for rate in LEARNING_RATES
    ]
