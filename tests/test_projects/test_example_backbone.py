"""The example project: its attention against the recurrence, and as a student."""

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.subclone import subclone
from mmtransmamba.transfer.weight_maps import get_weight_map
from projects.example_backbone.vision_gla import (
    GLAMixer,
    VisionGLA,
    gated_linear_attention,
)

CONFIG = 'projects/example_backbone/configs/gla_digits.py'


def operands(length=37, dtype=torch.float64, fastest=1.0):
    """q, k, v and log_decay of two sequences and three heads."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, length)

    def randn(width):
        return torch.randn(*shape, width, generator=generator, dtype=dtype)

    decay = -fastest * torch.rand(*shape, 4, generator=generator, dtype=dtype)
    return [x.requires_grad_() for x in (randn(4), randn(4), randn(5), decay)]


def recurrence(q, k, v, log_decay):
    """The definition, step by step."""
    state = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1], dtype=q.dtype)
    outputs = []
    for t in range(q.shape[2]):
        state = log_decay[:, :, t].exp().unsqueeze(-1) * state
        state = state + k[:, :, t].unsqueeze(-1) * v[:, :, t].unsqueeze(-2)
        outputs.append((q[:, :, t].unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(outputs, dim=2)


def tiny(**kwargs):
    torch.manual_seed(0)
    settings = dict(embed_dims=16, depth=2, num_heads=2, img_size=32, patch_size=8)
    model = VisionGLA(**settings | kwargs)
    model.init_weights()
    return model


# ------------------------------------------------------------------- the attention


@pytest.mark.parametrize('chunk_size', [1, 8, 37, 64])
@pytest.mark.parametrize('fastest', [1.0, 50.0])
def test_chunks_equal_the_recurrence(chunk_size, fastest):
    inputs = operands(fastest=fastest)
    y, expected = gated_linear_attention(*inputs, chunk_size), recurrence(*inputs)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(y)
    grads = torch.autograd.grad((y * weights).sum(), inputs)
    for name, grad, wanted in zip(
        ('q', 'k', 'v', 'log_decay'),
        grads,
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(grad, wanted, rtol=1e-10, atol=1e-12, msg=name)


def test_single_precision_and_a_memory_that_fades_at_once():
    inputs = operands(length=200, dtype=torch.float32, fastest=1000.0)
    y = gated_linear_attention(*inputs)
    expected = recurrence(*(x.double() for x in inputs))
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad(y.square().sum(), inputs)
    assert all(grad.isfinite().all() for grad in grads)


def test_under_autocast_it_computes_in_float32():
    inputs = [x.detach() for x in operands(dtype=torch.float32)]
    with torch.autocast('cpu', torch.bfloat16):
        y = gated_linear_attention(*inputs)
    assert torch.equal(y, gated_linear_attention(*inputs))


def test_a_later_token_does_not_reach_back():
    q, k, v, log_decay = (x.detach() for x in operands())
    changed = v.clone()
    changed[:, :, 20:] += 1
    y, other = (gated_linear_attention(q, k, x, log_decay) for x in (v, changed))
    assert torch.equal(y[:, :, :20], other[:, :, :20])
    assert (y[:, :, 20] != other[:, :, 20]).all()


# --------------------------------------------------------------------- the backbone


def test_directions_sum_to_the_mixer_output():
    torch.manual_seed(0)
    mixer = GLAMixer(embed_dims=16, num_heads=2)
    tokens = torch.randn(2, 12, 16)
    closed = mixer(tokens, (3, 4))
    seen = []
    mixer.direction_tap.listener = seen.append
    mixer.direction_tap.select = lambda order: torch.arange(12).expand(2, 12)
    out = mixer(tokens, (3, 4))
    assert torch.equal(out, closed)
    (feature,) = seen
    assert feature.values.shape == (2, 2, 12, 16)
    total = torch.zeros(2, 12, 16)
    for k, index in enumerate(feature.token_index):
        total[:, index] += feature.project(feature.values)[:, k]
    torch.testing.assert_close(out, total + mixer.proj.bias)


def test_the_second_direction_is_the_first_on_the_reversed_tokens():
    torch.manual_seed(0)
    mixer = GLAMixer(embed_dims=16, num_heads=2)
    with torch.no_grad():  # the same rates in both directions
        for parameter in mixer.decay[1].parameters():
            parameter[16:] = parameter[:16]
    tokens = torch.randn(1, 40, 16)
    torch.testing.assert_close(
        mixer(tokens.flip(1), (5, 8)), mixer(tokens, (5, 8)).flip(1)
    )


def test_bad_settings():
    with pytest.raises(ValueError, match='VisionGLA: embed_dims=16 must be a multiple'):
        tiny(num_heads=3)
    with pytest.raises(ValueError, match='num_heads=0 must be a positive integer'):
        tiny(num_heads=0)


def test_loads_a_position_embedding_of_another_grid():
    model = tiny(img_size=64)
    model.load_state_dict(tiny().state_dict())
    assert model.pos_embed.shape == (1, 64, 16)


# ---------------------------------------------------------------------- the project


def test_inherits_a_transformer():
    vit = {
        'norm.weight': torch.full((24,), 2.0),
        'norm.bias': torch.zeros(24),
        'cls_token': torch.zeros(1, 1, 24),
        'pos_embed': torch.randn(1, 17, 24),
        'patch_embed.proj.weight': torch.randn(24, 3, 8, 8),
        'patch_embed.proj.bias': torch.randn(24),
    }
    for i in range(2):
        block = f'blocks.{i}.'
        for name, shape in {
            'norm1': (24,),
            'attn.qkv': (72, 24),
            'attn.proj': (24, 24),
            'norm2': (24,),
            'mlp.fc1': (96, 24),
            'mlp.fc2': (24, 96),
        }.items():
            vit[f'{block}{name}.weight'] = torch.randn(shape)
            vit[f'{block}{name}.bias'] = torch.randn(shape[0])
    model = tiny()
    weights, report = subclone(
        dict(model.named_parameters()), [(get_weight_map('vit_to_gla'), vit)]
    )
    # q, k and v each keep their own first channels.
    wanted = vit['blocks.1.attn.qkv.weight'].view(3, 24, 24)[:, :16, :16]
    assert torch.equal(weights['layers.1.mixer.qkv.weight'].view(3, 16, 16), wanted)
    assert torch.equal(weights['norm.weight'], torch.full((16,), 2.0))
    taken = {e.target for e in report.entries if e.action in ('copied', 'block')}
    left = {name.split('.', 2)[-1] for name in set(weights) - taken}
    assert {name.split('.')[1] for name in left} == {'decay', 'gate', 'norm'}


def test_layer_scales_of_the_teacher_are_taken_with_its_weights():
    vit = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=4, init_values=0.5
    ).state_dict()
    weights, _ = subclone(
        dict(tiny().named_parameters()), [(get_weight_map('vit_to_gla'), vit)]
    )
    assert torch.equal(
        weights['layers.1.mlp.2.weight'], vit['blocks.1.mlp.fc2.weight'] / 2
    )


def test_config_distils_and_trains_the_student(repo_dir):
    cfg = Config.fromfile(repo_dir / CONFIG)
    cfg.model.teacher.checkpoint = 'random'
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model | dict(data_preprocessor=cfg.data_preprocessor))
        model.init_weights()
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
        before = {k: p.detach().clone() for k, p in model.student.named_parameters()}
        for _ in range(2):
            losses = model.train_step(batch, optim_wrapper)
    assert {'loss_task', 'loss_direction', 'loss_layer'} <= set(losses)
    assert all(value.isfinite().all() for value in losses.values())
    unchanged = [
        k for k, p in model.student.named_parameters() if torch.equal(p, before[k])
    ]
    assert not unchanged
    assert sum(p.numel() for p in model.student.parameters()) == 231_562
