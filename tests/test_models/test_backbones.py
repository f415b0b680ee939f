"""What every vision backbone does: one row of a table for each, and one for a plug-in.

What is peculiar to a family is tested in the family's own file.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden import Golden
from torch import Tensor, nn

from mmtransmamba.models import (
    VRWKV,
    CheckpointError,
    PlainMamba,
    VideoMamba,
    Vim,
    VMamba,
    load_pretrained,
)
from mmtransmamba.models.taps import DirectionTap, LayerTap
from mmtransmamba.ops.backends import use_backend
from mmtransmamba.registry import MODELS
from projects.example_backbone.vision_gla import VisionGLA

SIZES = ((32, 32), (40, 64), (8, 8), (35, 50))


@dataclass(frozen=True)
class Row:
    """A tiny backbone and what is expected of it.

    Args:
        cls: Class of the backbone.
        settings: Arguments of the tiny model; it gives maps of its images.
        norm: Name of the norm of the last map.
        spared: Last parts of the names of parameters without weight decay.
        directions: Scan directions of each mixer.
        depths: Depth of layers by name, of the total that a classifier has.
        total: Depth of a classifier's head, plus one.
        head: Prefix of the head in released files; ``head.fc.`` is mmpretrain's.
        dims: Width of each block.
        drop: Settings in which the last two blocks follow each other directly.
        sizes: Sizes of images, which are resampled or padded to patches.
        side: Side of the images for comparing dtypes.
        half: Tolerance in bfloat16.
        noise: How far parameters are moved from where their effect is zero.
    """

    cls: type[nn.Module]
    settings: dict[str, Any]
    norm: str
    spared: set[str]
    directions: int
    depths: dict[str, int]
    total: int = 4
    head: str = 'head.fc.'
    dims: tuple[int, ...] = (32, 32)
    drop: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = SIZES
    side: int = 32
    half: float = 0.1
    noise: float = 0.0

    def build(self, noise: float = 0.0, **settings) -> nn.Module:
        torch.manual_seed(0)
        model = self.cls(**self.settings | settings)
        model.init_weights()
        with torch.no_grad():
            for p in model.parameters() if noise else ():
                p.add_(noise * torch.randn_like(p))
        return model

    @property
    def pooled(self) -> dict[str, Any]:
        """Settings under which a head reads the output."""
        return {'out_type': 'cls_token'} if 'out_type' in self.settings else {}

    def grid(self, height: int, width: int) -> tuple[int, int]:
        if 'img_size' in self.settings:
            return height // 8, width // 8
        # Neither odd maps nor, in v05_noz, odd images lose their last row.
        padded = self.settings['arch']['version'] == 'v05_noz'
        rows, columns = (-(-n // 4) if padded else n // 4 for n in (height, width))
        return -(-rows // 8), -(-columns // 8)


def of_patches(cls: type, arch: dict, **row) -> Row:
    return Row(cls, dict(arch=arch, img_size=32, patch_size=8), **row)


def bidirectional(cls: type) -> Row:
    settings = dict(arch=dict(embed_dims=32, depth=2), img_size=32, patch_size=8)
    return Row(
        cls,
        settings | dict(out_type='featmap'),
        norm='norm_f',
        spared={'pos_embed', 'cls_token', 'A_log', 'A_b_log', 'D', 'D_b'},
        directions=2,
        depths={
            'pos_embed': 0,
            'cls_token': 0,
            'patch_embed.proj.bias': 0,
            'layers.1.mixer.D_b': 2,
            'norm_f.weight': 3,
        },
        head='head.',
    )


def vmamba(version: str, ssm_ratio: float, d_state: int, norm: str) -> Row:
    sizes = dict(embed_dims=16, depths=(1, 2, 1, 1), drop_path_rate=0.0)
    arch = dict(sizes, version=version, ssm_ratio=ssm_ratio, d_state=d_state)
    return Row(
        VMamba,
        dict(arch=arch),
        norm='classifier.norm',
        spared={'A_logs', 'Ds'},
        directions=4,
        depths={
            'patch_embed.0.weight': 0,
            'layers.0.blocks.0.norm.weight': 1,
            f'layers.0.downsample.{norm}.weight': 1,
            'layers.1.blocks.0.op.A_logs': 2,
            'layers.1.blocks.1.op.Ds': 3,
            f'layers.1.downsample.{norm}.bias': 3,
            'layers.3.blocks.0.op.in_proj.weight': 5,
            'classifier.norm.weight': 6,
        },
        total=7,
        head='classifier.head.',
        dims=(16, 32, 32, 64, 128),
        drop=dict(arch=arch | dict(depths=(1, 2))),
        sizes=((32, 32), (40, 64), (4, 4), (37, 51)),
        side=64,
        half=0.15,
    )


def vrwkv(**arch) -> Row:
    plain = dict(post_norm=False, init_values=None, key_norm=False, drop_path_rate=0.0)
    sizes = dict(embed_dims=32, depth=2, num_heads=None)
    later = 'num_heads' in arch
    spared = {'pos_embed', *(f'spatial_mix_{x}' for x in 'kr')}
    if later:
        spared |= {'time_decay', 'time_faaaa', *(f'time_maa_{x}' for x in 'xrkvwg')}
    else:
        spared |= {'spatial_decay', 'spatial_first', 'spatial_mix_v'}
    if 'init_values' in arch:
        spared |= {'gamma1', 'gamma2'}
    return of_patches(
        VRWKV,
        sizes | plain | arch,
        norm='ln1',
        spared=spared,
        directions=2,
        depths={
            'pos_embed': 0,
            'patch_embed.projection.bias': 0,
            'layers.0.ln0.weight': 1,
            f'layers.1.att.{"time" if later else "spatial"}_decay': 2,
            'ln1.weight': 3,
        },
        half=0.15,
        noise=0.2,
    )


PLAIN = dict(
    embed_dims=32, depth=2, num_convs=1, dwconv_layers=(0,), drop_path_rate=0.0
)
ROWS = {
    'plain_mamba': of_patches(
        PlainMamba,
        PLAIN,
        norm='ln1',
        spared={'pos_embed', 'A_log', 'D', 'direction_Bs'},
        directions=4,
        depths={'layers.1.norm.weight': 2, 'pos_embed': 0, 'ln1.bias': 3},
        drop=dict(arch=PLAIN | dict(dwconv_layers=())),
    ),
    'vim': bidirectional(Vim),
    'video_mamba': bidirectional(VideoMamba),
    'vmamba_v0': vmamba('v0', 2.0, 4, 'norm'),
    'vmamba_v05_noz': vmamba('v05_noz', 1.0, 1, '3'),
    'vrwkv_v4': vrwkv(),
    'vrwkv_v4_large': vrwkv(post_norm=True, init_values=0.5, key_norm=True),
    'vrwkv_v6': vrwkv(num_heads=2),
    'vrwkv_v6_small': vrwkv(num_heads=2, post_norm=True, init_values=0.5),
    'plug_in': Row(
        VisionGLA,
        dict(embed_dims=32, depth=2, num_heads=2, img_size=32, patch_size=8),
        norm='norm',
        spared={'pos_embed'},
        directions=2,
        depths={'layers.1.mixer.qkv.weight': 2, 'pos_embed': 0, 'norm.bias': 3},
    ),
}
# One row of each class.
CLASSES = {row.cls: name for name, row in reversed(ROWS.items())}
WITH_ARCHS = {cls: name for cls, name in CLASSES.items() if cls.ARCHS}

each = pytest.mark.parametrize('row', ROWS.values(), ids=ROWS)
every_arch = pytest.mark.parametrize(
    'row, arch',
    [
        pytest.param(ROWS[name], arch, id=f'{cls.__name__}-{arch}')
        for cls, name in WITH_ARCHS.items()
        for arch in cls.ARCHS
    ],
)


def mean(out: Tensor) -> Tensor:
    """The input of a head: the class token as it is, the mean of a map."""
    return out.mean((2, 3)) if out.ndim == 4 else out


def record(model: nn.Module) -> list:
    """The features that the layer taps give from now on."""
    seen = []
    for tap in model.layer_taps:
        tap.listener = seen.append
    return seen


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters()}


def classifier(row: Row, **settings) -> nn.Module:
    import mmpretrain.models  # noqa: F401

    backbone = row.settings | row.pooled | settings
    pooling = {} if row.pooled else dict(neck=dict(type='GlobalAveragePooling'))
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type=f'mmtransmamba.{row.cls.__name__}', **backbone),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=row.dims[-1]),
            _scope_='mmpretrain',
            **pooling,
        )
    )


def released(row: Row, container: str | None = None, prefix: str = ''):
    """A checkpoint as released, with a head of five classes; its model and head."""
    model = row.build(row.noise, **row.pooled).eval()
    head = nn.Linear(row.dims[-1], 5)
    before = prefix.removesuffix('backbone.') if row.head == 'head.fc.' else prefix
    state = {prefix + key: value for key, value in model.state_dict().items()}
    state |= {before + row.head + key: v for key, v in head.state_dict().items()}
    return model, head, {container: state} if container else state


def save(row: Row, folder) -> tuple[nn.Module, nn.Module, str]:
    """Model, head and path of a classifier's file."""
    prefix = 'backbone.' if row.head == 'head.fc.' else ''
    model, head, content = released(row, 'state_dict', prefix)
    torch.save(content, folder / 'released.pth')
    return model, head, str(folder / 'released.pth')


