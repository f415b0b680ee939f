"""The tables themselves: every name in them exists, and widths stay consistent."""

import pytest
import timm
import torch
from subclone_models import distinct, student, vit_state
from transformers import Dinov2Config, Dinov2Model

from mmtransmamba.models import CheckpointError
from mmtransmamba.models.mixers import PlainMambaMixer
from mmtransmamba.registry import WEIGHT_MAPS
from mmtransmamba.transfer.subclone import (
    SubcloneOptions,
    read_mixers,
    read_source,
    subclone,
)
from mmtransmamba.transfer.weight_maps import get_weight_map

VIT = get_weight_map('vit_to_plainmamba')
MAMBA = get_weight_map('mamba_to_plainmamba')
PLAIN = get_weight_map('plainmamba_to_plainmamba')


def mamba_state(dim=16, depth=3, d_state=4, dt_rank=1, prefix='backbone.', expand=2):
    """A state-spaces Mamba's random weights, by its own names and shapes."""
    inner = expand * dim
    generator = torch.Generator().manual_seed(7)
    shapes = {
        'A_log': (inner, d_state),
        'D': (inner,),
        'in_proj.weight': (2 * inner, dim),
        'conv1d.weight': (inner, 1, 4),
        'conv1d.bias': (inner,),
        'x_proj.weight': (dt_rank + 2 * d_state, inner),
        'dt_proj.weight': (inner, dt_rank),
        'dt_proj.bias': (inner,),
        'out_proj.weight': (dim, inner),
    }
    state = {prefix + 'embedding.weight': torch.zeros(9, dim)}
    for i in range(depth):
        for name, shape in shapes.items():
            values = torch.randn(shape, generator=generator)
            state[f'{prefix}layers.{i}.mixer.{name}'] = values
    return state


def templates(rules, side):
    return {getattr(rule, side).replace('{i}', '0') for rule in rules}


def test_registered_names():
    assert {'vit_to_plainmamba', 'mamba_to_plainmamba', 'plainmamba_to_plainmamba'} <= (
        set(WEIGHT_MAPS.module_dict)
    )
    assert WEIGHT_MAPS.build(dict(type='mmtransmamba.vit_to_plainmamba')) == VIT
    with pytest.raises(ValueError, match="weight_map='vit' must be one of .*'vit_to_p"):
        get_weight_map('vit')


@pytest.mark.parametrize('weight_map', [VIT, MAMBA, PLAIN], ids=lambda m: m.name)
def test_every_target_name_exists_in_the_student(weight_map):
    names = {n.removeprefix('backbone.') for n, _ in student().named_parameters()}
    assert templates(weight_map.rules, 'target') <= names
    fresh = {t.replace('{i}', '0') for f in weight_map.fresh for t in f.targets}
    assert fresh <= names
    assert {s.target[0].replace('{i}', '0') for s in weight_map.spaces} <= names


def test_every_source_name_exists_in_the_source():
    for weight_map, state in (
        (VIT, vit_state()),
        (PLAIN, distinct(student(classes=None), seed=3)),
        (MAMBA, MAMBA.rename(mamba_state())),
    ):
        missing = templates(weight_map.rules, 'source') - set(state)
        # Mamba's projections have no bias.
        assert all(name.endswith('_proj.bias') for name in missing)
        assert bool(missing) == (weight_map is MAMBA)
        for space in weight_map.spaces:
            assert {name.replace('{i}', '0') for name, _ in space.source} <= set(state)


def test_shared_spaces_have_one_size_everywhere():
    """All tensors of a space are as wide as its first one."""
    for weight_map, state in (
        (VIT, vit_state(dim=32)),
        (PLAIN, distinct(student(classes=None), seed=3)),
    ):
        for space in weight_map.spaces:
            sizes = {state[n.replace('{i}', '0')].shape[d] for n, d in space.source}
            assert len(sizes) == 1


