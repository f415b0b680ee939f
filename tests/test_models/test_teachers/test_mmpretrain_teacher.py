import copy

import pytest
import torch
from tiny_teachers import IMAGE_SIZE, MM_DISTILLED, MM_VIT, NORMALISATION

from mmtransmamba.models.teachers import MMPretrainTeacher

SWIN = dict(
    type='SwinTransformer',
    arch=dict(embed_dims=8, depths=[2, 2, 2], num_heads=[1, 2, 4]),
    img_size=IMAGE_SIZE,
    patch_size=4,
    window_size=2,
    out_indices=(0, 1, 2),
)


def images(size=(IMAGE_SIZE, IMAGE_SIZE)):
    return torch.rand(2, 3, *size) * 255


def normalised(x):
    mean, std = (torch.tensor(NORMALISATION[k]).view(3, 1, 1) for k in ('mean', 'std'))
    return (x - mean) / std


@pytest.mark.parametrize('model', [MM_VIT, MM_DISTILLED], ids=['vit', 'distilled'])
@torch.no_grad()
def test_vit_against_out_indices_and_head(model):
    teacher = MMPretrainTeacher(model, 'random')
    torch.nn.init.normal_(teacher.model.head.layers.head.weight)
    x = images()
    output = teacher(x)
    backbone = teacher.model.backbone
    backbone.out_indices, backbone.out_type = [0, 1, 2], 'raw'
    raw = backbone(normalised(x))
    extra = backbone.num_extra_tokens
    for feature, tokens in zip(output.layers[:2], raw[:2], strict=True):
        torch.testing.assert_close(feature.tokens, tokens[:, extra:])
        torch.testing.assert_close(feature.cls, tokens[:, 0])
    torch.testing.assert_close(output.feature, raw[2][:, 0])
    torch.testing.assert_close(backbone.ln1(output.layers[2].cls), raw[2][:, 0])
    backbone.out_type, backbone.out_indices = 'cls_token', [2]
    torch.testing.assert_close(output.logits, teacher.model(normalised(x)))


@torch.no_grad()
def test_swin_against_its_stages():
    model = dict(
        type='ImageClassifier',
        backbone=SWIN,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=32),
    )
    teacher = MMPretrainTeacher(model, 'random', **NORMALISATION)
    assert teacher.layer_dims == (8, 8, 16, 16, 32, 32)
    assert teacher.layer_grids == ((8, 8),) * 2 + ((4, 4),) * 2 + ((2, 2),) * 2
    x = images()
    output = teacher(x)
    stages = teacher.model.backbone(normalised(x))
    for i, stage in enumerate(stages):
        feature = output.layers[2 * i + 1]
        tokens = getattr(teacher.model.backbone, f'norm{i}')(feature.tokens)
        torch.testing.assert_close(tokens, stage.flatten(2).transpose(1, 2))
    torch.testing.assert_close(output.feature, stages[-1].mean((2, 3)))
    torch.testing.assert_close(output.logits, teacher.model(normalised(x)))
    assert output.layers[0].cls is None


@torch.no_grad()
def test_pooled_backbone_gives_the_feature_its_head_reads():
    backbone = {**MM_VIT['backbone'], 'out_type': 'avg_featmap', 'final_norm': False}
    teacher = MMPretrainTeacher(backbone, 'random', **NORMALISATION)
    x = images()
    torch.testing.assert_close(teacher(x).feature, teacher.model(normalised(x))[0])


WITHOUT_FINAL_NORM = {
    'a norm after the stage': (
        dict(
            type='PCPVT',
            arch=dict(
                embed_dims=[8, 16, 24, 32],
                depths=[1, 1, 1, 1],
                num_heads=[1, 2, 3, 4],
                patch_sizes=[4, 2, 2, 2],
                strides=[4, 2, 2, 2],
                mlp_ratios=[2, 2, 2, 2],
                sr_ratios=[2, 2, 1, 1],
            ),
            norm_after_stage=[False, False, False, True],
        ),
        32,
    ),
    'a norm of the class token': (
        dict(
            type='TNT',
            arch=dict(
                embed_dims_outer=16,
                embed_dims_inner=4,
                num_layers=2,
                num_heads_outer=2,
                num_heads_inner=1,
            ),
            img_size=64,
        ),
        16,
    ),
    'a convolution': (dict(type='MobileViT', arch='xx_small'), 320),
}


