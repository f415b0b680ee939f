"""The states of all random number generators used in training."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_WORDS = 625  # of Python's Mersenne twister: its numbers and the position
_PYTHON = struct.Struct(f'<{_WORDS}I?d')
_NUMPY = struct.Struct(f'<{_WORDS - 1}Iq?d')


def cpu_state() -> Tensor:
    """The states of Python's, numpy's and torch's generators.

    Returns:
        uint8 ``[N]``, with the same N for all states of one torch version.
    """
    _, words, gauss = random.getstate()
    python = _PYTHON.pack(*words, gauss is not None, gauss or 0.0)
    state = np.random.get_state(legacy=False)
    if state['bit_generator'] != 'MT19937':
        raise ValueError(
            f'numpy.random uses {state["bit_generator"]}; for runs that can be resumed '
            'leave it MT19937.'
        )
    twister = state['state']
    numpy = _NUMPY.pack(
        *twister['key'].tolist(),
        int(twister['pos']),
        bool(state['has_gauss']),
        state['gauss'],
    )
    others = torch.frombuffer(bytearray(python + numpy), dtype=torch.uint8)
    return torch.cat([others, torch.get_rng_state()])


def set_cpu_state(state: Tensor) -> None:
    """Restore Python's, numpy's and torch's generators from :func:`cpu_state`."""
    state = state.cpu()
    content = state.numpy().tobytes()
    *words, has_gauss, gauss = _PYTHON.unpack_from(content)
    random.setstate((3, tuple(words), gauss if has_gauss else None))
    *key, pos, has_gauss, gauss = _NUMPY.unpack_from(content, _PYTHON.size)
    twister = dict(key=np.array(key, np.uint32), pos=pos)
    np.random.set_state(
        dict(
            bit_generator='MT19937',
            state=twister,
            has_gauss=int(has_gauss),
            gauss=gauss,
        )
    )
    torch.set_rng_state(state[_PYTHON.size + _NUMPY.size :].clone())


def generator_states() -> dict[str, Tensor]:
    """The states of this process: ``cpu`` and, where a GPU is in use, ``cuda``."""
    states = dict(cpu=cpu_state())
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def set_generator_states(states: dict[str, Tensor]) -> None:
    """Restore the generators of this process from :func:`generator_states`."""
    set_cpu_state(states['cpu'])
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())


@contextmanager
def kept_generators() -> Iterator[None]:
    """Leave the generators of this process as they were."""
    states = generator_states()
    try:
        yield
    finally:
        set_generator_states(states)
