"""ViTs of timm and mmpretrain as teachers of a conversion."""

import pytest
import timm
import torch
from mmpretrain.registry import MODELS as MMPRETRAIN
from tiny_encoders import images
from torch import nn
from transformers import ViTForImageClassification

import mmtransmamba
from mmtransmamba.models.teachers import TimmTeacher
from mmtransmamba.transfer.convert import as_transformers, plan_conversion

SIZE = dict(img_size=16, patch_size=4)
TIMM = SIZE | dict(embed_dim=16, depth=2, num_heads=2, num_classes=5)
_ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=24)
_HEAD = dict(num_classes=5, in_channels=16)


def drawn(model: nn.Module) -> nn.Module:
    """Every weight is drawn anew: some start at values that hide differences."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise + (parameter.ndim == 1))
    return model.eval()


def of_timm(name: str = 'vit_tiny_patch16_224', **options) -> nn.Module:
    return drawn(timm.create_model(name, **TIMM | options))


def of_mmpretrain(
    backbone: str = 'VisionTransformer', head: str = 'VisionTransformerClsHead', **more
) -> nn.Module:
    options = dict(more)
    own = dict(type=head, **_HEAD | options.pop('head_options', {}))
    neck = options.pop('neck', None)
    arch = dict(type=backbone, arch=_ARCH, **SIZE, **options)
    config = dict(type='ImageClassifier', backbone=arch, neck=neck, head=own)
    return drawn(MMPRETRAIN.build(config))


MODELS = {
    'timm vit': of_timm,
    'timm deit': lambda: of_timm('deit_tiny_patch16_224'),
    'timm distilled': lambda: of_timm('deit_tiny_distilled_patch16_224'),
    'timm deit 3': lambda: of_timm('deit3_small_patch16_224'),
    'timm without bias': lambda: of_timm(qkv_bias=False),
    'timm with quick gelu': lambda: of_timm(act_layer='quick_gelu'),
    'timm with tanh': lambda: of_timm(act_layer='gelu_tanh'),
    'timm grey': lambda: of_timm(in_chans=1),
    'timm of other sizes': lambda: of_timm(img_size=24, patch_size=8, mlp_ratio=3),
    'mmpretrain vit': of_mmpretrain,
    'mmpretrain linear head': lambda: of_mmpretrain(head='LinearClsHead'),
    'mmpretrain distilled': lambda: of_mmpretrain(
        'DistilledVisionTransformer', 'DeiTClsHead'
    ),
    'mmpretrain scaled': lambda: of_mmpretrain(layer_scale_init_value=0.1),
    'mmpretrain without bias': lambda: of_mmpretrain(qkv_bias=False),
}


@pytest.fixture(scope='module', params=MODELS)
def pair(request):
    model = MODELS[request.param]()
    return model, as_transformers(model)


def test_the_outputs_are_those_of_the_original(pair):
    model, converted = pair
    pixels = images(2, converted.config.image_size)
    pixels = pixels[:, : converted.config.num_channels]
    with torch.no_grad():
        torch.testing.assert_close(
            converted(pixels).logits, model(pixels), atol=1e-5, rtol=1e-5
        )


def test_it_is_converted_saved_and_loaded_like_any_other(pair, tmp_path):
    model, converted = pair
    pixels = images(2, converted.config.image_size)
    pixels = pixels[:, : converted.config.num_channels]
    expected, _ = mmtransmamba.convert(converted, ratio=0.5)
    hybrid, report = mmtransmamba.convert(model, ratio=0.5)
    assert hybrid.config.layer_types.count('linear_attention') == 1
    assert type(hybrid) is type(expected)
    hybrid.save_pretrained(tmp_path)
    again = mmtransmamba.load(tmp_path)
    with torch.no_grad():
        logits = hybrid(pixels).logits
        torch.testing.assert_close(logits, expected(pixels).logits)
        torch.testing.assert_close(again(pixels).logits, logits)


def test_teachers_dtypes_and_modes_are_followed():
    half = as_transformers(of_timm().to(torch.bfloat16).train())
    assert half.dtype == torch.bfloat16 and half.training
    teacher = TimmTeacher(
        dict(model_name='vit_tiny_patch16_224', **TIMM), checkpoint='random'
    )
    assert isinstance(as_transformers(teacher), ViTForImageClassification)
    vit = as_transformers(of_timm())
    assert as_transformers(vit) is vit and as_transformers('folder') == 'folder'
    assert plan_conversion(of_timm()).config.mamba_layers == [0, 1]


def test_the_original_keeps_its_weights():
    model = of_timm('deit3_small_patch16_224')
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hybrid, _ = mmtransmamba.convert(model)
    with torch.no_grad():
        for parameter in hybrid.parameters():
            parameter.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: of_timm(global_pool='avg'), "classifies from 'avg'"),
        (lambda: of_timm(class_token=False, global_pool='avg'), "from 'avg'"),
        (lambda: of_timm(qk_norm=True), r'names are unknown.*q_norm'),
        (lambda: of_timm(reg_tokens=2), 'with reg_token'),
        (lambda: of_timm(pre_norm=True), 'with norm_pre'),
        (lambda: of_timm(pos_embed='none'), 'without pos_embed'),
        (lambda: of_timm(final_norm=False), 'without norm.weight'),
        (lambda: of_timm(num_classes=0), 'without head.weight'),
        (lambda: of_timm(img_size=(16, 24)), 'not square'),
        (lambda: of_timm(act_layer='mish'), 'Mish'),
        (
            lambda: timm.create_model('swin_tiny_patch4_window7_224'),
            'SwinTransformer of timm; accepted are VisionTransformer',
        ),
        (
            lambda: of_mmpretrain(
                out_type='avg_featmap', with_cls_token=False, head='LinearClsHead'
            ),
            "classifies from 'avg_featmap'",
        ),
        (lambda: of_mmpretrain(pre_norm=True), 'with norm_pre'),
        (
            lambda: of_mmpretrain(head_options=dict(hidden_dim=8)),
            'names are unknown.*pre_logits',
        ),
        (
            lambda: of_mmpretrain(neck=dict(type='GlobalAveragePooling')),
            'with a neck; accepted is',
        ),
        (
            lambda: of_mmpretrain('DeiT3'),
            'around a DeiT3 of mmpretrain; accepted are VisionTransformer',
        ),
        (lambda: of_mmpretrain().backbone, 'without a head; accepted is'),
        (
            lambda: MMPRETRAIN.build(
                dict(
                    type='ImageClassifier',
                    backbone=dict(type='ResNet', depth=18),
                    head=dict(type='LinearClsHead', **_HEAD),
                )
            ),
            'around a ResNet of mmpretrain; accepted are VisionTransformer',
        ),
    ],
)
def test_other_layouts_are_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        mmtransmamba.convert(build())


def test_a_model_that_computes_something_else_is_refused():
    """Even if names and shapes are those of a plain ViT."""
    model = of_timm()
    model.blocks[1].drop_path1 = nn.Dropout1d(0.0)
    mmtransmamba.convert(model)
    model.blocks[1].mlp.drop1 = nn.Sigmoid()
    with pytest.raises(ValueError, match='something else than a plain ViT'):
        mmtransmamba.convert(model)
