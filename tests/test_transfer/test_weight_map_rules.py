"""Features of weight maps, tested on maps made for the purpose."""

import pytest
import torch
from torch import nn

from mmtransmamba.models import VideoMamba, Vim
from mmtransmamba.transfer.subclone import SubcloneOptions, subclone
from mmtransmamba.transfer.weight_maps import EXACT, Fresh, Rule, Space, WeightMap

STAGE = 'layers.{s}.blocks.{i}.'
WIDTHS = (2, 3)
DEPTHS = (2, 11)


def make_map(*rules, **fields):
    defaults = dict(
        name='test',
        target_layer='layers.{i}.',
        source_layer='blocks.{i}.',
        rules=rules,
        spaces=(
            Space('dim', source=(('blocks.{i}.a', 0),), target=('layers.{i}.a', 0)),
        ),
    )
    return WeightMap(**{**defaults, **fields})


def run(weight_map, source, target, **options):
    new, report = subclone(target, [(weight_map, source)], SubcloneOptions(**options))
    return new, {entry.target: entry for entry in report.entries}, report


# ------------------------------------------------------------------------- stages


@pytest.fixture
def stages():
    """A target of two stages, 13 blocks in all, and a source of 12 layers."""
    stage_map = make_map(
        Rule(STAGE + 'a', 'blocks.{i}.a', ('dim',)),
        Rule(STAGE + 'b', 'blocks.{i}.b', (('dim', 'dim'),), follows=STAGE + 'a'),
        target_layer=STAGE,
        spaces=(Space('dim', source=(('blocks.{i}.a', 0),), target=(STAGE + 'a', 0)),),
        fresh=(Fresh('b', (STAGE + 'b', 'end'), dict(type='ones')),),
    )
    source = {}
    for i in range(12):
        source[f'blocks.{i}.a'] = torch.arange(4.0) + 10 * i
        source[f'blocks.{i}.b'] = torch.arange(8.0) + 100 * i
    target = {
        f'layers.{s}.blocks.{j}.{leaf}': torch.zeros(WIDTHS[s] * (1 + (leaf == 'b')))
        for s in range(2)
        for j in reversed(range(DEPTHS[s]))  # the order of names does not matter
        for leaf in 'ab'
    }
    target['end'] = torch.zeros(1)
    return stage_map, source, target


def test_layers_count_through_the_stages(stages):
    new, entries, report = run(*stages)
    assert report.layers == [*range(12), None]
    for number, name in [(1, '0.blocks.1'), (2, '1.blocks.0'), (11, '1.blocks.9')]:
        entry = entries[f'layers.{name}.a']
        assert entry.source == f'blocks.{number}.a'
        assert new[entry.target][0] == 10 * number
    last = entries['layers.1.blocks.10.a']
    assert (last.action, last.detail) == ('kept', 'the source has no such layer')
    assert new['end'] == 1 and entries['end'].action == 'fresh'
    assert new['layers.1.blocks.10.b'].tolist() == [1.0] * 6


def test_a_channel_set_follows_the_width_of_its_stage(stages):
    stage_map, source, target = stages
    new, entries, _ = run(stage_map, source, target)
    assert new['layers.0.blocks.1.b'].tolist() == [100, 101, 104, 105]
    assert new['layers.1.blocks.0.b'].tolist() == [200, 201, 202, 204, 205, 206]
    assert entries['layers.1.blocks.0.b'].detail.startswith('[0:3+4:7]')

    for i in range(12):
        source[f'blocks.{i}.a'] = torch.tensor([1.0, 40.0, 2.0, 30.0])
    new, _, _ = run(stage_map, source, target, width='importance')
    assert new['layers.0.blocks.0.a'].tolist() == [40, 30]
    assert new['layers.1.blocks.0.a'].tolist() == [40, 2, 30]


def test_names_of_stages_in_patterns_and_followers(stages):
    new, entries, _ = run(*stages, rules={'layers.1.blocks.3.a': 'skip'})
    assert entries['layers.1.blocks.3.a'].detail == 'skipped as configured'
    assert entries['layers.1.blocks.3.b'].detail == 'as layers.1.blocks.3.a'
    assert entries['layers.1.blocks.4.b'].source == 'blocks.6.b'


# ----------------------------------------------------------- sources of one tensor


@pytest.mark.parametrize('both', [False, True])
def test_another_tensor_where_the_source_lacks_the_first(both):
    weight_map = make_map(
        Rule('layers.{i}.a', 'blocks.{i}.new', ('dim',), otherwise='blocks.{i}.a')
    )
    source = {'blocks.0.a': torch.ones(2)}
    if both:
        source['blocks.0.new'] = torch.full((2,), 2.0)
    new, entries, report = run(weight_map, source, {'layers.0.a': torch.zeros(2)})
    assert new['layers.0.a'].tolist() == [1.0 + both] * 2
    assert entries['layers.0.a'].source == 'blocks.0.' + ('new' if both else 'a')
    assert [item.name for item in report.unused] == ['blocks.0.a'] * both
    target = {'layers.0.a': torch.zeros(2), 'layers.0.b': torch.zeros(2)}
    neither = make_map(
        *weight_map.rules,
        Rule('layers.{i}.b', 'blocks.{i}.b', ('dim',), otherwise='blocks.{i}.c'),
    )
    _, entries, _ = run(neither, source, target)
    assert entries['layers.0.b'].detail == 'the source has no blocks.0.c'


