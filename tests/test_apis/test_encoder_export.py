"""Converted vision encoders as files that run without this package."""

import pytest
import torch
from tiny_encoders import images, output, tiny_encoder
from torch_release import exports

import mmtransmamba


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
