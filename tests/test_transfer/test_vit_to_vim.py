"""Vim and VideoMamba from a ViT, and from the mixers of other Mambas."""

import pytest
import torch
import torch.nn.functional as F
from subclone_models import distinct, vit, vit_state, with_head

from mmtransmamba.models import VideoMamba, Vim
from mmtransmamba.transfer.subclone import SubcloneOptions, read_mixers, subclone
from mmtransmamba.transfer.weight_maps import get_weight_map

MIXERS = get_weight_map('mamba_to_vim')
FAMILIES = {
    'vit_to_vim': (Vim, {}),
    'vit_to_videomamba': (VideoMamba, {}),
    'video': (VideoMamba, dict(num_frames=4)),
}


def weight_map(family):
    return get_weight_map('vit_to_videomamba' if family == 'video' else family)


def backbone(family='vit_to_vim', dim=16, depth=3, d_state=4, d_conv=4, grid=2):
    make, kwargs = FAMILIES[family]
    arch = dict(embed_dims=dim, depth=depth, d_state=d_state, d_conv=d_conv)
    return make(arch, img_size=8 * grid, patch_size=8, **kwargs)


def target_of(family='vit_to_vim', dim=16, seed=2, **kwargs):
    return distinct(with_head(backbone(family, dim, **kwargs), dim), seed)


def run(family, target, source, **options):
    source = [(weight_map(family), source)]
    new, report = subclone(target, source, SubcloneOptions(**options))
    return new, {entry.target: entry for entry in report.entries}, report


@pytest.mark.parametrize('family', FAMILIES)
def test_names_exist(family):
    own = weight_map(family)
    names = {name.removeprefix('backbone.') for name in target_of(family)}
    layers = own.target_layers(names)
    assert layers == [f'layers.{i}.' for i in range(3)]
    templates = [rule.target for rule in own.rules]
    templates += [space.target[0] for space in own.spaces]
    templates += [name for fresh in own.fresh for name in fresh.targets]
    for template in templates:
        assert set(own.target_names(template, layers)) <= names
    source = {rule.source.replace('{i}', '0') for rule in own.rules}
    assert source <= set(vit_state())


@pytest.mark.parametrize('family', FAMILIES)
def test_what_becomes_of_everything(family):
    source = vit_state()
    new, entries, report = run(family, target_of(family), source)
    copied = {
        'backbone.cls_token': 'cls_token',
        'backbone.pos_embed': 'pos_embed',
        'backbone.patch_embed.proj.weight': 'patch_embed.proj.weight',
        'backbone.patch_embed.proj.bias': 'patch_embed.proj.bias',
        'backbone.norm_f.weight': 'norm.weight',
        'head.fc.weight': 'head.weight',
        'head.fc.bias': 'head.bias',
    }
    for i in range(3):
        copied[f'backbone.layers.{i}.norm.weight'] = f'blocks.{i}.norm1.weight'
    projections = {
        f'backbone.layers.{i}.mixer.out_proj.weight': f'blocks.{i}.attn.proj.weight'
        for i in range(3)
    }
    for name, entry in entries.items():
        if name in copied:
            assert (entry.action, entry.source) == ('copied', copied[name])
            if name not in ('backbone.pos_embed', 'backbone.patch_embed.proj.weight'):
                assert torch.equal(new[name], source[entry.source])
        elif name in projections:
            assert (entry.action, entry.source) == ('block', projections[name])
            assert torch.equal(new[name][:, :16], source[entry.source])
        elif name == 'backbone.temporal_pos_embedding':
            assert entry.action == 'kept'
        else:
            assert '.mixer.' in name and entry.action == 'fresh'
    assert copied.keys() | projections.keys() <= entries.keys()
    used = set(copied.values()) | set(projections.values())
    assert [item.name for item in report.unused] == [n for n in source if n not in used]


def test_fresh_mixers_begin_as_mambas_in_both_directions():
    new, entries, _ = run('vit_to_vim', target_of(), vit_state(), seed=4)
    mixer = 'backbone.layers.1.mixer.'
    for b in ('', '_b'):
        assert torch.equal(
            new[f'{mixer}A{b}_log'], torch.arange(1.0, 5).log().expand(32, 4)
        )
        assert torch.equal(new[f'{mixer}D{b}'], torch.ones(32))
        dt = F.softplus(new[f'{mixer}dt_proj{b}.bias'])
        assert 1e-3 <= dt.min() and dt.max() <= 0.1
        assert new[f'{mixer}conv1d{b}.weight'].std() == pytest.approx(0.5, rel=0.25)
        assert not new[f'{mixer}conv1d{b}.bias'].any()
    assert not torch.equal(new[mixer + 'x_proj.weight'], new[mixer + 'x_proj_b.weight'])
    again, _, _ = run('vit_to_vim', target_of(), vit_state(), seed=4)
    other, _, _ = run('vit_to_vim', target_of(), vit_state(), seed=5)
    assert all(torch.equal(new[name], again[name]) for name in new)
    name = mixer + 'conv1d_b.weight'
    assert not torch.equal(new[name], other[name])
    assert entries[name].rest == 'normal(std=0.5)'


