"""Converted vision encoders as files that run without this package."""

import json

import pytest
import torch
from tiny_encoders import images, output, tiny_encoder
from torch_release import exports
from transformers import AutoConfig, AutoModelForImageClassification

import mmtransmamba
from mmtransmamba.apis.export_formats import METADATA
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.model_config import input_shape


@exports
@pytest.mark.parametrize(
    ('name', 'mixer'),
    [
        ('ViTForImageClassification', 'Mamba2'),
        ('Dinov2Model', 'GatedDeltaNet'),
        ('CLIPVisionModel', 'Mamba2'),
    ],
)
def test_torch_export_reproduces_the_outputs_for_any_batch(name, mixer, tmp_path):
    hybrid, _ = mmtransmamba.convert(tiny_encoder(name), mixer=mixer)
    file = tmp_path / 'encoder.pt2'
    report = mmtransmamba.export(hybrid, file, format='torch_export')
    assert report.inputs == ('batch', 3, 16, 16) and set(report.differences) == {
        1,
        2,
        5,
    }
    program = torch.export.load(file).module()
    found = program(images(3))
    found = found[0] if isinstance(found, tuple | list) else found
    expected = output(hybrid, images(3))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


FIELDS = dict(
    model_type='vit',
    image_size=16,
    patch_size=8,
    num_channels=1,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    num_labels=5,
)


@pytest.mark.parametrize('where', ['config', 'path'])
def test_a_trained_classifier_keeps_its_classes_and_normalisation(where, tmp_path):
    if where == 'path':
        fields = dict(FIELDS)
        config = AutoConfig.for_model(fields.pop('model_type'), **fields)
        torch.manual_seed(0)
        AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path)
    settings = dict(
        type='mmtransmamba.EncoderClassifier',
        **{where: FIELDS if where == 'config' else str(tmp_path)},
        classes=[3, 1],
        data_preprocessor=dict(mean=[10.0], std=[20.0]),
    )
    model = MODELS.build(settings).eval()
    shape = input_shape(settings, None)
    assert shape == (1, 16, 16)
    file = tmp_path / 'encoder.pt'
    mmtransmamba.export(model, file, format='torchscript', shape=shape)
    pixels = images(3)[:, :1]
    more = {METADATA: ''}
    found = torch.jit.load(file, _extra_files=more)(pixels)
    expected = model(pixels)
    assert expected.shape == (3, 2)
    torch.testing.assert_close(found, expected)
    metadata = json.loads(more[METADATA])
    assert (metadata['mean'], metadata['std']) == ([10.0], [20.0])