# ------------------------------------------------------------- the official numbers

GOLDENS = [
    *((f'plainmamba_l1{size}', PlainMamba, 'L1', {}) for size in ('', '_192x256')),
    *((f'vim_tiny{size}', Vim, 'tiny', {}) for size in ('', '_192x256')),
    *(
        (f'videomamba_tiny_{name}', VideoMamba, 'tiny', {})
        for name in ('image', 'image_192x256', 'video8')
    ),
    *(
        (f'vmamba_{arch}{size}', VMamba, arch, {})
        for arch in ('vanilla_tiny', 'tiny_s1l8')
        for size in ('', '_192x256', '_200x232')
    ),
    *(
        (f'vrwkv_tiny{size}', VRWKV, 'tiny', dict(wkv_rule=rule))
        for size in ('', '_192x256')
        for rule in ('formula', 'cuda')
    ),
    *((f'vrwkv6_tiny{size}', VRWKV, 'v6-tiny', {}) for size in ('', '_192x256')),
]


@pytest.mark.parametrize('name, cls, arch, settings', GOLDENS)
def test_equals_official_code(name, cls, arch, settings):
    golden = Golden(name)
    facts, arrays = golden.info['facts'], golden.arrays
    known = ('num_frames',) if cls is VMamba else ('num_frames', 'img_size')
    model = cls(arch, **settings, **{k: facts[k] for k in known if k in facts}).eval()
    state = golden.state_dict()
    report = load_pretrained(model, state)
    row = ROWS[CLASSES[cls]]
    head = [f'{row.head}{key}' for key in ('weight', 'bias')]
    assert report.left_over == (head if 'logits' in arrays else [])
    assert not (report.missing or report.converted)
    if 'param_count' in golden.info:
        total = sum(p.numel() for p in model.parameters())
        total += sum(state[key].numel() for key in report.left_over)
        assert total == golden.info['param_count']

    blocks, mixers = {}, {}
    for i, tap in enumerate(model.layer_taps):
        # The tap's output has the class token, which its listener is not given.
        tap.register_forward_hook(lambda m, a, out, i=i: blocks.update({i: out}))
        if f'mixer_{i}' in arrays:
            model.layers[i].mixer.register_forward_hook(
                lambda m, a, out, i=i: mixers.update({i: out})
            )
    with torch.no_grad():
        out = model(golden.images())
    out = out if isinstance(out, Tensor) else out[0]

    # The two rules of v4 lie 6e-6 apart: a looser tolerance would not tell them.
    strict = 'wkv_rule' in settings
    feature, layer = (1.5e-6, 1.5e-6) if strict else (3e-5, 1e-4)
    prefix = 'kernel_' if settings.get('wkv_rule') == 'cuda' else ''
    if 'logits' in arrays:
        logits = F.linear(mean(out), *(state[key] for key in head))
        assert golden.error('logits', logits) < feature
    else:
        tokens = out.flatten(2).mT
        rows = tokens[:, golden.info['feat_rows']]
        assert golden.error(f'{prefix}feat', tokens.mean(1)) < feature
        assert golden.error(f'{prefix}feat_rows', rows) < feature
    for key, stored in golden.info['layers'].items():
        i = int(key.split('_')[1])
        rows = blocks[i][:, stored['rows']]
        assert golden.error(f'{prefix}layer_{i}', blocks[i].mean(1)) < layer
        assert golden.error(f'{prefix}rows_{i}', rows) < layer
        assert stored.get('tokens', blocks[i].shape[1]) == blocks[i].shape[1]
        if i in mixers:
            assert golden.error(f'mixer_{i}', mixers[i].mean(1)) < layer
    assert set(mixers) == {int(k[6:]) for k in arrays if k.startswith('mixer_')}


