"""Hybrid vision encoders of transformers' model families.

Each is the Transformer's own class with the attention of some layers replaced, and is
registered with ``AutoConfig``, ``AutoModel`` and, if it classifies,
``AutoModelForImageClassification``. The families are written explicitly because
transformers finds a model's class by its name in a module.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    DeiTModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from mmtransmamba.models.language.registration import register_model
from mmtransmamba.models.vision.config import HybridEncoderFields
from mmtransmamba.models.vision.hybrid import HybridEncoderMixin, HybridHeadMixin

WITHOUT_POOLING = {'add_pooling_layer': False}


class HybridViTConfig(HybridEncoderFields, ViTConfig):
    """Config of :class:`HybridViTForImageClassification`."""

    model_type = 'hybrid_vit'


class HybridViTModel(HybridEncoderMixin, ViTModel):
    """ViT with bidirectional mixers."""

    config_class = HybridViTConfig
    block_list = 'layers'


class HybridViTForImageClassification(HybridHeadMixin, ViTForImageClassification):
    """ViT with bidirectional mixers and a classifier."""

    encoder_name = 'vit'
    encoder_class = HybridViTModel
    encoder_options = WITHOUT_POOLING


class HybridDeiTConfig(HybridEncoderFields, DeiTConfig):
    """Config of :class:`HybridDeiTForImageClassification`."""

    model_type = 'hybrid_deit'
    prefix_tokens = 2


class HybridDeiTModel(HybridEncoderMixin, DeiTModel):
    """DeiT with bidirectional mixers."""

    config_class = HybridDeiTConfig
    block_list = 'layers'


class HybridDeiTForImageClassification(HybridHeadMixin, DeiTForImageClassification):
    """DeiT with bidirectional mixers and a classifier."""

    encoder_name = 'deit'
    encoder_class = HybridDeiTModel
    encoder_options = WITHOUT_POOLING


class HybridDeiTForImageClassificationWithTeacher(
    HybridHeadMixin, DeiTForImageClassificationWithTeacher
):
    """DeiT with bidirectional mixers and classifiers of both of its tokens."""

    encoder_name = 'deit'
    encoder_class = HybridDeiTModel
    encoder_options = WITHOUT_POOLING


class HybridDinov2Config(HybridEncoderFields, Dinov2Config):
    """Config of :class:`HybridDinov2Model`."""

    model_type = 'hybrid_dinov2'


class HybridDinov2Model(HybridEncoderMixin, Dinov2Model):
    """DINOv2 with bidirectional mixers."""

    config_class = HybridDinov2Config
    block_list = 'encoder.layer'
    norm_name = 'norm1'


class HybridDinov2ForImageClassification(HybridHeadMixin, Dinov2ForImageClassification):
    """DINOv2 with bidirectional mixers and a classifier."""

    encoder_name = 'dinov2'
    encoder_class = HybridDinov2Model


class HybridDinov2WithRegistersConfig(HybridEncoderFields, Dinov2WithRegistersConfig):
    """Config of :class:`HybridDinov2WithRegistersModel`."""

    model_type = 'hybrid_dinov2_with_registers'

    @property
    def prefix_tokens(self) -> int:
        return 1 + self.num_register_tokens


class HybridDinov2WithRegistersModel(HybridEncoderMixin, Dinov2WithRegistersModel):
    """DINOv2 with registers and bidirectional mixers."""

    config_class = HybridDinov2WithRegistersConfig
    block_list = 'encoder.layer'
    norm_name = 'norm1'


class HybridDinov2WithRegistersForImageClassification(
    HybridHeadMixin, Dinov2WithRegistersForImageClassification
):
    """DINOv2 with registers, bidirectional mixers and a classifier."""

    encoder_name = 'dinov2_with_registers'
    encoder_class = HybridDinov2WithRegistersModel


class HybridDINOv3ViTConfig(HybridEncoderFields, DINOv3ViTConfig):
    """Config of :class:`HybridDINOv3ViTModel`."""

    model_type = 'hybrid_dinov3_vit'

    @property
    def prefix_tokens(self) -> int:
        return 1 + self.num_register_tokens


class HybridDINOv3ViTModel(HybridEncoderMixin, DINOv3ViTModel):
    """DINOv3 with bidirectional mixers, whose v, k and q keep the rotary positions."""

    config_class = HybridDINOv3ViTConfig
    block_list = 'model.layer'
    norm_name = 'norm1'


class HybridCLIPVisionConfig(HybridEncoderFields, CLIPVisionConfig):
    """Config of :class:`HybridCLIPVisionModel`."""

    model_type = 'hybrid_clip_vision_model'


class HybridCLIPVisionModel(HybridEncoderMixin, CLIPVisionModel):
    """Vision tower of CLIP with bidirectional mixers."""

    config_class = HybridCLIPVisionConfig
    base_model_prefix = 'vision_model'
    block_list = 'encoder.layers'
    attention_name = 'self_attn'
    norm_name = 'layer_norm1'


class HybridCLIPVisionModelWithProjection(
    HybridHeadMixin, CLIPVisionModelWithProjection
):
    """Vision tower of CLIP with bidirectional mixers and the projection to text."""

    encoder_name = 'vision_model'
    encoder_class = HybridCLIPVisionModel


class HybridSiglipVisionConfig(HybridEncoderFields, SiglipVisionConfig):
    """Config of :class:`HybridSiglipVisionModel`."""

    model_type = 'hybrid_siglip_vision_model'
    prefix_tokens = 0


class HybridSiglipVisionModel(HybridEncoderMixin, SiglipVisionModel):
    """Vision tower of SigLIP with bidirectional mixers."""

    config_class = HybridSiglipVisionConfig
    block_list = 'encoder.layers'
    attention_name = 'self_attn'
    norm_name = 'layer_norm1'


@dataclass(frozen=True)
class Family:
    """The hybrid classes of one kind of Transformer.

    Attributes:
        config: Class of the config.
        models: Classes of the models, the encoder first. Each has the Transformer's
            name with ``Hybrid`` in front.
    """

    config: type[HybridEncoderFields]
    models: tuple[type[nn.Module], ...]


ENCODERS = {
    'vit': Family(HybridViTConfig, (HybridViTModel, HybridViTForImageClassification)),
    'deit': Family(
        HybridDeiTConfig,
        (
            HybridDeiTModel,
            HybridDeiTForImageClassification,
            HybridDeiTForImageClassificationWithTeacher,
        ),
    ),
    'dinov2': Family(
        HybridDinov2Config, (HybridDinov2Model, HybridDinov2ForImageClassification)
    ),
    'dinov2_with_registers': Family(
        HybridDinov2WithRegistersConfig,
        (
            HybridDinov2WithRegistersModel,
            HybridDinov2WithRegistersForImageClassification,
        ),
    ),
    'dinov3_vit': Family(HybridDINOv3ViTConfig, (HybridDINOv3ViTModel,)),
    'clip_vision_model': Family(
        HybridCLIPVisionConfig,
        (HybridCLIPVisionModel, HybridCLIPVisionModelWithProjection),
    ),
    'siglip_vision_model': Family(HybridSiglipVisionConfig, (HybridSiglipVisionModel,)),
}
"""Families by the Transformer's ``model_type``."""

PREFIX = 'hybrid_'


def is_encoder_type(model_type: str | None) -> bool:
    """Whether a ``model_type`` is that of a vision encoder, converted or not."""
    return str(model_type).removeprefix(PREFIX) in ENCODERS


def hybrid_class(name: str, model_type: str) -> type[nn.Module] | None:
    """The hybrid class of a Transformer's class, None if there is none.

    Args:
        name: Name of the class, with or without ``Hybrid``.
        model_type: Its ``model_type``, with or without ``hybrid_``.
    """
    wanted = f'Hybrid{name.removeprefix("Hybrid")}'
    models = ENCODERS[model_type.removeprefix(PREFIX)].models
    return next((cls for cls in models if cls.__name__ == wanted), None)


for _family in ENCODERS.values():
    AutoConfig.register(_family.config.model_type, _family.config)
    register_model(AutoModel, _family.config, _family.models[0])
    _classifiers = [m for m in _family.models if 'ForImageClassification' in m.__name__]
    if _classifiers:
        register_model(AutoModelForImageClassification, _family.config, *_classifiers)
