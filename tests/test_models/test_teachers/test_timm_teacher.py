import pytest
import torch
from tiny_teachers import IMAGE_SIZE, TIMM_DISTILLED, TIMM_VIT

from mmtransmamba.models.teachers import TimmTeacher

SWIN = dict(
    model_name='swin_tiny_patch4_window7_224',
    img_size=IMAGE_SIZE,
    window_size=2,
    embed_dim=8,
    depths=(2, 2, 2),
    num_heads=(1, 2, 4),
    num_classes=5,
)


def images(size=(IMAGE_SIZE, IMAGE_SIZE)):
    return torch.rand(2, 3, *size) * 255


@pytest.mark.parametrize(
    'model',
    [
        TIMM_VIT,
        TIMM_DISTILLED,
        {**TIMM_VIT, 'reg_tokens': 3, 'no_embed_class': True},
        {**TIMM_VIT, 'class_token': False, 'global_pool': 'avg', 'fc_norm': False},
    ],
    ids=['vit', 'distilled', 'registers', 'no_cls'],
)
@torch.no_grad()
def test_vit_against_forward_intermediates(model):
    teacher = TimmTeacher(model, checkpoint='random')
    x = images()
    output = teacher(x)
    final, expected = teacher.model.forward_intermediates(
        teacher.preprocess(x), output_fmt='NLC', return_prefix_tokens=True
    )
    has_prefix = teacher.model.num_prefix_tokens > 0
    for feature, reference in zip(output.layers, expected, strict=True):
        tokens, prefix = reference if has_prefix else (reference, None)
        assert torch.equal(feature.tokens, tokens)
        if has_prefix:
            assert torch.equal(feature.cls, prefix[:, 0])
        else:
            assert feature.cls is None
    torch.testing.assert_close(
        output.feature, final[:, 0] if has_prefix else final.mean(1)
    )
    assert torch.equal(output.logits, teacher.model(teacher.preprocess(x)))


@torch.no_grad()
def test_swin_against_forward_intermediates():
    teacher = TimmTeacher(SWIN, checkpoint='random')
    x = images()
    output = teacher(x)
    final, stages = teacher.model.forward_intermediates(teacher.preprocess(x))
    for feature, stage in zip(output.layers[1::2], stages, strict=True):
        assert feature.grid == tuple(stage.shape[-2:])
        assert torch.equal(feature.tokens, stage.flatten(2).transpose(1, 2))
    torch.testing.assert_close(output.feature, final.mean((1, 2)))
    assert torch.equal(output.logits, teacher.model(teacher.preprocess(x)))


@pytest.mark.parametrize('num_classes', [0, 5])
@torch.no_grad()
def test_average_pooled_vit_gives_the_feature_its_head_reads(num_classes):
    teacher = TimmTeacher(
        {**TIMM_VIT, 'global_pool': 'avg', 'num_classes': num_classes},
        checkpoint='random',
    )
    torch.nn.init.uniform_(teacher.model.fc_norm.weight)
    x = images()
    features = teacher.model.forward_features(teacher.preprocess(x))
    torch.testing.assert_close(
        teacher(x).feature, teacher.model.forward_head(features, pre_logits=True)
    )


SMALL = dict(embed_dim=16, depth=2, num_heads=2, img_size=IMAGE_SIZE, patch_size=8)
OF_MANY_KINDS = {
    'class token after the blocks': dict(SMALL, model_name='cait_xxs24_224'),
    'cross-covariance': dict(SMALL, model_name='xcit_nano_12_p8_224'),
    'lists of lists of blocks': dict(
        model_name='twins_svt_small',
        img_size=64,
        depths=(1, 1, 1, 1),
        embed_dims=(8, 16, 24, 32),
        num_heads=(1, 2, 3, 4),
        mlp_ratios=(2, 2, 2, 2),
        wss=(2, 2, 2, 2),
        sr_ratios=(2, 2, 1, 1),
    ),
    'lists of blocks': dict(
        model_name='coat_lite_tiny',
        embed_dims=(8, 16, 24, 32),
        serial_depths=(1, 1, 1, 1),
    ),
    'maps of both kinds': dict(
        model_name='tiny_vit_5m_224',
        embed_dims=(8, 16, 24, 32),
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 3, 4),
        window_sizes=(2, 2, 2, 2),
    ),
    'a convolution before the classifier': dict(model_name='gernet_s'),
}


