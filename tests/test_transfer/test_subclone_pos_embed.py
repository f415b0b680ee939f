import pytest
import torch

from mmtransmamba.transfer.subclone.pos_embed import (
    resample,
    source_grid_of,
    target_grid_of,
)

TOKEN = torch.zeros(1, 1, 4)


@pytest.mark.parametrize(
    ('tokens', 'length', 'grid', 'expected'),
    [
        ((), 16, None, (0, (4, 4))),
        (('cls_token',), 17, None, (1, (4, 4))),
        (('cls_token', 'dist_token'), 18, None, (2, (4, 4))),
        (('cls_token',), 16, None, (0, (4, 4))),  # no position of its own
        (('cls_token',), 13, (3, 4), (1, (3, 4))),
        ((), 12, (3, 4), (0, (3, 4))),
    ],
)
def test_source_grid(tokens, length, grid, expected):
    assert source_grid_of(dict.fromkeys(tokens, TOKEN), length, grid) == expected


def test_grids_that_do_not_fit():
    with pytest.raises(ValueError, match='13 positions .*a square grid.*source_grid'):
        source_grid_of({'cls_token': TOKEN}, 13, None)
    with pytest.raises(ValueError, match='13 positions .* the grid 5x5'):
        source_grid_of({'cls_token': TOKEN}, 13, (5, 5))
    with pytest.raises(ValueError, match='12 positions of the target.*target_grid'):
        target_grid_of(12, None)
    with pytest.raises(ValueError, match='the grid 2x5'):
        target_grid_of(12, (2, 5))
    assert target_grid_of(12, (3, 4)) == (3, 4)
    assert target_grid_of(9, None) == (3, 3)


# PyTorch's bicubic kernel (a = -0.75) overshoots a plane a little, bilinear does not.
@pytest.mark.parametrize(('mode', 'error'), [('bicubic', 0.05), ('bilinear', 1e-5)])
def test_resampling_a_plane_keeps_it_a_plane(mode, error):
    """Away from the rim, where there is nothing to extrapolate from."""
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing='ij')
    plane = torch.stack((y, x), -1).view(1, 64, 2)
    finer = resample(plane, (8, 8), (16, 16), mode).view(16, 16, 2)
    centre = torch.arange(16) / 2 - 0.25  # positions of the finer pixels' centres
    inner = slice(4, 12)
    expected = torch.stack(torch.meshgrid(centre, centre, indexing='ij'), -1)
    assert (finer - expected)[inner, inner].abs().max() < error


def test_the_same_grid_is_not_touched():
    values = torch.randn(1, 12, 3)
    assert resample(values, (3, 4), (3, 4), 'bicubic') is values
