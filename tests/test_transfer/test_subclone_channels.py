import pytest
import torch

from mmtransmamba.transfer.subclone.channels import (
    ChannelMatcher,
    SizeMismatch,
    channel_importance,
    describe,
    spread,
)
from mmtransmamba.transfer.subclone.options import SubcloneOptions
from mmtransmamba.transfer.weight_maps import EXACT, Rule, Space, WeightMap

STREAM = Space('stream', (('norm', 0), ('blocks.{i}.out', 0)), ('norm', 0))
INNER = Space('inner', (('blocks.{i}.out', 1),), ('blocks.{i}.out', 1), per_layer=True)
MAP = WeightMap(
    'test',
    'blocks.{i}.',
    'blocks.{i}.',
    (Rule('norm', 'norm', ('stream',)),),
    (STREAM, INNER),
)


def state(stream, inner, layers=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = {'norm': torch.randn(stream, generator=generator)}
    for i in range(layers):
        tensors[f'blocks.{i}.out'] = torch.randn(stream, inner, generator=generator)
    return tensors


def test_importance_counts_every_tensor_alike():
    weights = {
        'norm': torch.tensor([1.0, -3.0]),
        'blocks.0.out': torch.tensor([[600.0, -600.0], [200.0, 200.0]]),
    }
    importance = channel_importance(weights, STREAM, range(1))
    torch.testing.assert_close(importance, torch.tensor([0.5 + 1.5, 1.5 + 0.5]))


def test_importance_passes_over_tensors_of_another_width():
    weights = {**state(4, 2), 'blocks.1.out': torch.full((8, 2), 1e6)}
    without = {k: v for k, v in weights.items() if k != 'blocks.1.out'}
    assert torch.equal(
        channel_importance(weights, STREAM, range(2)),
        channel_importance(without, STREAM, range(2)),
    )


def test_the_stream_has_one_order_and_each_layer_its_own():
    source = state(6, 6)
    source['blocks.0.out'][:, [1, 4]] *= 100
    source['blocks.1.out'][:, [0, 5]] *= 100
    source['norm'][[2, 3]] = 1000.0
    matcher = ChannelMatcher(MAP, state(2, 2), source)
    for layer in (0, 1):
        chosen = matcher.select('stream', 'importance', (6, 2), (layer, layer))
        assert chosen.take.tolist() == [2, 3]
    inner = [
        matcher.select('inner', 'importance', (6, 2), (i, i)).take.tolist()
        for i in (0, 1)
    ]
    assert inner == [[1, 4], [0, 5]]


def test_given_importance_has_the_last_word():
    scores = torch.tensor([0.0, 9, 0, 8, 0, 7])
    matcher = ChannelMatcher(MAP, state(3, 2), state(6, 2), {'stream': scores})
    chosen = matcher.select('stream', 'importance', (6, 3), (0, 0))
    assert chosen.take.tolist() == [1, 3, 5]


def test_given_importance_fits_the_map():
    with pytest.raises(ValueError, match=r"\['streams'\] are no spaces .*'stream'"):
        ChannelMatcher(MAP, state(3, 2), state(6, 2), {'streams': torch.ones(6)})
    matcher = ChannelMatcher(MAP, state(3, 2), state(6, 2), {'stream': torch.ones(5)})
    with pytest.raises(ValueError, match=r"\['stream'\] has the shape \[5\].* 6 chan"):
        matcher.select('stream', 'importance', (6, 3), (0, 0))
    with pytest.raises(ValueError, match=r"goes with width='importance'.*'block'"):
        SubcloneOptions(importance={'stream': torch.ones(6)})
    SubcloneOptions(importance={'stream': torch.ones(6)}, rules={'a*': 'importance'})


@pytest.mark.parametrize('width', ['block', 'uniform', 'importance'])
@pytest.mark.parametrize(('source', 'target'), [(6, 4), (4, 6), (4, 4), (5, 1)])
def test_every_width_takes_all_that_fits(width, source, target):
    matcher = ChannelMatcher(MAP, state(target, 2), state(source, 2))
    chosen = matcher.select('stream', width, (source, target), (0, 0))
    count = min(source, target)
    assert len(set(chosen.take.tolist())) == len(set(chosen.into.tolist())) == count
    assert chosen.take.max() < source and chosen.into.max() < target
    if width == 'block':
        assert chosen.take.tolist() == chosen.into.tolist() == list(range(count))


def test_uniform_spreads_in_whichever_is_wider():
    assert spread(3, 9).tolist() == [0, 4, 8]
    assert spread(1, 9).tolist() == [0]
    matcher = ChannelMatcher(MAP, state(9, 2), state(3, 2))
    chosen = matcher.select('stream', 'uniform', (3, 9), (0, 0))
    assert (chosen.take.tolist(), chosen.into.tolist()) == ([0, 1, 2], [0, 4, 8])


def test_concatenated_parts_are_matched_part_by_part():
    matcher = ChannelMatcher(MAP, state(3, 5), state(4, 2))
    chosen = matcher.select(('inner', 'stream'), 'block', (2 + 4, 5 + 3), (0, 0))
    assert chosen.take.tolist() == [0, 1, 2, 3, 4]
    assert chosen.into.tolist() == [0, 1, 5, 6, 7]
    with pytest.raises(SizeMismatch, match=r'\(7, 8\) are not \(6, 8\)'):
        matcher.select(('inner', 'stream'), 'block', (7, 8), (0, 0))


def test_sizes_that_must_agree():
    matcher = ChannelMatcher(MAP, state(3, 2), state(4, 2))
    with pytest.raises(SizeMismatch, match='4 and 3 must agree'):
        matcher.select(EXACT, 'block', (4, 3), (0, 0))
    with pytest.raises(SizeMismatch, match='4 and 3 must agree'):
        matcher.select('stream', 'whole', (4, 3), (0, 0))
    with pytest.raises(SizeMismatch, match="8 are not the 4 of 'stream'"):
        matcher.select('stream', 'block', (8, 3), (0, 0))
    with pytest.raises(SizeMismatch, match='no tensor gives'):
        ChannelMatcher(MAP, {}, {}).select('stream', 'block', (4, 3), (0, 0))


def test_description_of_positions():
    assert describe(torch.arange(4), 9) == '0:4'
    assert describe(torch.tensor([0, 1, 5, 6, 7]), 9) == '0:2+5:8'
    assert describe(torch.tensor([0, 2, 4, 6]), 9) == '4 of 9'
