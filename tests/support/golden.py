"""Golden files: outputs of the official code for weights made from their names.

The numbers come with the project's reference material, see
``tests/data/golden/README.md``; no weights are stored, because every tensor is a
function of its name and shape alone.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN_DIR = Path(__file__).parent.parent / 'data' / 'golden'


def golden_tensor(key: str, shape: list[int]) -> Tensor:
    """The value of the state-dict entry ``key``."""
    leaf = key.rsplit('.', 1)[-1]
    if leaf == 'num_batches_tracked':
        return torch.zeros(shape, dtype=torch.int64)
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    vector = len(shape) <= 1
    if leaf in ('A_log', 'A_logs', 'A_b_log'):
        value = np.log(np.arange(1, shape[-1] + 1)) + 0.1 * noise
    elif leaf in ('D', 'Ds', 'D_b') or (vector and leaf == 'weight'):
        value = 1 + 0.1 * noise
    elif key.endswith(('dt_proj.bias', 'dt_proj_b.bias', 'dt_projs_bias')):
        value = -4 + 0.5 * noise
    elif leaf == 'running_var':
        value = 1 + 0.1 * np.abs(noise)
    elif leaf in ('spatial_decay', 'spatial_first'):
        value = 0.5 + 0.1 * noise
    elif leaf.startswith('spatial_mix_'):
        value = 1 / (1 + np.exp(-noise))
    elif vector:
        value = 0.1 * noise
    else:
        value = noise / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, np.float32))


class Golden:
    """One golden file: facts, weights, input and expected arrays.

    Args:
        name: File name without suffix.
    """

    def __init__(self, name: str) -> None:
        self.info = json.loads((GOLDEN_DIR / f'{name}.json').read_text())
        self.arrays = dict(np.load(GOLDEN_DIR / f'{name}.npz'))

    def state_dict(self) -> dict[str, Tensor]:
        state = {k: golden_tensor(k, s) for k, s in self.info['state_dict']}
        total = sum(float(v.double().sum()) for v in state.values())
        assert abs(total - self.info['checks']['weights_sum']) < 1e-3 * abs(total), (
            'this random generator does not make the golden weights'
        )
        return state

    def images(self) -> Tensor:
        noise = np.random.default_rng(self.info['input']['seed'])
        shape = self.info['input']['shape']
        return torch.from_numpy(noise.standard_normal(shape).astype(np.float32))

    def error(self, name: str, value: Tensor) -> float:
        """Largest difference to the array ``name``, relative to its maximum."""
        reference = self.arrays[name]
        return float(np.abs(value.numpy() - reference).max() / np.abs(reference).max())