def test_mixers_of_a_mamba_by_parts():
    source = MAMBA.rename(mamba_state(dim=16, d_state=6, dt_rank=3))
    target = distinct(student(dim=8, d_state=4, classes=None), seed=2)
    new, report = subclone(target, [(MAMBA, source)])
    give, take = source.__getitem__, new.__getitem__
    mixer, mamba = 'layers.1.mixer.', 'layers.1.mamba.'
    assert torch.equal(take(mamba + 'A_log'), give(mixer + 'A_log')[:16, :4])
    in_proj = give(mixer + 'in_proj.weight')[:, :8]
    assert torch.equal(
        take(mamba + 'in_proj.weight'), torch.cat((in_proj[:16], in_proj[32:48]))
    )
    # Rows of x_proj: dt (3, of which the target has 1), B (6 of 4), C (6 of 4).
    x_proj = give(mixer + 'x_proj.weight')[:, :16]
    assert torch.equal(
        take(mamba + 'x_proj.weight'),
        torch.cat((x_proj[:1], x_proj[3:7], x_proj[9:13])),
    )
    torch.testing.assert_close(
        take(mamba + 'dt_proj.bias'), give(mixer + 'dt_proj.bias')[:16] / 2
    )
    by_name = {entry.target: entry for entry in report.entries}
    assert by_name[mamba + 'dt_proj.bias'].detail.endswith('times 0.5')
    assert by_name[mamba + 'conv2d.weight'].action == 'kept'
    unused = {item.name for item in report.unused}
    assert 'layers.0.mixer.conv1d.weight' in unused and 'embedding.weight' in unused


def dead_channels(space_size, alive, generator):
    """Which ``alive`` of the channels live, in a random place."""
    mask = torch.zeros(space_size, dtype=torch.bool)
    mask[torch.randperm(space_size, generator=generator)[:alive]] = True
    return mask


def test_selection_by_importance_keeps_the_function():
    """A mixer with dead channels equals the narrow one that inherits the others."""
    generator = torch.Generator().manual_seed(0)
    wide = student(dim=16, depth=2, classes=None, expand=2).eval()
    state = distinct(wide, seed=4)
    stream = dead_channels(16, 12, generator)
    for name, tensor in state.items():
        mixer_of = name.split('mamba.')[-1]
        if mixer_of == 'in_proj.weight':
            tensor[:, ~stream] = 0
        if mixer_of in ('out_proj.weight', 'out_proj.bias'):
            tensor[~stream] = 0
    for i in range(2):
        mamba = f'layers.{i}.mamba.'
        inner = dead_channels(32, 24, generator)  # another set in every layer
        state[mamba + 'out_proj.weight'][:, ~inner] = 0
        state[mamba + 'x_proj.weight'][:, ~inner] = 0
        state[mamba + 'dt_proj.weight'][~inner] = 0
        state[mamba + 'A_log'][~inner] = 0

    narrow = student(dim=12, depth=2, classes=None, expand=2).eval()
    target = {name: p.detach() for name, p in narrow.named_parameters()}
    options = SubcloneOptions(width='importance', rescale=False)
    new, _ = subclone(target, [(PLAIN, state)], options)
    for model, weights in ((wide, state), (narrow, new)):
        model.load_state_dict(weights, strict=False)
    x = torch.randn(2, 4, 16, generator=generator)
    with torch.no_grad():
        for big, small in zip(wide.layers, narrow.layers, strict=True):
            assert isinstance(small.mamba, PlainMambaMixer)
            full = big.mamba(x, (2, 2))
            # The two sum the same products in another order.
            torch.testing.assert_close(
                small.mamba(x[..., stream], (2, 2)),
                full[..., stream],
                rtol=1e-4,
                atol=1e-6 * float(full.abs().max()),
            )
            assert not full[..., ~stream].any()


VIT_MAPS = sorted(
    name
    for name, weight_map in WEIGHT_MAPS.module_dict.items()
    if name.startswith('vit_to_') and weight_map.__module__.startswith('mmtransmamba.')
)


