import pytest

from mmtransmamba.transfer.subclone.layers import match_depth


@pytest.mark.parametrize(
    ('policy', 'target', 'source', 'expected'),
    [
        ('first_n', 3, 5, [0, 1, 2]),
        ('first_n', 5, 3, [0, 1, 2, None, None]),
        ('last_n', 3, 5, [2, 3, 4]),
        ('last_n', 5, 3, [None, None, 0, 1, 2]),
        ('uniform', 3, 5, [0, 2, 4]),
        ('uniform', 5, 3, [0, 0, 1, 2, 2]),
        ('uniform', 4, 4, [0, 1, 2, 3]),
        ('uniform', 1, 4, [0]),
        ([4, 0, 0], 3, 5, [4, 0, 0]),
        ((1, 2), 2, 3, [1, 2]),
    ],
)
def test_policies(policy, target, source, expected):
    assert match_depth(policy, target, source) == expected


@pytest.mark.parametrize(
    ('policy', 'message'),
    [
        (
            'middle',
            r"layers='middle' must be one of \('first_n', 'last_n', 'uniform'\)",
        ),
        ([0, 1], r'layers=\[0, 1\] has 2 entries, but the target has 3 layers'),
        ([0, 1, 4], r'the source has layers 0 to 3, not \[4\]'),
        ([0, -1, 2], r'not \[-1\]'),
        ([0, 1.5, 2], r'not \[1.5\]'),
    ],
)
def test_bad_policies(policy, message):
    with pytest.raises(ValueError, match=message):
        match_depth(policy, 3, 4)
