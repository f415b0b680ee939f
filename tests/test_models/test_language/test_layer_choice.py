"""Which layers become Mamba layers."""

import pytest

from mmtransmamba.models.language import choose_layers


@pytest.mark.parametrize(
    'position, ratio, layers',
    [
        ('early', 0.25, [0, 1]),
        ('low', 0.25, [0, 1]),
        ('late', 0.25, [6, 7]),
        ('high', 0.25, [6, 7]),
        ('middle', 0.25, [3, 4]),
        ('evenly', 0.25, [2, 6]),
        ('evenly', 0.5, [1, 3, 5, 7]),
        ('evenly', 0.125, [4]),
        ('interleaved', 0.75, [1, 2, 3, 5, 6, 7]),
        ('interleaved_head', 0.75, [1, 2, 3, 5, 6, 7]),
        ('interleaved_tail', 0.75, [0, 1, 2, 4, 5, 6]),
        ('interleaved_head', 1.0, list(range(8))),
        ('evenly', 1.0, list(range(8))),
        ([-1, 0, 3], 0.1, [0, 3, 7]),
    ],
)
def test_positions(position, ratio, layers):
    assert choose_layers(8, position, ratio) == layers


@pytest.mark.parametrize('position', ['evenly', 'middle', 'interleaved_tail'])
@pytest.mark.parametrize('num_layers', [1, 5, 24, 32])
def test_every_ratio_gives_its_number_of_layers(position, num_layers):
    for count in range(1, num_layers + 1):
        layers = choose_layers(num_layers, position, count / num_layers)
        assert len(layers) == count == len(set(layers))
        assert layers == sorted(layers)
        assert 0 <= layers[0] and layers[-1] < num_layers


def test_mmmamba_hybrid_keeps_the_first_of_every_four():
    layers = choose_layers(32, 'interleaved_head', 0.75)
    assert [i for i in range(32) if i not in layers] == list(range(0, 32, 4))


@pytest.mark.parametrize(
    'num_layers, ratio, count', [(1, 0.5, 1), (5, 0.5, 3), (5, 0.1, 1), (5, 0.29, 1)]
)
def test_halves_are_rounded_up(num_layers, ratio, count):
    assert len(choose_layers(num_layers, 'early', ratio)) == count


@pytest.mark.parametrize(
    'args, message',
    [
        ((8, 'sometimes'), "layers='sometimes' must be one of evenly, early"),
        ((8, 'early', 0), r'ratio=0 must lie in \(0, 1\]'),
        (
            (8, 'early', 0.01),
            'less than half a layer; the smallest ratio is 0.0625',
        ),
        ((8, [8]), r'layers=\[8\] must name at least one layer, each in \[-8, 7\]'),
        ((8, []), r'layers=\[\] must name at least one layer'),
        ((8, [1, -7]), r'layers=\[1, -7\] names a layer twice'),
    ],
)
def test_bad_choices(args, message):
    with pytest.raises(ValueError, match=message):
        choose_layers(*args)
