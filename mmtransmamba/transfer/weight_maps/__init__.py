"""Maps from teacher weights to student weights, one table per pair."""

from . import (
    mamba_to_plainmamba,
    mamba_to_vim,
    vit_to_plainmamba,
    vit_to_vim,
    vit_to_vmamba,
    vit_to_vrwkv,
)
from .base import EXACT, Fresh, Rule, Space, WeightMap, get_weight_map
from .vit import from_vit

__all__ = [
    'EXACT',
    'Fresh',
    'Rule',
    'Space',
    'WeightMap',
    'from_vit',
    'get_weight_map',
    'mamba_to_plainmamba',
    'mamba_to_vim',
    'vit_to_plainmamba',
    'vit_to_vim',
    'vit_to_vmamba',
    'vit_to_vrwkv',
]
