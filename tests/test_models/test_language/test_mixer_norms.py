"""The norms of the Mamba-2 mixer against NumPy."""

import numpy as np
import pytest
import torch

from mmtransmamba.models.language import MAMBA, HybridLlamaConfig, Mamba2Mixer

HEADS, SIZE, EPS = 3, 4, 1e-3


def rms(values):
    return values / np.sqrt((values**2).mean(-1, keepdims=True) + EPS)


def per_head(values):
    return rms(values.reshape(*values.shape[:-1], HEADS, SIZE)).reshape(values.shape)


EXPECTED = {
    'gated': lambda y, gate, weight: rms(y * gate) * weight,
    'gated_per_head': lambda y, gate, weight: per_head(y * gate) * weight,
    'per_head': lambda y, gate, weight: per_head(y) * weight * gate,
    'none': lambda y, gate, weight: y * gate,
}


@pytest.mark.parametrize('norm', EXPECTED)
def test_norm_and_gate_are_as_published(norm):
    torch.manual_seed(0)
    width = HEADS * SIZE
    config = HybridLlamaConfig(
        hidden_size=width,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        num_hidden_layers=1,
        layer_types=[MAMBA],
    )
    mixer = Mamba2Mixer(config, 0, norm=norm, norm_eps=EPS)
    weight = torch.ones(width)
    if mixer.norm is not None:
        torch.nn.init.normal_(mixer.norm.weight)
        weight = mixer.norm.weight.detach()
    y, x = torch.randn(2, 5, width), torch.randn(2, 5, width)
    z = (x @ mixer.z_proj.weight.detach().T).numpy()
    gate = z / (1 + np.exp(-z))
    expected = EXPECTED[norm](y.numpy(), gate, weight.numpy())
    actual = mixer.gate(y, x).detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
