"""Tiny vision encoders of every family, with random weights."""

import torch
import transformers
from torch import Tensor, nn

SIZES = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=16,
    patch_size=4,
)
_CLASSES = dict(num_labels=5)
_REGISTERS = dict(num_register_tokens=2)
ENCODERS = {
    'ViTModel': ('ViTConfig', {}),
    'ViTForImageClassification': ('ViTConfig', _CLASSES),
    'DeiTModel': ('DeiTConfig', {}),
    'DeiTForImageClassification': ('DeiTConfig', _CLASSES),
    'DeiTForImageClassificationWithTeacher': ('DeiTConfig', _CLASSES),
    'Dinov2Model': ('Dinov2Config', {}),
    'Dinov2ForImageClassification': ('Dinov2Config', _CLASSES),
    'Dinov2WithRegistersModel': ('Dinov2WithRegistersConfig', _REGISTERS),
    'Dinov2WithRegistersForImageClassification': (
        'Dinov2WithRegistersConfig',
        _CLASSES | _REGISTERS,
    ),
    'DINOv3ViTModel': ('DINOv3ViTConfig', _REGISTERS),
    'CLIPVisionModel': ('CLIPVisionConfig', {}),
    'CLIPVisionModelWithProjection': ('CLIPVisionConfig', dict(projection_dim=6)),
    'SiglipVisionModel': ('SiglipVisionConfig', {}),
}
"""Config class and fields by model class of transformers."""


def tiny_encoder(name: str, seed: int = 0, **fields) -> nn.Module:
    """A model of a class of transformers, with every weight drawn anew.

    transformers initialises some of them, such as layer scales, to values at which
    differences would hardly be seen.
    """
    config_class, own = ENCODERS[name]
    config = getattr(transformers, config_class)(**SIZES | own | fields)
    model = getattr(transformers, name)(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise + (parameter.ndim == 1))
    return model.eval()


def images(count: int = 2, size: int = 16, seed: int = 0) -> Tensor:
    """Normalised images ``[B, 3, H, W]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator)


def output(model: nn.Module, pixels: Tensor) -> Tensor:
    """The logits, embeddings or last tokens of an encoder."""
    with torch.no_grad():
        found = model(pixels)
    for name in ('logits', 'image_embeds', 'last_hidden_state'):
        if getattr(found, name, None) is not None:
            return found[name]
    raise AssertionError(type(found))
