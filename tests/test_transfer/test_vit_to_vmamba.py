"""VMamba, whose stages have widths of their own, from a ViT."""

import pytest
import torch
from subclone_models import distinct, vit, vit_state, with_head

from mmtransmamba.models import VMamba
from mmtransmamba.transfer.subclone import SubcloneOptions, subclone
from mmtransmamba.transfer.weight_maps import get_weight_map

MAP = get_weight_map('vit_to_vmamba')
STAGES = ((0, 0), (1, 0), (1, 1), (2, 0))  # stage and block of every layer


def backbone(version='v05_noz', dim=8):
    """Three stages, with widths of ``dim``, twice and four times that."""
    return VMamba(
        dict(
            embed_dims=dim,
            depths=(1, 2, 1),
            drop_path_rate=0.0,
            version=version,
            ssm_ratio=2.0 if version == 'v0' else 1.0,
            d_state=4 if version == 'v0' else 1,
        )
    )


def target_of(version='v05_noz', dim=8, seed=2):
    return distinct(with_head(backbone(version, dim), 4 * dim), seed)


def run(target, source, **options):
    new, report = subclone(target, [(MAP, source)], SubcloneOptions(**options))
    return new, {entry.target: entry for entry in report.entries}, report


def test_names_exist():
    versions = [
        {name.removeprefix('backbone.') for name in target_of(version)}
        for version in ('v0', 'v05_noz')
    ]
    layers = [f'layers.{stage}.blocks.{block}.' for stage, block in STAGES]
    assert [MAP.target_layers(names) for names in versions] == [layers] * 2
    templates = [rule.target for rule in MAP.rules]
    templates += [space.target[0] for space in MAP.spaces]
    templates += [name for fresh in MAP.fresh for name in fresh.targets]
    for template in templates:
        assert set(MAP.target_names(template, layers)) <= versions[0] | versions[1]
    source = {rule.source.replace('{i}', '0') for rule in MAP.rules}
    assert source <= set(vit_state())