@pytest.mark.parametrize('name', VIT_MAPS)
def test_a_vit_with_its_scales_in_the_weights_is_the_same(name):
    """A student has no layer scales, and its branches keep their size."""
    sizes = dict(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    scaled, plain = (
        timm.models.VisionTransformer(**sizes, num_classes=5, init_values=init).eval()
        for init in (0.5, None)
    )
    for block in scaled.blocks:
        for scale in (block.ls1, block.ls2):
            torch.nn.init.normal_(scale.gamma)
    plain.load_state_dict(get_weight_map(name).rename(scaled.state_dict()))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(plain(images), scaled(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', VIT_MAPS)
def test_scales_of_dino_go_into_the_weights(name):
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2
    )
    state = Dinov2Model(config).state_dict()
    state = {name: torch.randn_like(tensor) for name, tensor in state.items()}
    new = get_weight_map(name).rename(state)
    assert not [name for name in new if 'gamma' in name]
    gamma = state['encoder.layer.1.layer_scale2.lambda1']
    for part, factor in (('weight', gamma[:, None]), ('bias', gamma)):
        expected = factor * state[f'encoder.layer.1.mlp.fc2.{part}']
        assert torch.equal(new[f'blocks.1.mlp.fc2.{part}'], expected)


def test_plain_mamba_of_the_same_size_is_copied_whole():
    source = distinct(student(classes=None), seed=3)
    target = distinct(student(classes=None), seed=2)
    new, report = subclone(target, [(PLAIN, source)])
    for name, tensor in new.items():
        assert torch.equal(tensor, source[name] if '.mamba.' in name else target[name])
    assert {entry.action for entry in report.entries} == {'copied', 'kept'}


def test_a_mamba_fills_what_the_teacher_leaves():
    vit, mamba = vit_state(), MAMBA.rename(mamba_state(depth=2))
    target = distinct(student(), seed=2)
    new, report = subclone(target, [(VIT, vit), (MAMBA, mamba)])
    layer = 'backbone.layers.1.mamba.'
    assert torch.equal(
        new[layer + 'out_proj.weight'][:, :16], vit['blocks.1.attn.proj.weight']
    )
    assert torch.equal(new[layer + 'A_log'], mamba['layers.1.mixer.A_log'])
    assert report.weight_map == 'vit_to_plainmamba + mamba_to_plainmamba'
    by_name = {entry.target: entry for entry in report.entries}
    last = by_name['backbone.layers.2.mamba.A_log']  # the Mamba has two layers
    assert (last.action, last.detail) == ('fresh', 'the source has no such layer')
    unused = [item.name for item in report.unused]
    assert 'layers.1.mixer.out_proj.weight' in unused
    assert 'layers.1.mixer.A_log' not in unused


def test_a_list_of_layers_is_the_teachers():
    vit, mamba = vit_state(depth=8), MAMBA.rename(mamba_state(depth=3))
    target = distinct(student(), seed=2)
    new, _ = subclone(
        target, [(VIT, vit), (MAMBA, mamba)], SubcloneOptions(layers=[7, 5, 6])
    )
    assert torch.equal(new['backbone.layers.0.norm.bias'], vit['blocks.7.norm1.bias'])
    assert torch.equal(new['backbone.layers.2.mamba.D'], mamba['layers.2.mixer.D'])


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_reading_mixers_finds_the_map_that_fits(tmp_path, prefix):
    file = tmp_path / 'mamba.pth'
    torch.save({'model': mamba_state(prefix=prefix)}, file)
    assert read_mixers(VIT, file)[0] == MAMBA
    plain = distinct(student(classes=None), seed=3)
    torch.save({prefix + name: t for name, t in plain.items()}, file)
    weight_map, state = read_mixers(VIT, file)
    assert weight_map == PLAIN and state.keys() == plain.keys()
    torch.save(vit_state(), file)
    with pytest.raises(
        CheckpointError, match="mamba.pth' holds no mixers that 'vit_to"
    ):
        read_mixers(VIT, file)


def test_reading_a_teacher_of_any_library(tmp_path):
    from tiny_teachers import MM_VIT

    from mmtransmamba.models.teachers import MMPretrainTeacher

    teacher = MMPretrainTeacher(MM_VIT, 'random')
    file = tmp_path / 'deit.pth'
    torch.save({'state_dict': teacher.model.state_dict()}, file)
    weight_map, state = read_source(VIT, file)
    assert weight_map is VIT
    expected = teacher.canonical_state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)

    torch.save(mamba_state(), file)
    with pytest.raises(CheckpointError, match="deit.pth does not suit .*'vit_to_plain"):
        read_source(VIT, file)
