"""Recall and state tracking: questions generated from a seed, by length."""

from __future__ import annotations

from collections.abc import Sequence

from ..questions import Question
from .haystack import NEEDLE, PASSKEY
from .recall import COPY, MQAR
from .task import GeneratedTask, generate_questions
from .tracking import PARITY, PERMUTATION

GENERATED: dict[str, GeneratedTask] = {
    'copy': COPY,
    'mqar': MQAR,
    'needle': NEEDLE,
    'parity': PARITY,
    'passkey': PASSKEY,
    'permutation': PERMUTATION,
}
"""The generated benchmarks by name."""

GROUPS: dict[str, Sequence[str]] = {'state_tracking': ('parity', 'permutation')}
"""Names for several of them."""

__all__ = ['GENERATED', 'GROUPS', 'GeneratedTask', 'Question', 'generate_questions']
