import json

import pytest
import torch
from subclone_models import distinct, student, vit_state
from torch import nn

from mmtransmamba.transfer.subclone import SubcloneOptions, subclone
from mmtransmamba.transfer.weight_maps import (
    EXACT,
    Fresh,
    Rule,
    Space,
    WeightMap,
    get_weight_map,
)

MAP = get_weight_map('vit_to_plainmamba')
PROJ = 'mamba.out_proj.weight'


def run(target, source, **options):
    return subclone(target, [(MAP, source)], SubcloneOptions(**options))


def entries(report):
    return {entry.target: entry for entry in report.entries}


def test_equal_widths_copy_whole_tensors_and_a_block_of_the_projection():
    source, target = vit_state(), distinct(student(), seed=2)
    before = {name: t.clone() for name, t in target.items()}
    new, report = run(target, source)

    assert list(new) == list(target)
    assert all(torch.equal(target[name], t) for name, t in before.items())
    assert torch.equal(new['backbone.pos_embed'], source['pos_embed'][:, 1:])
    assert torch.equal(new['backbone.ln1.weight'], source['norm.weight'])
    assert torch.equal(new['head.fc.weight'], source['head.weight'])
    for i in range(3):
        layer, block = f'backbone.layers.{i}.', f'blocks.{i}.'
        for leaf in ('weight', 'bias'):
            assert torch.equal(
                new[f'{layer}norm.{leaf}'], source[f'{block}norm1.{leaf}']
            )
        proj = new[layer + PROJ]
        assert torch.equal(proj[:, :16], source[f'{block}attn.proj.weight'])
        rest = proj[:, 16:]
        assert 0 < rest.abs().max() <= 0.04  # trunc_normal(std=0.02)
        assert torch.equal(
            new[f'{layer}mamba.out_proj.bias'], source[f'{block}attn.proj.bias']
        )

    by_name = entries(report)
    assert by_name['backbone.pos_embed'].action == 'copied'
    assert by_name['backbone.pos_embed'].detail == '1 extra token(s) dropped'
    entry = by_name['backbone.layers.1.' + PROJ]
    assert (entry.action, entry.source) == ('block', 'blocks.1.attn.proj.weight')
    assert (entry.shape, entry.source_shape) == ((16, 32), (16, 16))
    assert entry.detail == '[0:16, 0:16]' and entry.inherited == 256
    assert entry.rest == 'trunc_normal(std=0.02)'


def test_what_no_rule_names_is_kept_and_the_rest_follows_stated_rules():
    source, target = vit_state(), distinct(student(), seed=2)
    new, report = run(target, source)
    by_name = entries(report)
    kept = [name for name, entry in by_name.items() if entry.action == 'kept']
    assert kept == [
        name for name in target if 'patch_embed' in name or 'direction_Bs' in name
    ]
    assert all(torch.equal(new[name], target[name]) for name in kept)
    mamba = 'backbone.layers.0.mamba.'
    assert torch.equal(new[mamba + 'A_log'], torch.arange(1.0, 5).log().expand(32, 4))
    assert torch.equal(new[mamba + 'D'], torch.ones(32))
    assert not new[mamba + 'in_proj.bias'].any()
    conv = new[mamba + 'conv2d.weight']
    assert conv.std().item() == pytest.approx(1 / 7, rel=0.1)
    # PlainMamba adds the bias twice.
    dt = nn.functional.softplus(2 * new[mamba + 'dt_proj.bias'])
    assert 1e-3 <= dt.min() and dt.max() <= 0.1
    assert by_name[mamba + 'conv2d.weight'].rest == 'normal(std=0.1429)'
    assert by_name[mamba + 'D'].action == 'fresh'


def channels(report, name):
    return entries(report)[name].detail


@pytest.mark.parametrize('width', ['block', 'uniform', 'importance'])
def test_narrower_student(width):
    source = vit_state(dim=32)
    source['norm.weight'][[3, 8, 30]] *= 1e4  # sure to be among the important
    target = distinct(student(dim=16), seed=2)
    new, report = run(target, source, width=width, rescale=False)

    # Which channels were taken shows in a tensor whose values are all different.
    order = {value: i for i, value in enumerate(source['norm.bias'].tolist())}
    taken = torch.tensor([order[v] for v in new['backbone.ln1.bias'].tolist()])
    if width == 'block':
        assert taken.tolist() == list(range(16))
    if width == 'uniform':
        assert taken[0] == 0 and taken[-1] == 31
        assert set(taken.diff().tolist()) == {2, 3}
    if width == 'importance':
        assert {3, 8, 30} <= set(taken.tolist())
    assert len(set(taken.tolist())) == 16

    # All tensors on the residual stream take the very same channels.
    assert torch.equal(
        new['backbone.pos_embed'], source['pos_embed'][:, 1:][..., taken]
    )
    assert torch.equal(new['head.fc.weight'], source['head.weight'][:, taken])
    for i in range(3):
        layer, block = f'backbone.layers.{i}.', f'blocks.{i}.'
        assert torch.equal(
            new[layer + 'norm.weight'], source[block + 'norm1.weight'][taken]
        )
        assert torch.equal(new[layer + PROJ], source[block + 'attn.proj.weight'][taken])
        assert torch.equal(
            new[layer + 'mamba.out_proj.bias'],
            source[block + 'attn.proj.bias'][taken],
        )
    expected = 'block' if width == 'block' else 'selected'
    assert entries(report)['backbone.ln1.weight'].action == expected
    if width == 'block':
        assert channels(report, 'backbone.ln1.weight') == '[0:16]'