@pytest.mark.parametrize(
    ('backbone', 'width'), WITHOUT_FINAL_NORM.values(), ids=list(WITHOUT_FINAL_NORM)
)
@torch.no_grad()
def test_the_feature_is_what_the_head_reads(backbone, width):
    tokens = backbone['type'] == 'TNT'
    model = dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=None if tokens else dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=width),
    )
    teacher = MMPretrainTeacher(model, 'random', input_size=64, **NORMALISATION)
    for parameter in teacher.model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    output = teacher(images((64, 64)))
    torch.testing.assert_close(teacher.model.head.fc(output.feature), output.logits)


def test_another_image_size_resamples_the_position_embedding():
    output = MMPretrainTeacher(MM_VIT, 'random')(images((24, 48)))
    assert output.layers[0].grid == (3, 6)


def test_model_by_name():
    teacher = MMPretrainTeacher('deit-tiny_4xb256_in1k', 'random', input_size=224)
    assert (teacher.num_layers, teacher.feature_dim, teacher.num_classes) == (
        12,
        192,
        1000,
    )
    assert teacher.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    with pytest.raises(ValueError, match="model='deit-tiny' is neither.*deit-tiny_4x"):
        MMPretrainTeacher('deit-tiny')


def test_the_config_is_not_changed():
    config = copy.deepcopy(MM_VIT)
    MMPretrainTeacher(config, 'random')
    assert config == MM_VIT


def test_config_file(tmp_path):
    file = tmp_path / 'teacher.py'
    preprocessor = MM_VIT['data_preprocessor']
    model = {k: v for k, v in MM_VIT.items() if k != 'data_preprocessor'}
    file.write_text(f'model = {model}\ndata_preprocessor = {preprocessor}\n')
    teacher = MMPretrainTeacher(str(file), 'random')
    assert teacher.mean.flatten().tolist() == NORMALISATION['mean']
    assert teacher.num_classes == 5


def test_pretrained_init_cfg_is_honoured(tmp_path):
    file = tmp_path / 'classifier.pth'
    source = MMPretrainTeacher(MM_VIT, 'random')
    torch.save({'state_dict': source.model.state_dict()}, file)
    init_cfg = dict(type='Pretrained', checkpoint=str(file))
    loaded = MMPretrainTeacher({**MM_VIT, 'init_cfg': init_cfg})
    x = images()
    assert torch.equal(loaded(x).feature, source(x).feature)


def test_init_cfg_with_a_missing_file():
    init_cfg = dict(type='Pretrained', checkpoint='nowhere.pth')
    with pytest.raises(FileNotFoundError, match='nowhere.pth.*Give checkpoint=FILE'):
        MMPretrainTeacher({**MM_VIT, 'init_cfg': init_cfg})


def test_bfloat16_with_masks_in_float32():
    """Swin adds float32 masks to its scores."""
    exact = MMPretrainTeacher(SWIN, 'random', **NORMALISATION)
    rough = MMPretrainTeacher(SWIN, 'random', **NORMALISATION, dtype='bfloat16')
    rough.model.load_state_dict(exact.model.state_dict())
    x = images()
    torch.testing.assert_close(rough(x).feature, exact(x).feature, atol=0.1, rtol=0.1)


def test_normalisation_must_be_known():
    with pytest.raises(ValueError, match='no data_preprocessor.*mean='):
        MMPretrainTeacher(MM_VIT['backbone'], 'random')


def test_other_backbones_need_named_layers():
    resnet = dict(type='ResNet', depth=18, base_channels=4, stem_channels=4)
    with pytest.raises(ValueError, match="ResNet keeps its blocks .*'layer1'"):
        MMPretrainTeacher(resnet, 'random', **NORMALISATION)
    teacher = MMPretrainTeacher(
        resnet, 'random', layers=['layer3', 'layer4'], input_size=64, **NORMALISATION
    )
    assert teacher.layer_grids == ((4, 4), (2, 2))


def test_without_weights_it_is_refused():
    with pytest.raises(
        ValueError, match="Give checkpoint=FILE, or checkpoint='random'"
    ):
        MMPretrainTeacher(MM_VIT, **NORMALISATION)
