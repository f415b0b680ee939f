import numpy as np
import pytest

from mmtransmamba.datasets import RandomAffine


def apply(transform, img):
    return transform({'img': img.copy()})['img']


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)


def test_no_ranges_change_nothing(image):
    assert np.array_equal(apply(RandomAffine(), image), image)


@pytest.mark.parametrize('shape', [(8, 8), (8, 8, 1), (6, 10, 3)])
def test_shape_and_dtype_stay(shape):
    image = np.full(shape, 100, np.uint8)
    warped = apply(RandomAffine(30, 0.2, (0.8, 1.2), 10), image)
    assert warped.shape == shape
    assert warped.dtype == np.uint8


def fix_randomness(monkeypatch, relative, factor=1.0):
    """Make the transform draw ``relative`` (angle, shear, shift x, shift y)."""

    def uniform(low, high, size=None):
        return factor if size is None else np.array(relative, float)

    monkeypatch.setattr(np.random, 'uniform', uniform)


def test_rotation_by_180_degrees_flips_around_the_centre(image, monkeypatch):
    fix_randomness(monkeypatch, [1, 0, 0, 0])
    warped = apply(RandomAffine(degrees=180, interpolation='nearest'), image)
    assert np.array_equal(warped, image[::-1, ::-1])


def test_shift_fills_with_the_padding_value(image, monkeypatch):
    fix_randomness(monkeypatch, [0, 0, 1, 0])
    warped = apply(RandomAffine(translate=1 / 3, pad_val=7), image)
    assert np.array_equal(warped[:, 3:], image[:, :-3])
    assert (warped[:, :3] == 7).all()


def test_scaling_up_enlarges_the_middle(monkeypatch):
    image = np.zeros((9, 9), np.uint8)
    image[3:6, 3:6] = 255
    fix_randomness(monkeypatch, [0, 0, 0, 0], factor=3.0)
    warped = apply(RandomAffine(scale=(1, 3), interpolation='nearest'), image)
    assert (warped == 255).all()


def test_shear_moves_rows_apart(monkeypatch):
    image = np.zeros((9, 9), np.uint8)
    image[:, 4] = 255
    fix_randomness(monkeypatch, [0, 1, 0, 0])
    warped = apply(RandomAffine(shear=45, interpolation='nearest'), image)
    assert np.array_equal(warped, 255 * np.eye(9, dtype=np.uint8))


def test_seed_decides(image):
    transform = RandomAffine(20, 0.1, (0.9, 1.1), 5)
    results = []
    for seed in (0, 0, 1):
        np.random.seed(seed)
        results.append(apply(transform, image))
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


@pytest.mark.parametrize(
    ('argument', 'value'),
    [
        ('degrees', -1),
        ('translate', 1.5),
        ('shear', 90),
        ('scale', (1.1, 0.9)),
        ('interpolation', 'cubic'),
    ],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f'RandomAffine: {argument} must be'):
        RandomAffine(**{argument: value})