def load(model, new):
    weights = {name.removeprefix('backbone.'): tensor for name, tensor in new.items()}
    missing, left_over = model.load_state_dict(weights, strict=False)
    assert not missing and {name.split('.')[0] for name in left_over} <= {'head'}
    return model.eval()


@pytest.mark.parametrize('family', FAMILIES)
def test_the_student_sees_the_teachers_tokens(family):
    """The first block has the same inputs, with the class token at its own position."""
    teacher = vit(grid=4).eval()
    source = distinct(teacher, seed=1)
    teacher.load_state_dict(source)
    target = target_of(family, grid=4)
    if family == 'video':  # as it begins
        target['backbone.temporal_pos_embedding'].zero_()
    model = load(backbone(family, grid=4), run(family, target, source)[0])

    image = torch.randn(2, 3, 32, 32)
    frames = 4 if family == 'video' else 1
    clip = image.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    seen = []
    model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        expected = teacher._pos_embed(teacher.patch_embed(image))
        model(clip if family == 'video' else image)
    at = 8 if family == 'vit_to_vim' else 0
    patches = torch.cat((seen[0][:, :at], seen[0][:, at + 1 :]), dim=1)
    torch.testing.assert_close(seen[0][:, at], expected[:, 0])
    torch.testing.assert_close(patches, expected[:, 1:].repeat(1, frames, 1))


def test_norms_and_projections_compute_what_the_teachers_do():
    teacher = vit().eval()
    source = distinct(teacher, seed=1)
    source['blocks.1.norm1.bias'].zero_()
    source['blocks.1.attn.proj.bias'].zero_()
    teacher.load_state_dict(source)
    model = load(backbone(), run('vit_to_vim', target_of(), source)[0])
    x = torch.randn(2, 5, 16)
    centred = x - x.mean(-1, keepdim=True)
    with torch.no_grad():
        expected = teacher.blocks[1].norm1(x)
        torch.testing.assert_close(
            model.layers[1].norm(centred),
            expected,
            rtol=1e-4,
            atol=1e-5 * expected.abs().max().item(),
        )
        inner = torch.cat((x, torch.zeros(2, 5, 16)), dim=-1)
        torch.testing.assert_close(
            model.layers[1].mixer.out_proj(inner), teacher.blocks[1].attn.proj(x)
        )


@pytest.mark.parametrize('width', ['block', 'uniform', 'importance'])
def test_narrower_student_of_another_depth_and_grid(width):
    source = vit_state(dim=32, grid=2)
    new, entries, report = run(
        'vit_to_vim', target_of(dim=16, depth=6, grid=4), source, width=width
    )
    order = {value: i for i, value in enumerate(source['norm.weight'].tolist())}
    taken = [order[v] for v in new['backbone.norm_f.weight'].tolist()]
    assert torch.equal(new['backbone.cls_token'], source['cls_token'][..., taken])
    assert torch.equal(
        new['backbone.pos_embed'][:, 8], source['pos_embed'][:, 0, taken]
    )
    assert entries['backbone.pos_embed'].action == 'interpolated'
    assert report.layers == [0, 1, 2, None, None, None]
    with pytest.raises(ValueError, match='32 and 16 must agree'):
        run('vit_to_vim', target_of(), source, width='whole')


def test_stride_of_its_own_and_patches_of_another_size():
    model = Vim(
        dict(embed_dims=16, depth=3), img_size=24, patch_size=8, stride=4, in_channels=3
    )
    assert model.pos_embed_grid == (5, 5)
    _, entries, _ = run(
        'vit_to_vim', distinct(model, seed=2), vit_state(), target_grid=(5, 5)
    )
    assert entries['pos_embed'].detail == 'class token at 12, 2x2 to 5x5 (bicubic)'
    assert entries['patch_embed.proj.weight'].action == 'copied'
    model = Vim(dict(embed_dims=16, depth=3), img_size=8, patch_size=4)
    _, entries, report = run('vit_to_vim', distinct(model, seed=2), vit_state())
    assert 'shapes differ' in entries['patch_embed.proj.weight'].detail
    assert 'patch_embed.proj.bias' in [item.name for item in report.unused]


