"""Conversion of the vision encoders of every family."""

import re

import pytest
import torch
from tiny_encoders import ENCODERS, images, output, tiny_encoder

import mmtransmamba
from mmtransmamba.models.vision import EncoderMixer, hybrid_class

MIXERS = ('Mamba2', 'GatedDeltaNet')
CASES = [
    *((name, 'Mamba2') for name in ENCODERS),
    ('ViTForImageClassification', 'GatedDeltaNet'),
    ('DINOv3ViTModel', 'GatedDeltaNet'),
]


@pytest.mark.parametrize(('name', 'mixer'), CASES)
def test_each_family_converts_learns_and_returns_from_a_folder(name, mixer, tmp_path):
    teacher = tiny_encoder(name)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    hybrid, report = mmtransmamba.convert(teacher, layers=[1], mixer=mixer)
    assert type(hybrid).__name__ == f'Hybrid{name}'
    assert hybrid.config.layer_types == ['full_attention', 'linear_attention']
    assert hybrid.config.transfer_history == ['init:mimic']
    assert sum(isinstance(m, EncoderMixer) for m in hybrid.modules()) == 1
    assert report.totals()['parameters'] == sum(
        p.numel() for p in hybrid.parameters()
    ) + sum(b.numel() for k, b in hybrid.state_dict().items() if 'inv_freq' in k)

    for key, value in hybrid.state_dict().items():
        if key in before:
            torch.testing.assert_close(value, before[key], rtol=0, atol=0)

    y = output(hybrid, images())
    assert y.isfinite().all() and not torch.equal(y, output(teacher, images()))
    hybrid.train()
    found = hybrid(images())
    target = getattr(found, 'logits', None)
    target = found.last_hidden_state if target is None else target
    target.square().mean().backward()
    silent = {
        key
        for key, p in hybrid.named_parameters()
        if p.grad is None or not p.grad.abs().sum()
    }
    assert not [
        key for key in silent if re.search(r'layers?\.\d\.(self_attn|attention)', key)
    ]

    hybrid.eval().save_pretrained(tmp_path)
    again = mmtransmamba.load(tmp_path)
    assert type(again) is type(hybrid)
    torch.testing.assert_close(output(again, images()), y, rtol=0, atol=0)
    torch.testing.assert_close(
        output(type(hybrid).from_pretrained(tmp_path), images()), y, rtol=0, atol=0
    )


@pytest.mark.parametrize('name', ENCODERS)
def test_without_converted_layers_a_hybrid_is_its_teacher(name):
    teacher = tiny_encoder(name)
    hybrid = hybrid_class(name, teacher.config.model_type)
    fields = teacher.config.to_dict()
    config = hybrid.config_class(
        **{k: v for k, v in fields.items() if k not in ('model_type', 'architectures')}
    )
    student = hybrid(config).eval()
    student.load_state_dict(teacher.state_dict())
    assert config.mamba_layers == []
    y, expected = output(student, images()), output(teacher, images())
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