@pytest.mark.parametrize('num_classes', [0, 5])
@pytest.mark.parametrize('model', OF_MANY_KINDS.values(), ids=OF_MANY_KINDS)
@torch.no_grad()
def test_the_feature_is_what_the_head_reads(model, num_classes):
    teacher = TimmTeacher(dict(model, num_classes=num_classes), checkpoint='random')
    x = images(teacher.native_size)
    features = teacher.model.forward_features(teacher.preprocess(x))
    expected = teacher.model.forward_head(features, pre_logits=True)
    output = teacher(x)
    torch.testing.assert_close(output.feature, expected)
    for layer, width in zip(output.layers, teacher.layer_dims, strict=True):
        assert layer.tokens.shape == (2, layer.grid[0] * layer.grid[1], width)


@torch.no_grad()
def test_maps_of_both_kinds_against_the_stages():
    teacher = TimmTeacher(OF_MANY_KINDS['maps of both kinds'], checkpoint='random')
    stages = []
    for stage in teacher.model.stages:
        stage.register_forward_hook(lambda module, args, out: stages.append(out))
    output = teacher(images(teacher.native_size))
    for feature, stage in zip(output.layers, stages, strict=True):
        assert feature.grid == tuple(stage.shape[-2:])
        assert torch.equal(feature.tokens, stage.flatten(2).transpose(1, 2))


HIERA = dict(
    model_name='hiera_tiny_224',
    img_size=(64, 64),
    embed_dim=8,
    num_heads=1,
    stages=(1, 2, 1, 1),
)


@pytest.mark.parametrize('layers', [None, ['blocks.0', 'blocks.2', 'blocks.3']])
@torch.no_grad()
def test_windows_of_hiera_become_rows(layers):
    teacher = TimmTeacher(HIERA, checkpoint='random', layers=layers)
    x = images((64, 64))
    _, expected = teacher.model.forward_intermediates(teacher.preprocess(x))
    ends = [0, 2, 3, 4] if layers is None else [0, 1, 2]
    for i, stage in zip(ends, expected, strict=False):
        feature = teacher(x).layers[i]
        assert feature.grid == tuple(stage.shape[-2:])
        assert torch.equal(feature.tokens, stage.flatten(2).transpose(1, 2))
    with pytest.raises(ValueError, match='order of the tokens elsewhere'):
        TimmTeacher(HIERA, checkpoint='random', layers=['blocks.0.mlp'])


@torch.no_grad()
def test_of_two_outputs_of_a_block_that_of_the_image_is_read():
    model = dict(
        model_name='tnt_s_patch16_224',
        img_size=IMAGE_SIZE,
        embed_dim=16,
        inner_dim=4,
        depth=2,
        num_heads_outer=2,
        num_heads_inner=1,
    )
    teacher = TimmTeacher(model, checkpoint='random')
    expected = []
    for block in teacher.model.blocks:
        block.register_forward_hook(lambda module, args, out: expected.append(out[1]))
    output = teacher(images())
    for feature, tokens in zip(output.layers, expected, strict=True):
        assert torch.equal(feature.tokens, tokens[:, 1:])
        assert torch.equal(feature.cls, tokens[:, 0])


def test_a_module_that_does_not_run_is_named():
    with pytest.raises(ValueError, match='not run blocks.0.attn.attn_drop as a'):
        TimmTeacher(TIMM_VIT, checkpoint='random', layers=['blocks.0.attn.attn_drop'])


@torch.no_grad()
def test_convolutional_models_go_by_feature_info():
    teacher = TimmTeacher(
        dict(model_name='resnet10t', num_classes=0), checkpoint='random', input_size=64
    )
    assert teacher.num_classes is None and teacher(images()).logits is None
    x = teacher.preprocess(images())
    final, stages = teacher.model.forward_intermediates(x)
    assert teacher.layer_grids == tuple(tuple(s.shape[-2:]) for s in stages)
    assert teacher.feature_dim == final.shape[1]


def test_normalisation_is_the_models():
    teacher = TimmTeacher(
        TIMM_VIT, checkpoint='random'
    )  # vit_tiny_patch16_224 uses 0.5, not ImageNet's
    assert teacher.mean.flatten().tolist() == [127.5] * 3


def test_dynamic_image_size():
    teacher = TimmTeacher({**TIMM_VIT, 'dynamic_img_size': True}, checkpoint='random')
    assert teacher(images((24, 48))).layers[0].grid == (3, 6)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(model='deit_tiny_patch16_244'), 'Similar names: deit_tiny_patch16_224'),
        (dict(model=dict(num_classes=3)), "a dict with 'model_name'"),
        (
            dict(model='vit_tiny_patch16_224', pretrained=True, checkpoint='x.pth'),
            'not both',
        ),
        (dict(model='vit_tiny_patch16_224'), "Give checkpoint=FILE, or .*'random'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TimmTeacher(**kwargs)