def test_matching_nothing():
    with pytest.raises(
        ValueError, match="'vit_to_vim' does not read this.*a plain ViT"
    ):
        run('vit_to_vim', target_of(), distinct(backbone(), seed=1))


# ------------------------------------------------------------------------- mixers


def mixers_of(model, seed=7, keep='mixer.'):
    state = distinct(model, seed)
    return {name: tensor for name, tensor in state.items() if keep in name}


@pytest.mark.parametrize('family', FAMILIES)
def test_a_vims_mixers_are_copied_whole(family):
    source, target = mixers_of(backbone()), distinct(backbone(family), seed=2)
    new, report = subclone(target, [(MIXERS, source)])
    for name, tensor in new.items():
        assert torch.equal(tensor, source[name] if '.mixer.' in name else target[name])
    assert {entry.action for entry in report.entries} == {'copied', 'kept'}
    assert not report.unused


def test_a_mambas_mixers_go_to_both_directions():
    source = {
        name: tensor
        for name, tensor in mixers_of(backbone()).items()
        if '_b' not in name
    }
    assert len(source) == 3 * 9  # what a layer of a Mamba has
    new, report = subclone(distinct(backbone(), seed=2), [(MIXERS, source)])
    entries = {entry.target: entry for entry in report.entries}
    assert not report.unused
    pairs = 0
    for name, tensor in new.items():
        forward = name.replace('_b', '')
        if '.mixer.' in name:
            assert torch.equal(tensor, source[forward])
            assert entries[name].source == forward
            pairs += name != forward
    assert pairs == 3 * 7

    # Both branches now read alike: with the tokens reversed, so is the output.
    model = load(backbone(), new)
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        out = model.layers[0].mixer(x, (5, 1))
        back = model.layers[0].mixer(x.flip(1), (5, 1))
    # The numbers are in the millions: a small one is a difference of large ones.
    atol = 1e-6 * out.abs().max().item()
    torch.testing.assert_close(out.flip(1), back, rtol=1e-4, atol=atol)


def test_a_narrower_mixer_by_parts():
    source = mixers_of(backbone(dim=32, d_state=6))
    new, report = subclone(distinct(backbone(), seed=2), [(MIXERS, source)])
    mixer = 'layers.2.mixer.'
    in_proj = source[mixer + 'in_proj.weight'][:, :16]
    assert torch.equal(
        new[mixer + 'in_proj.weight'], torch.cat((in_proj[:32], in_proj[64:96]))
    )
    # Rows of x_proj: dt (2, of which the target has 1), B (6 of 4), C (6 of 4).
    x_proj = source[mixer + 'x_proj_b.weight'][:, :32]
    assert torch.equal(
        new[mixer + 'x_proj_b.weight'],
        torch.cat((x_proj[:1], x_proj[2:6], x_proj[8:12])),
    )
    other = distinct(backbone(dim=32, d_state=6, d_conv=3), seed=2)
    _, report = subclone(other, [(MIXERS, source)])
    entries = {entry.target: entry for entry in report.entries}
    conv = entries[mixer + 'conv1d_b.weight']
    assert conv.action == 'kept' and 'shapes differ' in conv.detail


@pytest.mark.parametrize('family', ['vit_to_vim', 'vit_to_videomamba'])
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_a_vim_fills_what_the_teacher_leaves(family, prefix, tmp_path):
    mixers = mixers_of(backbone())
    file = tmp_path / 'vim.pth'
    torch.save({'model': {prefix + name: t for name, t in mixers.items()}}, file)
    vit_map, teacher = weight_map(family), vit_state()
    sources = [(vit_map, teacher), read_mixers(vit_map, file)]
    new, report = subclone(target_of(family), sources)
    layer = 'backbone.layers.1.mixer.'
    assert torch.equal(new[layer + 'A_b_log'], mixers['layers.1.mixer.A_b_log'])
    proj = teacher['blocks.1.attn.proj.weight']
    assert torch.equal(new[layer + 'out_proj.weight'][:, :16], proj)
    kept = {entry.action for entry in report.entries if '.mixer.' in entry.target}
    assert kept == {'copied', 'block'}
    assert 'layers.1.mixer.out_proj.weight' in [item.name for item in report.unused]