@pytest.mark.parametrize(
    'cls, arch, classes, params, settings',
    [
        (PlainMamba, 'L1', 0, 7_358_656, {}),
        (PlainMamba, 'L2', 0, 25_760_832, {}),
        (PlainMamba, 'L3', 0, 50_507_456, {}),
        (PlainMamba, 'T', 0, 4_150_848, {}),
        (PlainMamba, 'S', 0, 13_746_816, {}),
        (PlainMamba, 'B', 0, 49_527_552, {}),
        (Vim, 'tiny', 1000, 7_148_008, {}),
        (Vim, 'small', 1000, 25_796_584, {}),
        (Vim, 'base', 1000, 97_598_440, {}),
        (VideoMamba, 'tiny', 1000, 7_148_008, {}),
        (VideoMamba, 'small', 1000, 25_796_584, {}),
        (VideoMamba, 'middle', 1000, 74_217_448, {}),
        (VideoMamba, 'base', 1000, 97_598_440, {}),
        (VideoMamba, 'tiny', 400, 7_033_744, dict(num_frames=8)),
        (VideoMamba, 'small', 400, 25_568_656, dict(num_frames=8)),
        (VideoMamba, 'middle', 400, 73_875_856, dict(num_frames=8)),
        (VMamba, 'vanilla_tiny', 1000, 22_893_448, {}),
        (VMamba, 'vanilla_small', 1000, 44_417_416, {}),
        (VMamba, 'vanilla_base', 1000, 76_254_056, {}),
        (VMamba, 'tiny_s2l5', 1000, 30_705_832, {}),
        (VMamba, 'small_s2l15', 1000, 50_147_752, {}),
        (VMamba, 'base_s2l15', 1000, 88_557_800, {}),
        (VMamba, 'tiny_s1l8', 1000, 30_249_064, {}),
        (VMamba, 'small_s1l20', 1000, 49_012_840, {}),
        (VMamba, 'base_s1l20', 1000, 86_614_504, {}),
        # Published in millions with two decimals.
        (VRWKV, 'tiny', 1000, 6.16, {}),
        (VRWKV, 'small', 1000, 23.82, {}),
        (VRWKV, 'base', 1000, 93.65, {}),
        (VRWKV, 'v6-tiny', 1000, 7.64, {}),
        (VRWKV, 'v6-small', 1000, 27.68, {}),
        (VRWKV, 'v6-base', 1000, 104.90, {}),
    ],
)
def test_parameter_counts(cls, arch, classes, params, settings):
    with torch.device('meta'):
        model = cls(arch, **settings)
    width = model.layer_taps[-1].dim
    total = sum(p.numel() for p in model.parameters()) + classes * (width + 1)
    assert (round(total / 1e6, 2) if isinstance(params, float) else total) == params