@pytest.mark.parametrize('width', ['block', 'uniform', 'importance'])
def test_wider_student(width):
    source = vit_state(dim=16)
    target = distinct(student(dim=24), seed=2)
    new, report = run(target, source, width=width)
    if width == 'uniform':
        into = torch.linspace(0, 23, 16, dtype=torch.float64).round().long()
        heads = torch.linspace(0, 47, 16, dtype=torch.float64).round().long()
    else:
        into = heads = torch.arange(16)
    others = torch.ones(24, dtype=torch.bool)
    others[into] = False

    norm = 'backbone.layers.2.norm.weight'
    assert torch.equal(new[norm][into], source['blocks.2.norm1.weight'])
    assert torch.equal(new[norm][others], target[norm][others])
    assert entries(report)[norm].rest == 'kept'
    pos = new['backbone.pos_embed']
    assert torch.equal(pos[..., into], source['pos_embed'][:, 1:])
    assert torch.equal(pos[..., others], target['backbone.pos_embed'][..., others])
    proj = new['backbone.layers.2.' + PROJ]
    assert torch.equal(proj[into][:, heads], source['blocks.2.attn.proj.weight'])
    assert proj[others].abs().max() <= 0.04  # fresh, as the rest of its rows
    head = new['head.fc.weight']
    assert torch.equal(head[:, into], source['head.weight'])


def test_rescaling_keeps_the_variance_of_narrowed_sums():
    source, target = vit_state(dim=32), distinct(student(dim=12), seed=2)
    plain, _ = run(target, source, width='importance', rescale=False)
    scaled, report = run(target, source, width='importance')
    heads = (32 / 24) ** 0.5  # the mixer has 24 inner channels
    torch.testing.assert_close(
        scaled['backbone.layers.0.' + PROJ], plain['backbone.layers.0.' + PROJ] * heads
    )
    torch.testing.assert_close(
        scaled['head.fc.weight'], plain['head.fc.weight'] * (32 / 12) ** 0.5
    )
    assert torch.equal(scaled['backbone.ln1.weight'], plain['backbone.ln1.weight'])
    assert 'times 1.633' in channels(report, 'head.fc.weight')
    block, _ = run(target, source, width='block')
    assert torch.equal(block['head.fc.weight'], source['head.weight'][:, :12])
    forced, _ = run(target, source, width='block', rescale=True)
    assert not torch.equal(forced['head.fc.weight'], block['head.fc.weight'])


@pytest.mark.parametrize(
    ('layers', 'depths', 'expected'),
    [
        ('first_n', (2, 4), [0, 1]),
        ('last_n', (2, 4), [2, 3]),
        ('uniform', (2, 4), [0, 3]),
        ([3, 1], (2, 4), [3, 1]),
        ('first_n', (4, 2), [0, 1, None, None]),
        ('last_n', (4, 2), [None, None, 0, 1]),
        ('uniform', (4, 2), [0, 0, 1, 1]),
    ],
)
def test_shallower_and_deeper_students(layers, depths, expected):
    source = vit_state(depth=depths[1])
    target = distinct(student(depth=depths[0]), seed=2)
    new, report = run(target, source, layers=layers)
    assert report.layers == expected
    for i, j in enumerate(expected):
        name = f'backbone.layers.{i}.norm.weight'
        entry = entries(report)[name]
        if j is None:
            assert torch.equal(new[name], target[name])
            assert (entry.action, entry.detail) == (
                'kept',
                'the source has no such layer',
            )
        else:
            assert torch.equal(new[name], source[f'blocks.{j}.norm1.weight'])
            assert entry.source == f'blocks.{j}.norm1.weight'