@pytest.mark.parametrize('version', ['v0', 'v05_noz'])
def test_what_becomes_of_everything(version):
    """The second stage is as wide as the teacher, the first half, the third twice."""
    source = vit_state(dim=16, depth=4)
    new, entries, report = run(target_of(version), source)
    pairs = {'norm': 'norm1', 'op.out_proj': 'attn.proj'}
    if version == 'v05_noz':
        pairs |= {'norm2': 'norm2', 'mlp.fc1': 'mlp.fc1', 'mlp.fc2': 'mlp.fc2'}
    used = {'norm.weight', 'norm.bias'}
    for i, (stage, block) in enumerate(STAGES):
        layer = f'backbone.layers.{stage}.blocks.{block}.'
        for own, other in pairs.items():
            for leaf in ('weight', 'bias'):
                name, taken = f'{layer}{own}.{leaf}', f'blocks.{i}.{other}.{leaf}'
                if name not in new:  # out_proj has no bias
                    assert own == 'op.out_proj' and leaf == 'bias'
                    continue
                used.add(taken)
                entry = entries.pop(name)
                assert entry.source == taken
                full = stage == 1 and (own, version) != ('op.out_proj', 'v0')
                assert entry.action == ('copied' if full else 'block')
                both = tuple(
                    slice(min(sizes))
                    for sizes in zip(entry.shape, entry.source_shape, strict=True)
                )
                assert torch.equal(new[name][both], source[taken][both])
    fresh = ('A_logs', 'Ds', 'dt_projs', 'in_proj', 'conv2d')
    # Final norm and head are of the last stage, twice as wide as the teacher.
    ends = ('backbone.classifier.norm.weight', 'backbone.classifier.norm.bias')
    for name, entry in entries.items():
        if name in (*ends, 'head.fc.weight'):
            assert (entry.action, entry.inherited) == ('block', entry.size // 2)
        elif name == 'head.fc.bias':
            assert entry.action == 'copied'
        elif any(part in name for part in fresh):
            assert entry.action == 'fresh'
        else:
            assert entry.action == 'kept'
            assert any(
                part in name
                for part in ('patch_embed', 'downsample', 'out_norm', 'x_proj')
            )
    unused = {item.name for item in report.unused}
    assert unused == set(source) - used - {'head.weight', 'head.bias'}


def test_fresh_mixers_begin_as_mambas():
    new, entries, _ = run(target_of('v0'), vit_state(depth=4), seed=4)
    op = 'backbone.layers.1.blocks.1.op.'
    assert torch.equal(new[op + 'A_logs'], torch.arange(1.0, 5).log().expand(128, 4))
    assert torch.equal(new[op + 'Ds'], torch.ones(128))
    assert entries[op + 'conv2d.weight'].rest == 'normal(std=0.3333)'
    dt = torch.nn.functional.softplus(new[op + 'dt_projs_bias'])
    assert dt.shape == (4, 32) and 1e-3 <= dt.min() and dt.max() <= 0.1
    assert new[op + 'dt_projs_weight'].abs().max() <= 1  # 1 / sqrt(rank)
    again, _, _ = run(target_of('v0'), vit_state(depth=4), seed=4)
    other, _, _ = run(target_of('v0'), vit_state(depth=4), seed=5)
    assert all(torch.equal(new[name], again[name]) for name in new)
    assert not torch.equal(new[op + 'conv2d.weight'], other[op + 'conv2d.weight'])


def load(model, new):
    weights = {name.removeprefix('backbone.'): tensor for name, tensor in new.items()}
    assert not model.load_state_dict(weights, strict=False).missing_keys
    return model.eval()


def teacher_and_student(alive=None, **options):
    """A ViT of which only the channels ``alive`` work, and what inherits it."""
    teacher = vit(dim=32, depth=4).eval()
    source = distinct(teacher, seed=1)
    for name, tensor in source.items():
        if alive is not None and tensor.ndim and name.startswith('blocks.'):
            if name.endswith(('norm2.weight', 'norm2.bias', 'fc2.weight', 'fc2.bias')):
                tensor[~alive] = 0
            if name.endswith('fc1.weight'):
                tensor[:, ~alive] = 0
    teacher.load_state_dict(source)
    model = backbone(dim=16 if alive is None else 8)
    new, _, _ = run(distinct(model, seed=2), source, **options)
    return teacher, load(model, new)


def test_the_feed_forward_layers_compute_what_the_teachers_do():
    teacher, model = teacher_and_student()
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    for i, block in ((1, 0), (2, 1)):  # the second stage is 32 wide
        own, other = model.layers[1].blocks[block], teacher.blocks[i]
        with torch.no_grad():
            torch.testing.assert_close(
                own.norm(x), other.norm1(x), rtol=1e-4, atol=1e-5
            )
            torch.testing.assert_close(
                own.mlp(own.norm2(x)), other.mlp(other.norm2(x)), rtol=1e-4, atol=1e-3
            )


def test_a_narrow_stage_takes_the_channels_that_work():
    """The hidden layer is halved too; it is made to hold its strongest half only."""
    generator = torch.Generator().manual_seed(3)
    alive = torch.zeros(32, dtype=torch.bool)
    alive[torch.randperm(32, generator=generator)[:8]] = True
    teacher, model = teacher_and_student(alive, width='importance', rescale=False)
    x = torch.randn(2, 5, 32)
    own = model.layers[0].blocks[0]
    with torch.no_grad():
        hidden = teacher.blocks[0].mlp.fc1(x)
        mine = own.mlp.fc1(x[..., alive])
    # Every hidden channel of the student is one of the teacher's.
    gaps = (mine.unsqueeze(3) - hidden.unsqueeze(2)).abs().amax((0, 1))
    assert gaps.min(1).values.max() < 1e-5
    assert len(set(gaps.argmin(1).tolist())) == 32


def test_whole_takes_the_stages_of_the_teachers_width():
    new, entries, _ = run(target_of(), vit_state(dim=16, depth=4), width='whole')
    actions = {
        (stage, block): entries[f'backbone.layers.{stage}.blocks.{block}.norm.weight']
        for stage, block in STAGES
    }
    assert [entry.action for entry in actions.values()] == [
        *('kept', 'copied', 'copied', 'kept')
    ]
    assert actions[2, 0].detail == 'shapes differ from blocks.3.norm1.weight (16,)'
    with pytest.raises(ValueError, match="'vit_to_vmamba' matched nothing"):
        run(target_of(dim=5), vit_state(dim=16, depth=4, classes=7), width='whole')


@pytest.mark.parametrize(
    ('layers', 'expected'),
    [
        ('first_n', [0, 1, 2, 3]),
        ('last_n', [8, 9, 10, 11]),
        ('uniform', [0, 4, 7, 11]),
        ([3, 2, 2, 0], [3, 2, 2, 0]),
    ],
)
def test_layers_count_through_the_stages(layers, expected):
    source = vit_state(depth=12)
    _, entries, report = run(target_of(), source, layers=layers)
    assert report.layers == expected
    for (stage, block), j in zip(STAGES, expected, strict=True):
        entry = entries[f'backbone.layers.{stage}.blocks.{block}.norm.weight']
        assert entry.source == f'blocks.{j}.norm1.weight'


def test_printed_table_joins_the_blocks_of_a_stage():
    _, _, report = run(target_of(), vit_state(depth=4))
    rows = [line.split() for line in str(report).splitlines()]
    row = ['backbone.layers.1.blocks.[0,1].norm.bias', 'copied', '100', '%']
    assert [*row, 'blocks.[1,2].norm1.bias'] in rows


def test_a_patch_embedding_of_the_same_size():
    source = vit_state(dim=8)
    source['patch_embed.proj.weight'] = torch.randn(8, 3, 4, 4)
    new, entries, _ = run(target_of('v0'), source)
    name = 'backbone.patch_embed.0.'
    assert torch.equal(new[name + 'weight'], source['patch_embed.proj.weight'])
    assert torch.equal(new[name + 'bias'], source['patch_embed.proj.bias'])
    _, entries, _ = run(target_of('v0'), vit_state(dim=8))
    assert 'shapes differ' in entries[name + 'weight'].detail


def test_matching_nothing():
    with pytest.raises(ValueError, match="'vit_to_vmamba' matched nothing"):
        run(vit_state(), vit_state())