# ------------------------------------------------------------------ every architecture


def shallow(row: Row, arch: str) -> dict[str, Any]:
    """A registered architecture's widths and options with few blocks."""
    settings = row.cls.ARCHS[arch]
    short = dict(depths=(1, 1, 1, 1)) if 'depths' in settings else dict(depth=2)
    return {**settings, **short}


@every_arch
def test_every_architecture_runs_forward_and_backward(row, arch):
    """In its own settings: patches, drop path and output type too."""
    settings = shallow(row, arch)
    images = {'img_size': 32} if 'img_size' in row.settings else {}
    model = row.cls(settings, **images)
    model.init_weights()
    (out,) = model(torch.randn(2, 3, 48, 32))
    width = settings['embed_dims'] * 2 ** (len(settings.get('depths', '.')) - 1)
    grid = () if row.pooled else (3, 2) if images else (2, 1)
    assert out.shape == (2, width, *grid)
    (out**3).mean().backward()
    without = [name for name, grad in gradients(model).items() if grad is None]
    assert not without
    assert all(grad.isfinite().all() for grad in gradients(model).values())


@every_arch
def test_every_architecture_on_both_kernels(row, arch):
    settings, size = shallow(row, arch), (24, 16)
    images, outs, grads = torch.randn(1, 3, *size), [], []
    for backend in ('reference', 'native'):
        model = row.build(row.noise, arch=settings, drop_path_rate=0.0)
        with use_backend(backend):
            (out,) = model(images)
            torch.manual_seed(1)
            (out * torch.randn_like(out)).sum().backward()
        outs.append(out)
        grads.append(gradients(model))
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)
    for name, grad in grads[0].items():
        error = (grads[1][name] - grad).abs().max()
        assert error <= 1e-4 * grad.abs().max(), name


