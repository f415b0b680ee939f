"""Bringing teacher tokens onto the student's grid."""

import pytest
import torch
import torch.nn.functional as F

from mmtransmamba.transfer.alignment import match_layers, resample_tokens


def ramp(*grid):
    """Tokens whose channels are their own coordinates, in units of the grid."""
    axes = [(torch.arange(n) + 0.5) / n for n in grid]
    return torch.stack(torch.meshgrid(*axes, indexing='ij'), -1).flatten(0, -2)[None]


def inner(tokens, grid):
    """Without the borders, where interpolation has nothing to go on."""
    maps = tokens.unflatten(1, grid)
    for axis, size in enumerate(grid, start=1):
        maps = maps.narrow(axis, 1, size - 2)
    return maps


def test_same_grid_is_the_tensor_itself():
    tokens = torch.randn(2, 12, 5)
    assert resample_tokens(tokens, (3, 4), (3, 4)) is tokens


@pytest.mark.parametrize(
    'grid, target', [((4, 4), (8, 6)), ((4, 5, 6), (8, 10, 6)), ((4, 4, 4), (6, 4, 4))]
)
def test_linear_along_every_axis(grid, target):
    tokens = ramp(*grid)
    out = resample_tokens(tokens, grid, target)
    torch.testing.assert_close(inner(out, target), inner(ramp(*target), target))


def test_images_are_resized_with_antialiasing():
    tokens = torch.randn(2, 48, 5)
    maps = tokens.mT.unflatten(2, (6, 8))
    expected = F.interpolate(maps, size=(3, 5), mode='bilinear', antialias=True)
    out = resample_tokens(tokens, (6, 8), (3, 5))
    torch.testing.assert_close(out, expected.flatten(2).mT)


def test_frames_do_not_mix_when_only_the_image_is_resized():
    tokens = torch.randn(2, 3, 16, 5)
    out = resample_tokens(tokens.flatten(1, 2), (3, 4, 4), (3, 2, 3))
    for t, frame in enumerate(out.unflatten(1, (3, 6)).unbind(1)):
        torch.testing.assert_close(
            frame, resample_tokens(tokens[:, t], (4, 4), (2, 3)), msg=str(t)
        )


@pytest.mark.parametrize('size', [(4, 4), (2, 3)])
def test_an_image_supervises_every_frame(size):
    tokens = torch.randn(2, 16, 5)
    out = resample_tokens(tokens, (4, 4), (3, *size))
    image = resample_tokens(tokens, (4, 4), size)
    assert out.shape == (2, 3 * size[0] * size[1], 5)
    for frame in out.chunk(3, dim=1):
        torch.testing.assert_close(frame, image)


def test_a_video_does_not_supervise_an_image():
    with pytest.raises(ValueError, match=r'\(2, 4, 4\).*single image grid \(4, 4\)'):
        resample_tokens(torch.zeros(1, 32, 5), (2, 4, 4), (4, 4))


@pytest.mark.parametrize(
    ('students', 'teachers', 'expected'),
    [
        (24, 12, [i // 2 for i in range(24)]),
        (36, 12, [i // 3 for i in range(36)]),
        (6, 12, [1, 3, 5, 7, 9, 11]),
        (3, 3, [0, 1, 2]),
        (1, 12, [11]),
    ],
)
def test_uniform_uses_all_layers_alike(students, teachers, expected):
    assert match_layers(students, teachers, 'uniform') == expected
