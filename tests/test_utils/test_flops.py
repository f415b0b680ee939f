"""Counts of whole models against closed forms computed by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmtransmamba.models import PlainMamba
from mmtransmamba.ops.backends import use_backend
from mmtransmamba.utils.flops import count_complexity, counted, flop_counter

ARCH = dict(embed_dims=32, depth=2, num_convs=1, dwconv_layers=(0,), drop_path_rate=0.0)


def plain_mamba_by_hand(height, width, in_channels=3):
    """Multiply-adds of the convolutions and linear layers, and the scans' FLOPs."""
    C, D, N, R, K, patch, stem = 32, 64, 16, 2, 4, 8, 64
    L = (height // patch) * (width // patch)
    pixels = (height // 2) * (width // 2)
    embed = pixels * stem * (7 * 7 * in_channels + 3 * 3 * stem)
    embed += L * C * stem * (patch // 2) ** 2
    linear = C * 2 * D + 7 * 7 * D + D * (R + 2 * N) + R * D + D * C
    dwconv = L * 3 * 3 * C
    scan = 9 * K * L * D * N + K * L * D
    return embed + 2 * L * linear + dwconv + 2 * scan, 2 * scan


@pytest.mark.parametrize('size', [(32, 32), (40, 64)])
def test_plain_mamba_equals_the_closed_form(size):
    model = PlainMamba(ARCH, img_size=32, patch_size=8)
    count = count_complexity(model, (1, 3, *size))
    assert (count.flops, count.scan_flops) == plain_mamba_by_hand(*size)
    assert count.params == sum(p.numel() for p in model.parameters())
    assert count_complexity(model, (5, 3, *size)).flops == 5 * count.flops


def test_linear_layers_and_convolutions():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.Linear(10, 4))
    count = count_complexity(model, (2, 3, 6, 10))
    assert count.modules == {
        '': (count.params, count.flops),
        '0': (8 * 27 + 8, 2 * 60 * 8 * 27),
        '1': (44, 2 * 8 * 6 * 10 * 4),
    }
    assert count.flops == sum(count.modules[name][1] for name in '01')


def test_a_list_of_layers_costs_what_they_do():
    count = count_complexity(
        PlainMamba(ARCH, img_size=32, patch_size=8), (1, 3, 32, 32)
    )
    layers = [count.modules[f'layers.{i}'] for i in range(2)]
    assert count.modules['layers'] == tuple(map(sum, zip(*layers, strict=True)))
    assert count.modules['layers.0.mamba'][1] > count.scan_flops / 2
    outside = count.modules['patch_embed'][1]
    assert count.flops == outside + count.modules['layers'][1]


@pytest.mark.parametrize('backend', ['native', 'reference'])
def test_the_count_is_that_of_the_model_not_of_the_backend(backend, monkeypatch):
    model = PlainMamba(ARCH, img_size=32, patch_size=8)
    with use_backend(backend):
        inside = count_complexity(model, (1, 3, 32, 32))
    monkeypatch.setenv('MMTRANSMAMBA_BACKEND', backend)
    assert inside == count_complexity(model, (1, 3, 32, 32))
    assert (inside.flops, inside.scan_flops) == plain_mamba_by_hand(32, 32)


def test_a_model_that_multiplies_nothing():
    count = count_complexity(nn.Sequential(nn.ReLU()), (1, 3))
    assert (count.params, count.flops) == (0, 0)


def test_the_model_is_left_as_it_was():
    model = PlainMamba(ARCH, img_size=32, patch_size=8).train()
    model.layers[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.randn(1, 3, 32, 32)
    count_complexity(model, images.shape)
    assert model.training and not model.layers[1].training
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert model(images)[0].isfinite().all()  # no cache holds tensors without values


def test_a_model_made_on_the_meta_device():
    with torch.device('meta'):
        model = PlainMamba('L1')
    count = count_complexity(model, (1, 3, 224, 224))
    assert count.params == 7_358_656
    assert count.scan_flops == 24 * (9 * 4 * 196 * 384 * 16 + 4 * 196 * 384)


@pytest.mark.parametrize('device', ['cpu', 'meta'])
@pytest.mark.parametrize('masked', [False, True])
def test_fused_attention_counts_as_its_products(device, masked):
    query = torch.ones(2, 3, 5, 8, device=device, requires_grad=True)
    key = torch.ones(2, 3, 7, 8, device=device)
    mask = torch.ones(5, 7, device=device) if masked else None
    with flop_counter() as counter:
        output = F.scaled_dot_product_attention(query, key, key, attn_mask=mask)
        forward = counted(counter)
        output.sum().backward()
    assert forward == 2 * 3 * 5 * 7 * (8 + 8)
    # Not all of the gradients are wanted, which the fused kernel does not know.
    assert forward < counted(counter) <= 3 * forward
