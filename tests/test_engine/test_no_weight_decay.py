"""The optimizer constructor that asks the model."""

import pytest
import torch
from language_models import teacher_config
from mmengine.optim import build_optim_wrapper
from tiny_backbones import BACKBONES, make_backbone

from mmtransmamba.models import PlainMamba
from mmtransmamba.models.trainable import CausalLM, EncoderClassifier


class Outer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = PlainMamba(
            dict(
                embed_dims=16,
                depth=2,
                num_convs=1,
                dwconv_layers=(),
                drop_path_rate=0.0,
            ),
            img_size=16,
            patch_size=8,
        )


def build(model, **paramwise_cfg):
    return build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor='mmtransmamba.NoWeightDecayConstructor',
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.1),
            paramwise_cfg=paramwise_cfg,
        ),
    )


def decays(model, **paramwise_cfg) -> dict[str, float]:
    wrapper = build(model, **paramwise_cfg)
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }


def test_a_learning_rate_for_the_backbone_stays():
    model = Outer()
    wrapper = build(model, custom_keys={'backbone': dict(lr_mult=0.1)})
    for group in wrapper.optimizer.param_groups:
        assert group['lr'] == pytest.approx(1e-4)
    assert {g['weight_decay'] for g in wrapper.optimizer.param_groups} == {0, 0.1}


def test_exactly_what_the_backbone_names_is_spared():
    model = Outer()
    decay = decays(model)
    assert len(decay) == len(list(model.parameters()))
    spared = {name for name, value in decay.items() if value == 0}
    assert spared == {f'backbone.{name}' for name in model.backbone.no_weight_decay()}
    assert all(value in (0, 0.1) for value in decay.values())


@pytest.mark.parametrize('name', BACKBONES)
def test_names_that_contain_a_spared_one_are_not_spared(name):
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = make_backbone(name)

    model = Model()
    spared = {n for n, value in decays(model).items() if value == 0}
    names = model.backbone.no_weight_decay()
    known = {n for n, _ in model.named_parameters()}
    assert spared == {f'backbone.{n}' for n in names} & known
    # With norms spared, all of them are, whoever wrote them.
    norms = {
        f'{prefix}.{n}'
        for prefix, module in model.named_modules()
        if 'Norm' in type(module).__name__
        for n, _ in module.named_parameters(recurse=False)
    }
    more = {n for n, v in decays(model, norm_decay_mult=0.0).items() if v == 0}
    assert norms and more == spared | norms
    key = {'backbone': dict(decay_mult=0.5)}
    own = decays(model, norm_decay_mult=0.0, custom_keys=key)
    assert all(own[n] == 0.05 for n in norms)


def test_the_configs_own_keys_go_first():
    decay = decays(Outer(), custom_keys={'backbone.pos_embed': dict(decay_mult=0.5)})
    assert decay['backbone.pos_embed'] == 0.05
    assert decay['backbone.layers.0.mamba.A_log'] == 0


@pytest.mark.parametrize(
    'model',
    [
        CausalLM(
            config=teacher_config(tie_word_embeddings=False), convert=dict(layers=[0])
        ),
        EncoderClassifier(
            config=dict(
                model_type='vit',
                image_size=16,
                patch_size=8,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                num_labels=3,
            ),
            convert=dict(layers=[0]),
        ),
    ],
    ids=['language', 'vision'],
)
def test_of_a_converted_model_matrices_decay(model):
    decay = decays(model)
    spared = {n for n, p in model.named_parameters() if p.ndim < 2}
    spared |= {n for n in decay if n.endswith('A_log')}
    assert any(n.endswith('A_log') for n in spared)
    assert {n for n, value in decay.items() if value == 0} == spared


def test_a_spared_bias_keeps_the_rate_of_biases():
    model = CausalLM(config=teacher_config('phi'))
    wrapper = build(model, bias_lr_mult=2.0)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {names[id(g['params'][0])]: g for g in wrapper.optimizer.param_groups}
    biases = [n for n in groups if n.endswith('proj.bias')]
    assert biases
    for name in biases:
        assert (groups[name]['lr'], groups[name]['weight_decay']) == (2e-3, 0)
