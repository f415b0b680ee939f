"""Damaged ``.npz`` files are named."""

import numpy as np
import pytest

from mmtransmamba.datasets import TokenSamples
from mmtransmamba.transfer.convert import read_calibration
from mmtransmamba.utils.array_files import open_arrays


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / 'good.npz', tokens=np.arange(4000).reshape(40, 100))
    return tmp_path / 'good.npz'


def damaged(path, how):
    content = path.read_bytes()
    if how == 'flipped':
        middle = len(content) // 2
        content = content[:middle] + b'\xff' * 64 + content[middle + 64 :]
    else:
        content = {'cut': content[:-100], 'empty': b'', 'text': b'no array'}[how]
    path.write_bytes(content)


@pytest.mark.parametrize('how', ['cut', 'flipped', 'empty', 'text'])
@pytest.mark.parametrize(
    'read', [TokenSamples, lambda path: read_calibration(path, '/nowhere')]
)
def test_the_file_is_named(path, how, read):
    damaged(path, how)
    with pytest.raises(ValueError, match=f'"{path}" is not an? (complete )?.npz file'):
        read(str(path))


def test_objects_and_single_arrays(tmp_path):
    np.savez(tmp_path / 'objects.npz', tokens=np.array([None]))
    with pytest.raises(ValueError, match='objects.npz" is not an .npz file of numbers'):
        TokenSamples(str(tmp_path / 'objects.npz'))
    np.save(tmp_path / 'single.npy', np.zeros(2))
    with (
        pytest.raises(ValueError, match='single.npy" is a single array'),
        open_arrays(tmp_path / 'single.npy'),
    ):
        pass
    with pytest.raises(FileNotFoundError, match='absent'), open_arrays('absent'):
        pass