@pytest.mark.parametrize('distilled', [False, True])
@pytest.mark.parametrize('mode', ['bicubic', 'bilinear'])
def test_position_embedding_of_another_grid(distilled, mode):
    source = vit_state(grid=2, distilled=distilled)
    target = distinct(student(grid=(3, 5)), seed=2)
    new, report = run(target, source, interpolation=mode, target_grid=(3, 5))
    grid = source['pos_embed'][:, 1 + distilled :].view(1, 2, 2, 16)
    expected = nn.functional.interpolate(
        grid.permute(0, 3, 1, 2), (3, 5), mode=mode, align_corners=False
    )
    torch.testing.assert_close(
        new['backbone.pos_embed'], expected.flatten(2).transpose(1, 2)
    )
    entry = entries(report)['backbone.pos_embed']
    assert entry.action == 'interpolated'
    assert f'2x2 to 3x5 ({mode})' in entry.detail


def test_narrow_student_on_another_grid():
    new, report = run(
        distinct(student(dim=8, grid=4), seed=2), vit_state(dim=16, grid=2)
    )
    assert new['backbone.pos_embed'].shape == (1, 16, 8)
    entry = entries(report)['backbone.pos_embed']
    assert entry.action == 'interpolated' and '0:8' in entry.detail


def test_head_of_other_classes_begins_anew_and_says_so():
    new, report = run(distinct(student(classes=7), seed=2), vit_state(classes=5))
    for name in ('head.fc.weight', 'head.fc.bias'):
        assert entries(report)[name].action == 'fresh'
    assert new['head.fc.weight'].abs().max() <= 0.04
    assert 'shapes differ from head.weight (5, 16)' in channels(
        report, 'head.fc.weight'
    )
    assert 'head.weight' in [item.name for item in report.unused]


def test_teacher_without_head():
    source = {k: t for k, t in vit_state().items() if not k.startswith('head')}
    _, report = run(distinct(student(), seed=2), source)
    entry = entries(report)['head.fc.weight']
    assert (entry.action, entry.detail) == ('fresh', 'the source has no head.weight')


def test_patch_embedding_is_taken_where_shapes_agree():
    source = vit_state()
    target = distinct(student(classes=None), seed=2)
    _, report = run(target, source)
    entry = entries(report)['patch_embed.projection.weight']
    assert entry.action == 'kept' and 'shapes differ' in entry.detail
    bias = entries(report)['patch_embed.projection.bias']
    assert (bias.action, bias.detail) == ('kept', 'as patch_embed.projection.weight')

    shape = source['patch_embed.proj.weight'].shape
    target['patch_embed.projection.weight'] = torch.zeros(shape)
    new, report = run(target, source)
    for leaf in ('weight', 'bias'):
        assert torch.equal(
            new[f'patch_embed.projection.{leaf}'], source[f'patch_embed.proj.{leaf}']
        )


def test_attention_and_feed_forward_weights_are_listed_as_unused():
    source = vit_state()
    _, report = run(distinct(student(), seed=2), source)
    unused = {item.name for item in report.unused}
    assert unused == {
        name
        for name in source
        if any(part in name for part in ('qkv', 'mlp', 'norm2', 'cls_token'))
        or name.startswith('patch_embed')
    }


def test_a_seed_fixes_everything_and_tensors_are_independent():
    source, target = vit_state(), distinct(student(), seed=2)
    first, _ = run(target, source, seed=5)
    again, _ = run(target, source, seed=5)
    other, _ = run(target, source, seed=6)
    conv = 'backbone.layers.0.mamba.conv2d.weight'
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first[conv], other[conv])
    assert not torch.equal(first[conv], first[conv.replace('0', '1')])
    changed, _ = run(target, source, seed=5, fresh=dict(linear_weight='keep'))
    assert torch.equal(changed[conv], first[conv])


def test_fresh_rules_can_be_changed():
    source, target = vit_state(), distinct(student(), seed=2)
    new, report = run(
        target,
        source,
        fresh=dict(
            conv_weight=dict(std=3.0), linear_weight='keep', D=dict(type='zeros')
        ),
    )
    mamba = 'backbone.layers.0.mamba.'
    assert new[mamba + 'conv2d.weight'].std() > 2
    assert not new[mamba + 'D'].any()
    assert torch.equal(new[mamba + 'in_proj.weight'], target[mamba + 'in_proj.weight'])
    assert torch.equal(
        new[mamba + 'out_proj.weight'][:, 16:],
        target[mamba + 'out_proj.weight'][:, 16:],
    )
    assert entries(report)[mamba + 'out_proj.weight'].rest == 'kept'


def test_rules_for_single_tensors():
    source, target = vit_state(dim=32), distinct(student(dim=16), seed=2)
    new, report = run(
        target,
        source,
        rules={'layers.*.norm.*': 'skip', 'ln1.*': 'uniform', 'layers.1.*': 'uniform'},
    )
    norm = 'backbone.layers.1.norm.weight'
    assert torch.equal(new[norm], target[norm])
    assert entries(report)[norm].detail == 'skipped as configured'
    assert new['backbone.ln1.weight'][-1] == source['norm.weight'][-1]
    assert torch.equal(
        new['backbone.layers.0.' + PROJ],
        source['blocks.0.attn.proj.weight'][:16, :32],
    )
    assert entries(report)['backbone.layers.1.' + PROJ].action == 'selected'