def test_a_rule_that_another_tensor_rules_out():
    weight_map = make_map(
        Rule('layers.{i}.a', 'blocks.{i}.a', ('dim',), unless='layers.{i}.gate'),
    )
    source = {f'blocks.{i}.a': torch.ones(2) for i in range(2)}
    target = {name: torch.zeros(2) for name in ('layers.0.a', 'layers.1.a')}
    target['layers.1.gate'] = torch.zeros(2)
    new, entries, report = run(weight_map, source, target)
    assert new['layers.0.a'].all() and not new['layers.1.a'].any()
    assert entries['layers.1.a'].detail == 'not with layers.1.gate'
    assert [item.name for item in report.unused] == ['blocks.1.a']


# ----------------------------------------------------------------- from image to video


@pytest.mark.parametrize('frames', [1, 2, 3])
def test_inflated_convolution_on_a_clip_that_stands_still(frames):
    weight_map = make_map(
        Rule('layers.{i}.a', 'blocks.{i}.a', ('dim',)),
        Rule('proj', 'proj', ('dim', EXACT, EXACT, EXACT), method='inflate'),
    )
    source = {'blocks.0.a': torch.ones(4), 'proj': torch.randn(4, 3, 2, 2)}
    target = {'layers.0.a': torch.ones(4), 'proj': torch.randn(4, 3, frames, 2, 2)}
    new, entries, _ = run(weight_map, source, target)
    image = torch.randn(1, 3, 8, 8)
    clip = image.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    torch.testing.assert_close(
        nn.functional.conv3d(clip, new['proj'], stride=(frames, 2, 2))[:, :, 0],
        nn.functional.conv2d(image, source['proj'], stride=2),
    )
    assert entries['proj'].detail == f'in the middle of {frames} frame(s)'
    assert entries['proj'].source_shape == (4, 3, 2, 2)

    target['proj'] = torch.randn(2, 3, 2, 2)  # an image model, and a narrower one
    target['layers.0.a'] = torch.ones(2)
    new, entries, _ = run(weight_map, source, target)
    assert torch.equal(new['proj'], source['proj'][:2])
    assert entries['proj'].detail == '[0:2, 0:3, 0:2, 0:2]'


# ------------------------------------------------------------------- the class token


def last(patches):
    return patches


def pos_embed_case(extra, cls_at, grid=2):
    """A map, a source of 2x2 positions and ``extra`` tokens, a target."""
    weight_map = make_map(
        Rule('layers.{i}.a', 'blocks.{i}.a', ('dim',)),
        Rule('pos_embed', 'pos_embed', (EXACT, EXACT, 'dim'), method='pos_embed'),
        cls_at=cls_at,
    )
    tokens = ('cls_token', 'dist_token')[:extra]
    source = {name: torch.zeros(1, 1, 1) for name in tokens}
    source['blocks.0.a'] = torch.ones(1)
    source['pos_embed'] = torch.arange(4.0 + extra).view(1, -1, 1)
    length = grid * grid + (cls_at is not None)
    target = {'layers.0.a': torch.ones(1), 'pos_embed': torch.full((1, length, 1), 9.0)}
    if cls_at is not None:
        target['cls_token'] = torch.zeros(1, 1, 1)
    return weight_map, source, target


@pytest.mark.parametrize(
    ('extra', 'cls_at', 'expected', 'action', 'detail'),
    [
        (1, None, [1, 2, 3, 4], 'copied', '1 extra token(s) dropped'),
        (1, VideoMamba.cls_at, [0, 1, 2, 3, 4], 'copied', 'class token at 0'),
        (1, Vim.cls_at, [1, 2, 0, 3, 4], 'copied', 'class token at 2'),
        (
            *(2, Vim.cls_at, [2, 3, 0, 4, 5], 'copied'),
            'class token at 2, 1 extra token(s) dropped',
        ),
        (
            *(0, Vim.cls_at, [0, 1, 9, 2, 3], 'block'),
            '[0:1, 0:4, 0:1] into [0:1, 0:2+3:5, 0:1]',
        ),
    ],
)
def test_the_class_token_gets_its_place(extra, cls_at, expected, action, detail):
    new, entries, _ = run(*pos_embed_case(extra, cls_at))
    assert new['pos_embed'].flatten().tolist() == expected
    entry = entries['pos_embed']
    assert (entry.action, entry.detail) == (action, detail)
    assert entry.inherited == len(expected) - (9 in expected)


def test_the_class_token_is_not_resampled():
    weight_map, source, target = pos_embed_case(1, last, grid=3)
    source['pos_embed'] = torch.tensor([5.0, 1, 1, 1, 1]).view(1, 5, 1)
    new, entries, _ = run(weight_map, source, target)
    assert new['pos_embed'].flatten().tolist() == pytest.approx([1.0] * 9 + [5.0])
    assert entries['pos_embed'].action == 'interpolated'
    assert entries['pos_embed'].detail == 'class token at 9, 2x2 to 3x3 (bicubic)'
    del target['cls_token'], target['pos_embed']
    target['pos_embed'] = torch.zeros(1, 9, 1)  # a student of this family without one
    new, _, _ = run(weight_map, source, target)
    assert new['pos_embed'].flatten().tolist() == pytest.approx([1.0] * 9)
