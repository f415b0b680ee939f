"""Quantised hybrid encoders, and what low precision leaves out."""

import pytest
import torch
from quantised import dynamically_quantised
from tiny_encoders import images, output, tiny_encoder
from torch import nn
from transformers import AutoModelForImageClassification

import mmtransmamba
from mmtransmamba.models.language import cast_parameters
from mmtransmamba.models.vision import unquantized_modules

SMALL = {'Mamba2': {'dt_proj'}, 'GatedDeltaNet': {'dt_proj', 'beta_proj'}}
HEADS = {
    'ViTModel': set(),
    'ViTForImageClassification': {'classifier'},
    'DeiTForImageClassificationWithTeacher': {
        'cls_classifier',
        'distillation_classifier',
    },
    'CLIPVisionModelWithProjection': {'visual_projection'},
    'SiglipVisionModel': set(),
}


def converted(name='ViTForImageClassification', mixer='Mamba2'):
    hybrid, _ = mmtransmamba.convert(tiny_encoder(name), layers=[0], mixer=mixer)
    return hybrid


@pytest.mark.parametrize('name', HEADS)
@pytest.mark.parametrize('mixer', SMALL)
def test_small_layers_of_mixers_and_heads_are_listed(mixer, name):
    hybrid = converted(name, mixer)
    blocks = hybrid.get_submodule(type(hybrid).block_list)
    (prefix,) = (
        part
        for part, module in hybrid.named_modules()
        if module is getattr(blocks[0], type(hybrid).attention_name)
    )
    expected = {f'{prefix}.{small}' for small in SMALL[mixer]} | HEADS[name]
    names = unquantized_modules(hybrid)
    assert set(names) == expected and len(names) == len(expected)
    assert all(isinstance(hybrid.get_submodule(part), nn.Linear) for part in names)


@pytest.mark.parametrize('mixer', SMALL)
def test_dynamic_quantisation(mixer):
    hybrid = converted(mixer=mixer)
    quantised = dynamically_quantised(hybrid)
    expected, actual = output(hybrid, images()), output(quantised, images())
    assert 0 < (actual - expected).abs().max() < 0.3 * expected.abs().max()
    assert isinstance(
        quantised.get_submodule('vit.layers.0.attention.dt_proj'), nn.Linear
    )
    out_proj = quantised.get_submodule('vit.layers.0.attention.out_proj')
    assert not isinstance(out_proj, nn.Linear)


def test_loading_with_torchao(tmp_path):
    torchao = pytest.importorskip('torchao.quantization')
    from transformers import TorchAoConfig

    hybrid = converted()
    hybrid.save_pretrained(tmp_path)
    config = TorchAoConfig(
        torchao.Int8WeightOnlyConfig(version=2),
        modules_to_not_convert=unquantized_modules(hybrid),
    )
    quantised = AutoModelForImageClassification.from_pretrained(
        tmp_path, quantization_config=config, dtype=torch.float32
    )
    plain = {n for n, p in quantised.named_parameters() if type(p) is nn.Parameter}
    mixer = 'vit.layers.0.attention.'
    assert {f'{mixer}dt_proj.weight', 'classifier.weight'} <= plain
    assert f'{mixer}out_proj.weight' not in plain
    expected, actual = output(hybrid, images()), output(quantised, images())
    assert 0 < (actual - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize('mixer', SMALL)
def test_half_precision_leaves_the_recurrence_in_float32(mixer, tmp_path):
    hybrid = converted(mixer=mixer)
    hybrid.save_pretrained(tmp_path)
    half = mmtransmamba.load(tmp_path, dtype=torch.bfloat16)
    part = half.vit.layers[0].attention
    kept = {name for name, p in part.named_parameters() if p.dtype == torch.float32}
    assert kept == {n for n, _ in part.named_parameters() if part.keeps_float32(n)}
    assert {'A_log', 'dt_bias'} <= kept
    assert half.classifier.weight.dtype == torch.bfloat16
    logits = output(half, images().to(torch.bfloat16))
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


def test_a_converted_tower_keeps_its_recurrence_in_a_cast_model():
    tower = cast_parameters(converted('SiglipVisionModel'), torch.bfloat16)
    mixer = tower.encoder.layers[0].self_attn
    assert mixer.A_log.dtype == torch.float32
    assert mixer.out_proj.weight.dtype == torch.bfloat16