# ------------------------------------------------------------------------ the outputs


@pytest.mark.parametrize(
    'row, size',
    [
        pytest.param(row, size, id=f'{name}-{size[0]}x{size[1]}')
        for name, row in ROWS.items()
        for size in row.sizes
    ],
)
def test_any_image_size(row, size):
    out = row.build().eval()(torch.randn(1, 3, *size))[0]
    assert out.shape == (1, row.dims[-1], *row.grid(*size))
    assert out.isfinite().all()


@each
def test_maps_are_the_blocks_tokens_and_the_last_is_normalised(row):
    model = row.build(out_indices=(0, -1)).eval()
    seen = record(model)
    first, last = model(torch.randn(1, 3, 32, 40))
    torch.testing.assert_close(first.flatten(2).mT, seen[0].tokens)
    norm = model.get_submodule(row.norm)
    torch.testing.assert_close(last.flatten(2).mT, norm(seen[-1].tokens))
    assert seen[0].grid == first.shape[2:] and seen[-1].grid == last.shape[2:]


@each
def test_closed_taps_hear_nothing(row):
    model = row.build()
    assert [m.dim for m in model.modules() if isinstance(m, LayerTap)] == [*row.dims]
    taps = [m for m in model.modules() if isinstance(m, DirectionTap)]
    assert [tap.num_directions for tap in taps] == [row.directions] * len(row.dims)
    order = torch.zeros(row.directions, 1, dtype=torch.long)
    assert all(tap.steps(order) is None for tap in taps)


# ---------------------------------------------------------------------------- training


@each
def test_activation_checkpointing_has_the_same_gradient(row):
    images, grads = torch.randn(2, 3, 32, 32), []
    for with_cp in (False, True):
        model = row.build(with_cp=with_cp)
        (model(images)[0] ** 3).sum().backward()
        grads.append(gradients(model))
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


@each
def test_drop_path_skips_blocks_in_training_only(row):
    model = row.build(**row.drop, drop_path_rate=1.0)  # the last block always dropped
    images, seen = torch.randn(2, 3, 32, 32), record(model)
    model.train()(images)
    assert torch.equal(seen[-2].tokens, seen[-1].tokens)
    model.eval()(images)
    assert not torch.equal(seen[-2].tokens, seen[-1].tokens)


@each
def test_autocast_step_is_finite_and_keeps_the_stream_in_float32(row):
    model = row.build()
    images = torch.randn(2, 3, row.side, row.side)
    exact, seen = model(images)[0], record(model)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        (out,) = model(images)
        loss = (out.float() ** 3).mean()
    loss.backward()
    assert {feature.tokens.dtype for feature in seen} == {torch.float32}
    assert all(grad.isfinite().all() for grad in gradients(model).values())
    torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.1)


@each
def test_half_and_double_models(row):
    images = torch.randn(1, 3, row.side, row.side)
    exact = row.build().double()(images.double())[0]
    assert exact.dtype == torch.float64
    half = row.build().bfloat16()(images.bfloat16())[0]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), exact, rtol=row.half, atol=row.half)
    single = row.build()(images)[0]
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-5)


@each
def test_weight_decay_spares_what_the_family_says(row):
    model = row.build()
    names = [name for name, _ in model.named_parameters()]
    spared = {name for name in names if name.rsplit('.', 1)[-1] in row.spared}
    assert model.no_weight_decay() == spared
    assert {name.rsplit('.', 1)[-1] for name in spared} == row.spared


@each
def test_layer_depth_in_a_classifier(row):
    model = classifier(row)
    for name, depth in row.depths.items():
        model.get_parameter(f'backbone.{name}')
        assert model.get_layer_depth(f'backbone.{name}') == (depth, row.total), name
    assert model.get_layer_depth('head.fc.weight') == (row.total - 1, row.total)


# ------------------------------------------------------------------------- checkpoints


@each
@pytest.mark.parametrize(
    'container, prefix',
    [
        ('model', ''),
        ('model_ema', 'module.'),
        ('state_dict', 'backbone.'),
        (None, 'module.backbone.'),
        (None, ''),
    ],
)
def test_official_containers(row, container, prefix, tmp_path):
    model, _, content = released(row, container, prefix)
    torch.save(content, tmp_path / 'released.pth')
    backbone = row.cls(**row.settings | row.pooled).eval()
    report = load_pretrained(backbone, tmp_path / 'released.pth')
    assert not (report.missing or report.converted)
    left = [name.rpartition(row.head)[1:] for name in report.left_over]
    assert left == [(row.head, 'weight'), (row.head, 'bias')]
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(backbone(images)[0], model(images)[0])


