"""Mistakes in the conversion of a vision encoder are named."""

import pytest
import torch
from tiny_encoders import images, tiny_encoder
from torch import nn
from transformers import CLIPConfig, CLIPForImageClassification, ViTConfig
from transformers import ViTForMaskedImageModeling as Masked

import mmtransmamba
from mmtransmamba.transfer.convert import Conversion, EncoderConversion, plan_conversion

SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)


@pytest.fixture(scope='module')
def vit():
    return tiny_encoder('ViTForImageClassification')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(layers='auto'), "layers='auto' ranks layers by a text"),
        (dict(layers=[9]), r'must name at least one layer'),
        (dict(mixer='Mamba'), 'must be one of GatedDeltaNet, Mamba2'),
        (dict(mixer=dict(type='Mamba2', d_conv=4)), "has no field 'd_conv'"),
        (dict(mixer=dict(activation='relu')), "activation='relu'"),
        (dict(init='subclone'), 'must be one of mimic, vkq, calibrate, scratch'),
        (dict(init='calibrate'), 'needs calibration images'),
        (dict(hidden_size=8), 'hidden_size is not an option for vision encoders'),
        (dict(calibration=[torch.zeros(1, 3)]), r'images \[B, 3, H, W\]'),
        (dict(calibration=[images(1)]), 'needs two images'),
        (dict(calibration=[images(1), images(1, 8)]), 'of 2 sizes'),
        (dict(calibration_images=1), 'calibration_images=1 must be 2'),
    ],
)
def test_options_are_checked(vit, options, message):
    with pytest.raises(ValueError, match=message):
        mmtransmamba.convert(vit, **options)


def test_other_models_are_refused_by_name(vit):
    with pytest.raises(ValueError, match='a ViTForMaskedImageModeling; of this family'):
        mmtransmamba.convert(Masked(ViTConfig(**SMALL, image_size=8, patch_size=4)))
    pair = CLIPForImageClassification(
        CLIPConfig(
            text_config=SMALL,
            vision_config=dict(SMALL, image_size=8, patch_size=4),
        )
    )
    with pytest.raises(ValueError, match='a CLIPForImageClassification; .* its head'):
        mmtransmamba.convert(pair)
    hybrid, _ = mmtransmamba.convert(vit)
    with pytest.raises(ValueError, match='already a hybrid'):
        mmtransmamba.convert(hybrid)
    with pytest.raises(TypeError, match='teacher is a Linear'):
        mmtransmamba.convert(nn.Linear(1, 1))


def test_a_specification_of_another_kind_is_refused(vit):
    with pytest.raises(ValueError, match='must be a EncoderConversion'):
        plan_conversion(vit, Conversion())
    assert plan_conversion(vit, EncoderConversion()).config.mamba_layers == [0, 1]