def test_dtype_of_the_target_is_kept():
    source = {name: t.bfloat16() for name, t in vit_state().items()}
    new, _ = run(distinct(student(), seed=2), source)
    assert {t.dtype for t in new.values()} == {torch.float32}
    assert torch.equal(new['backbone.ln1.weight'], source['norm.weight'].float())


def test_totals_and_json(tmp_path):
    target = distinct(student(), seed=2)
    _, report = run(target, vit_state())
    totals = report.totals()
    assert totals['parameters'] == sum(t.numel() for t in target.values())
    assert totals['parameters'] == sum(
        totals[key] for key in ('inherited', 'fresh', 'kept')
    )
    expected = 4 * 16 + 3 * (2 * 16 + 16 * 16 + 16) + 2 * 16 + 5 * 16 + 5
    assert totals['inherited'] == expected
    report.save(tmp_path / 'report.json')
    stored = json.loads((tmp_path / 'report.json').read_text())
    assert stored['totals'] == totals and stored['layers'] == [0, 1, 2]
    assert [entry['target'] for entry in stored['entries']] == list(target)


def test_printed_table_joins_layers():
    _, report = run(distinct(student(), seed=2), vit_state())
    text = str(report)
    row = next(line for line in text.splitlines() if 'out_proj.weight' in line)
    assert row.split() == [
        'backbone.layers.[0-2].mamba.out_proj.weight',
        'block',
        '50',
        '%',
        'blocks.[0-2].attn.proj.weight',
        '[0:16,',
        '0:16]',
        'trunc_normal(std=0.02)',
    ]
    assert 'blocks.[0-2].attn.qkv.weight' in text.splitlines()[-1]
    assert f'{report.totals()["inherited"]:,} of' in text


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(width='diagonal'), r"width='diagonal' must be one of \('whole', 'block'"),
        (dict(interpolation='area'), "interpolation='area' must be one of"),
        (dict(rules={'ln1.*': 'half'}), r"rules\['ln1.\*'\]='half' must be one of"),
        (dict(rules={'ln2.*': 'skip'}), r"rules\['ln2.\*'\] matches no parameter"),
        (dict(fresh=dict(cnov='keep')), r"fresh=\['cnov'\]: vit_to_plainmamba has"),
        (dict(layers=[0, 1]), 'has 2 entries, but the target has 3'),
        (dict(target_grid=(1, 3)), 'do not make the grid 1x3'),
        (
            dict(width='whole'),
            r'layers.0.mamba.out_proj.weight \(16, 32\) and '
            r'blocks.0.attn.proj.weight \(16, 16\): 16 and 32 must agree',
        ),
        (dict(rules={'*': 'skip'}), 'matched nothing'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        run(distinct(student(), seed=2), vit_state(), **options)


def test_models_that_share_nothing():
    other = {'stages.0.weight': torch.ones(2), 'fc.bias': torch.ones(2)}
    message = (
        r"'vit_to_plainmamba' matched nothing. It copies .*'blocks.{i}.norm1.weight' "
        r"to 'layers.{i}.norm.weight'; the source has \['cls_token'\]"
    )
    target = distinct(student(), seed=2)
    with pytest.raises(ValueError, match=message):
        run(target, {'cls_token': torch.ones(1, 1, 16)})
    with pytest.raises(ValueError, match='not read this: .*a plain ViT .*fc.bias'):
        run(target, other)
    with pytest.raises(ValueError, match="the target .'stages.0.weight', 'fc.bias'"):
        run(other, vit_state())


def test_a_map_of_ones_own():
    """A map is a table: nothing but names and axes is needed for another pair."""
    own = WeightMap(
        name='mlp',
        target_layer='fc.{i}.',
        source_layer='dense.{i}.',
        rules=(Rule('fc.{i}.weight', 'dense.{i}.kernel', ('wide', EXACT), scale=2.0),),
        spaces=(Space('wide', (('dense.{i}.kernel', 0),), ('fc.{i}.weight', 0), True),),
        fresh=(Fresh('weights', ('fc.{i}.weight',), dict(type='ones')),),
    )
    kernel = torch.randn(2, 3)
    new, _ = subclone(
        {'fc.0.weight': torch.zeros(4, 3)}, [(own, {'dense.0.kernel': kernel})]
    )
    assert torch.equal(new['fc.0.weight'], torch.cat([2 * kernel, torch.ones(2, 3)]))
    with pytest.raises(ValueError, match=r"names the spaces \['narrow'\]"):
        WeightMap('bad', '', '', (Rule('a', 'b', ('narrow',)),), ())
    with pytest.raises(ValueError, match="method='twist' must be one of"):
        Rule('a', 'b', (EXACT,), method='twist')
