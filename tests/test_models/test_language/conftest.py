"""Tiny hybrids of every family."""

from collections.abc import Callable

import pytest
import torch
from tiny_decoders import FAMILIES, SIZES
from torch import nn

from mmtransmamba.models.language import ATTENTION, HYBRIDS, MAMBA

LAYOUTS = {
    'attention first': [ATTENTION, MAMBA, MAMBA],
    'mamba first': [MAMBA, MAMBA, ATTENTION],
    'pure': [MAMBA] * 3,
}


@pytest.fixture
def make_hybrid() -> Callable[..., nn.Module]:
    """Build a tiny hybrid whose mixers all affect the output."""

    def make(family: str = 'llama', layout: str = 'attention first', **fields):
        torch.manual_seed(0)
        config_cls, _, causal_lm = HYBRIDS[family]
        sizes = SIZES | FAMILIES[family] | dict(layer_types=LAYOUTS[layout])
        model = causal_lm(config_cls(**sizes | fields)).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # larger than the init: all matter
                if parameter.ndim == 2:
                    parameter.mul_(4)
        return model

    return make