@each
def test_classifier_has_the_logits_of_backbone_and_head(row, tmp_path):
    model, head, path = save(row, tmp_path)
    whole, images = classifier(row).eval(), torch.randn(2, 3, 32, 64)
    report = load_pretrained(whole, path)
    assert not (report.missing or report.left_over)
    torch.testing.assert_close(whole(images), head(mean(model(images)[0])))
    if 'img_size' in row.settings and row.cls is not VisionGLA:
        report = load_pretrained(classifier(row, img_size=64), path)
        assert 'backbone.pos_embed' in report.converted


@each
def test_pretrained_init_cfg(row, tmp_path):
    model, _, path = save(row, tmp_path)
    same = row.build(init_cfg=dict(type='Pretrained', checkpoint=path))
    for name, value in model.state_dict().items():
        assert torch.equal(same.state_dict()[name], value), name


@each
def test_refuses_what_does_not_fit_and_changes_nothing(row):
    model = row.build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    names = [name for name, _ in model.named_parameters()]
    missing, wrong = names[len(names) // 2], names[-1]
    state[f'{missing}_misspelt'] = state.pop(missing)
    state[wrong] = torch.ones(3)
    with pytest.raises(CheckpointError) as error:
        load_pretrained(model, state)
    for part in (f'{missing},', f'{missing}_misspelt', f'{wrong} (file (3,)'):
        assert part.rstrip(',') in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# --------------------------------------------------------------------------- bad input

BAD_SETTINGS = [
    (dict(arch='huge'), "unknown arch 'huge', choose one of "),
    (dict(arch={}), 'missing: .*embed_dims'),
    (dict(arch=None), r'arch=None must be one of .* or a dict'),
    (dict(out_indices=5), r'out_indices=\(5,\) must lie in \[-'),
    (dict(patch_size=0), 'patch_size=0 must be a positive integer'),
    (dict(in_channels=0), 'in_channels=0 must be a positive integer'),
    (dict(drop_path_rate=2), r'drop_path_rate=2 must lie in \[0, 1\]'),
    (dict(drop_path_rate=-1), r'drop_path_rate=-1 must lie in \[0, 1\]'),
    (dict(img_size=4), 'smaller than one patch'),
    (dict(img_size='32'), "img_size='32' must be an integer, or height"),
    (dict(img_size=(32, 32, 3)), r'img_size=\(32, 32, 3\) must be an integer, or'),
    (dict(img_size=32.0), 'img_size=32.0 must be an integer, or height'),
]


@pytest.mark.parametrize('cls', CLASSES)
@pytest.mark.parametrize('kwargs, message', BAD_SETTINGS)
def test_bad_settings(cls, kwargs, message):
    row = ROWS[CLASSES[cls]]
    (key,) = kwargs
    if key in ('arch', 'img_size') and key not in row.settings:
        with pytest.raises(TypeError, match=key):
            row.build(**kwargs)
        return
    with pytest.raises(ValueError, match=message):
        row.build(**kwargs)


@pytest.mark.parametrize('cls', WITH_ARCHS)
@pytest.mark.parametrize(
    'change, message',
    [
        (dict(dim=3), 'unknown: dim'),
        (dict(depth=0), 'depth=0 must be a positive integer'),
        (dict(embed_dims=0), 'embed_dims=0 must be a positive integer'),
    ],
)
def test_bad_architectures(cls, change, message):
    row = ROWS[CLASSES[cls]]
    arch = row.settings['arch']
    if 'depth' in change and 'depths' in arch:
        change, message = dict(depths=(1, 0)), r'depths=\(1, 0\) must give each stage'
    with pytest.raises(ValueError, match=message):
        row.build(arch={**arch, **change})


@each
@pytest.mark.parametrize(
    'shape, message',
    [
        ((1, 3, 3, 3), 'smaller than one patch'),
        ((1, 1, 32, 32), r'\[1, 1, 32, 32\]; accepted: \[B, 3, H, W\]'),
        ((3, 32, 32), r'accepted: \[B, 3, H, W\]'),
        ((1, 3, 2, 32, 32), r'accepted: \[B, 3, H, W\]'),
    ],
)
def test_bad_images(row, shape, message):
    with pytest.raises(ValueError, match=message):
        row.build()(torch.zeros(shape))
