"""Vision-RWKV, versions 4 and 6, from a ViT."""

import pytest
import torch
from subclone_models import distinct, vit, vit_state, with_head

from mmtransmamba.models import VRWKV
from mmtransmamba.transfer.subclone import SubcloneOptions, subclone
from mmtransmamba.transfer.weight_maps import get_weight_map

MAP = get_weight_map('vit_to_vrwkv')
VERSIONS = {'v4': None, 'v6': 2}


def backbone(version='v4', dim=16, depth=3, grid=2, post_norm=False):
    arch = dict(
        embed_dims=dim,
        depth=depth,
        num_heads=VERSIONS[version],
        post_norm=post_norm,
        init_values=1.0 if post_norm else None,
        key_norm=False,
        drop_path_rate=0.0,
    )
    return VRWKV(arch, img_size=8 * grid, patch_size=8)


def target_of(version='v4', dim=16, **kwargs):
    return distinct(with_head(backbone(version, dim, **kwargs), dim), seed=2)


def run(target, source, **options):
    new, report = subclone(target, [(MAP, source)], SubcloneOptions(**options))
    return new, {entry.target: entry for entry in report.entries}, report


@pytest.mark.parametrize('version', VERSIONS)
def test_names_exist(version):
    names = {name.removeprefix('backbone.') for name in target_of(version)}
    layers = MAP.target_layers(names)
    assert layers == [f'layers.{i}.' for i in range(3)]
    templates = [rule.target for rule in MAP.rules]
    templates += [space.target[0] for space in MAP.spaces]
    templates += [name for fresh in MAP.fresh for name in fresh.targets]
    for template in templates:
        assert set(MAP.target_names(template, layers)) <= names
    source = {rule.source.replace('{i}', '0') for rule in MAP.rules}
    assert source <= set(vit_state())
    large = {name for name, _ in backbone(post_norm=True).named_parameters()}
    assert {rule.unless for rule in MAP.rules} == {None, 'layers.{i}.gamma1'}
    assert 'layers.2.gamma1' in large and 'layers.2.gamma1' not in names


@pytest.mark.parametrize('post_norm', [False, True])
@pytest.mark.parametrize('version', VERSIONS)
def test_what_becomes_of_everything(version, post_norm):
    source = vit_state()
    new, entries, report = run(target_of(version, post_norm=post_norm), source)
    copied = {
        'backbone.patch_embed.projection.weight': 'patch_embed.proj.weight',
        'backbone.patch_embed.projection.bias': 'patch_embed.proj.bias',
        'backbone.ln1.weight': 'norm.weight',
        'backbone.ln1.bias': 'norm.bias',
        'head.fc.weight': 'head.weight',
        'head.fc.bias': 'head.bias',
    }
    for i in range(3):
        layer, block = f'backbone.layers.{i}.', f'blocks.{i}.'
        copied[layer + 'att.output.weight'] = block + 'attn.proj.weight'
        copied[layer + 'ffn.key.weight'] = block + 'mlp.fc1.weight'
        copied[layer + 'ffn.value.weight'] = block + 'mlp.fc2.weight'
        for norm in () if post_norm else ('1', '2'):
            for leaf in ('weight', 'bias'):
                copied[f'{layer}ln{norm}.{leaf}'] = f'{block}norm{norm}.{leaf}'
    for name, entry in entries.items():
        if name in copied:
            assert (entry.action, entry.source) == ('copied', copied[name])
            assert torch.equal(new[name], source[entry.source])
        elif name == 'backbone.pos_embed':
            assert entry.detail == '1 extra token(s) dropped'
            assert torch.equal(new[name], source['pos_embed'][:, 1:])
        else:
            assert entry.action == 'kept'
            if name.split('.')[-2] in ('ln1', 'ln2'):
                assert entry.detail == f'not with {name.split(".ln")[0][9:]}.gamma1'
    assert copied.keys() <= entries.keys()
    used = {*copied.values(), 'pos_embed'}
    assert [item.name for item in report.unused] == [n for n in source if n not in used]


def test_the_channel_mix_computes_the_teachers_hidden_layer():
    """For equal tokens, which shifting and mixing do not change."""
    teacher = vit(grid=4).eval()
    source = distinct(teacher, seed=1)
    for name, tensor in source.items():
        if '.mlp.' in name and name.endswith('bias'):
            tensor.zero_()  # Vision-RWKV has none
    teacher.load_state_dict(source)
    new, _, _ = run(target_of(grid=4), source)
    model = backbone(grid=4)
    weights = {name.removeprefix('backbone.'): tensor for name, tensor in new.items()}
    assert not model.load_state_dict(weights, strict=False).missing_keys
    block, own = teacher.blocks[1], model.layers[1]
    # The outermost tokens are shifted in from outside, where there are only zeros.
    tokens = torch.randn(2, 1, 16).expand(-1, 16, -1)
    inner = torch.tensor([5, 6, 9, 10])
    hidden, value = [], []
    own.ffn.key.register_forward_hook(lambda *args: hidden.append(args[2]))
    own.ffn.value.register_forward_hook(lambda *args: value.append(args[1:]))
    with torch.no_grad():
        own.ffn(own.ln2(tokens), (4, 4))
        expected = block.mlp.fc1(block.norm2(tokens))
        torch.testing.assert_close(
            hidden[0][:, inner], expected[:, inner], rtol=1e-4, atol=1e-4
        )
        (inputs,), output = value[0]
        torch.testing.assert_close(output, block.mlp.fc2(inputs), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('width', ['block', 'uniform', 'importance'])
def test_narrower_student(version, width):
    source = vit_state(dim=32)
    new, entries, _ = run(target_of(version, dim=16), source, width=width)
    order = {value: i for i, value in enumerate(source['norm.bias'].tolist())}
    taken = [order[v] for v in new['backbone.ln1.bias'].tolist()]
    layer, block = 'backbone.layers.2.', 'blocks.2.'
    for norm in '12':
        assert torch.equal(
            new[f'{layer}ln{norm}.weight'], source[f'{block}norm{norm}.weight'][taken]
        )
    # The hidden channels are chosen once: rows of key are columns of value.
    rescaled = (32 / 16) ** 0.5 if width == 'importance' else 1
    key = new[layer + 'ffn.key.weight'] / rescaled
    rows = source[block + 'mlp.fc1.weight'][:, taken]
    gaps = (key.unsqueeze(1) - rows.unsqueeze(0)).abs().amax(-1)
    assert gaps.amin(1).max() < 1e-5
    hidden = gaps.argmin(1)
    torch.testing.assert_close(
        new[layer + 'ffn.value.weight'] / rescaled,
        source[block + 'mlp.fc2.weight'][taken][:, hidden],
    )
    with pytest.raises(ValueError, match='32 and 16 must agree'):
        run(target_of(version), source, width='whole')


def test_a_wider_students_rest_is_drawn_from_its_seed():
    target, source = target_of(dim=32), vit_state()
    first, entries, _ = run(target, source, seed=3)
    again, _, _ = run(target, source, seed=3)
    other, _, _ = run(target, source, seed=4)
    name = 'backbone.layers.0.ffn.key.weight'
    assert entries[name].rest == 'trunc_normal(std=0.02)'
    assert torch.equal(first[name][:64, :16], source['blocks.0.mlp.fc1.weight'])
    assert first[name][64:].abs().max() <= 0.04
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first[name], other[name])


def test_matching_nothing():
    with pytest.raises(ValueError, match="'vit_to_vrwkv' does not read this"):
        run(target_of(), target_of())
