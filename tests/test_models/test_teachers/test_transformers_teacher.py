import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_encoders import ENCODERS, tiny_encoder
from tiny_teachers import (
    HF_DISTILLED,
    HF_SIZES,
    HF_VIT,
    IMAGE_SIZE,
    NORMALISATION,
    NUM_CLASSES,
)
from transformers import AutoModelForImageClassification

import mmtransmamba
from mmtransmamba.models import CheckpointError
from mmtransmamba.models.teachers import TransformersTeacher

SWIN = dict(
    model_type='swin',
    image_size=IMAGE_SIZE,
    patch_size=4,
    embed_dim=8,
    depths=[2, 2, 2],
    num_heads=[1, 2, 4],
    window_size=2,
    num_labels=NUM_CLASSES,
)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """A test that reached for the hub would depend on the network."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)


def build(model, **kwargs):
    torch.manual_seed(0)
    if isinstance(model, dict):
        kwargs.setdefault('checkpoint', 'random')
    return TransformersTeacher(model, **{**NORMALISATION, **kwargs})


def images(size=(IMAGE_SIZE, IMAGE_SIZE)):
    return torch.rand(2, 3, *size) * 255


VITS = {
    'vit': (HF_VIT, 1),
    'vit_backbone': (dict(model_type='vit', **HF_SIZES), 1),
    'deit': (dict(model_type='deit', num_labels=NUM_CLASSES, **HF_SIZES), 2),
    'deit_distilled': (HF_DISTILLED, 2),
    'dinov2': (dict(model_type='dinov2', num_labels=NUM_CLASSES, **HF_SIZES), 1),
    'dinov2_registers': (dict(model_type='dinov2_with_registers', **HF_SIZES), 5),
    'clip_vision': (dict(model_type='clip_vision_model', **HF_SIZES), 1),
    'clip': (dict(model_type='clip', vision_config=HF_SIZES), 1),
}


@pytest.mark.parametrize(
    'kind, fields',
    [
        *((kind, dict(use_mean_pooling=True)) for kind in ('beit', 'data2vec-vision')),
        *((kind, dict(use_mean_pooling=False)) for kind in ('beit', 'data2vec-vision')),
        ('vit', {}),
    ],
)
@torch.no_grad()
def test_the_feature_is_what_the_classifier_reads(kind, fields):
    config = dict(model_type=kind, num_labels=NUM_CLASSES, **HF_SIZES, **fields)
    teacher = build(config)
    for parameter in teacher.model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    output = teacher(images())
    logits = teacher.model.classifier(output.feature)
    torch.testing.assert_close(logits, output.logits)


PYRAMID = dict(
    num_labels=NUM_CLASSES,
    image_size=IMAGE_SIZE,
    num_encoder_blocks=2,
    depths=[1, 1],
    hidden_sizes=[8, 16],
    num_attention_heads=[1, 2],
    sr_ratios=[2, 1],
    mlp_ratios=[2, 2],
    strides=[4, 2],
    patch_sizes=[7, 3],
)
WITHOUT_FINAL_NORM = {
    'a convolution, then the mean': dict(
        model_type='mobilevit',
        num_labels=NUM_CLASSES,
        hidden_sizes=[8, 12, 16],
        neck_hidden_sizes=[4, 4, 8, 8, 8, 8, 24],
        num_attention_heads=2,
        image_size=64,
    ),
    'a norm over every stage': dict(PYRAMID, model_type='pvt_v2'),
    'stages with norms': dict(PYRAMID, model_type='segformer'),
}


@pytest.mark.parametrize(
    'config', WITHOUT_FINAL_NORM.values(), ids=list(WITHOUT_FINAL_NORM)
)
@torch.no_grad()
def test_without_a_final_norm_the_feature_is_the_classifiers_too(config):
    teacher = build(config)
    for parameter in teacher.model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    output = teacher(images((config['image_size'],) * 2))
    logits = teacher.model.classifier(output.feature)
    torch.testing.assert_close(logits, output.logits)


@torch.no_grad()
def test_windows_of_hiera_become_rows():
    teacher = build(
        dict(
            model_type='hiera',
            num_labels=NUM_CLASSES,
            image_size=[64, 64],
            embed_dim=8,
            depths=[1, 2, 1, 1],
            num_heads=[1, 2, 4, 8],
        )
    )
    x = images((64, 64))
    states = teacher.model.hiera(teacher.preprocess(x), output_hidden_states=True)
    ends, output = [0, 2, 3, 4], teacher(x)
    for i, expected in zip(ends, states.reshaped_hidden_states[1:], strict=True):
        assert output.layers[i].grid == tuple(expected.shape[1:3])
        assert torch.equal(output.layers[i].tokens, expected.flatten(1, 2))
    torch.testing.assert_close(output.feature, states.pooler_output)


def test_a_model_that_masks_at_random_is_refused():
    with pytest.raises(ValueError, match='ViTMAEModel has other outputs each time'):
        build(dict(model_type='vit_mae', **HF_SIZES))


@pytest.mark.parametrize('name', VITS)
@torch.no_grad()
def test_vit_against_hidden_states(name):
    config, prefix = VITS[name]
    teacher = build(config)
    x = images()
    output = teacher(x)
    expected = teacher.model(
        pixel_values=teacher.preprocess(x), output_hidden_states=True
    )
    for feature, tokens in zip(output.layers, expected.hidden_states[1:], strict=True):
        assert feature.grid == (4, 4)
        assert torch.equal(feature.tokens, tokens[:, prefix:])
        assert torch.equal(feature.cls, tokens[:, 0])
    if 'num_labels' in config:
        assert torch.equal(output.logits, expected.logits)
    else:
        assert output.logits is None and teacher.num_classes is None


@torch.no_grad()
def test_final_feature_of_every_kind_of_model():
    x = images()
    dino = build(dict(model_type='dinov2', **HF_SIZES))
    expected = dino.model(dino.preprocess(x)).pooler_output
    assert torch.equal(dino(x).feature, expected)
    clip = build(dict(model_type='clip_vision_model', **HF_SIZES))
    expected = clip.model(clip.preprocess(x)).pooler_output
    assert torch.equal(clip(x).feature, expected)
    siglip = build(dict(model_type='siglip_vision_model', **HF_SIZES))
    expected = siglip.model(siglip.preprocess(x)).last_hidden_state
    output = siglip(x)
    assert torch.equal(siglip.model.post_layernorm(output.layers[-1].tokens), expected)
    torch.testing.assert_close(output.feature, expected.mean(1))
    assert output.layers[-1].cls is None


@torch.no_grad()
def test_swin_against_its_stages():
    teacher = build(SWIN)
    assert teacher.layer_grids == ((8, 8),) * 2 + ((4, 4),) * 2 + ((2, 2),) * 2
    x = images()
    output = teacher(x)
    swin = teacher.model.swin
    expected = swin(teacher.preprocess(x), output_hidden_states=True)
    # The library's states are those after the stage's merging of tokens.
    for i, stage in enumerate(swin.encoder.layers):
        feature = output.layers[2 * i + 1]
        tokens = feature.tokens
        if stage.downsample is not None:
            tokens = stage.downsample(tokens, feature.grid)
        assert torch.equal(tokens, expected.hidden_states[i + 1])
    torch.testing.assert_close(output.feature, expected.pooler_output)


@pytest.mark.parametrize('name', ['vit', 'deit', 'dinov2', 'clip_vision'])
def test_another_image_size_resamples_the_position_embedding(name):
    teacher = build(VITS[name][0])
    assert teacher(images((24, 48))).layers[0].grid == (3, 6)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(1)
    config = transformers.ViTConfig(**HF_SIZES, num_labels=NUM_CLASSES)
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained(tmp_path)
    processor = dict(
        image_processor_type='ViTImageProcessor',
        do_normalize=True,
        do_rescale=True,
        rescale_factor=1 / 255,
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6],
    )
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(processor))
    return tmp_path, model


@torch.no_grad()
def test_folder_gives_weights_and_normalisation(folder):
    path, model = folder
    teacher = TransformersTeacher(str(path))
    assert teacher.mean.flatten().tolist() == pytest.approx([25.5, 51.0, 76.5])
    assert teacher.std.flatten().tolist() == pytest.approx([102.0, 127.5, 153.0])
    x = images()
    expected = model.eval()((x / 255 - teacher.mean / 255) / (teacher.std / 255))
    torch.testing.assert_close(teacher(x).logits, expected.logits)


def test_processor_without_normalisation_only_rescales(folder):
    path, _ = folder
    processor = json.dumps(dict(do_normalize=False, rescale_factor=1 / 255))
    (path / 'preprocessor_config.json').write_text(processor)
    teacher = TransformersTeacher(str(path))
    torch.testing.assert_close(
        teacher.preprocess(torch.full((1, 3, 32, 32), 255.0)), torch.ones(1, 3, 32, 32)
    )


def test_folder_with_missing_weights_is_refused(folder):
    path, _ = folder
    file = path / 'model.safetensors'
    state = load_file(file)
    del state['classifier.weight']
    save_file(state, file, metadata={'format': 'pt'})
    with pytest.raises(CheckpointError, match="1 missing, such as .'classifier.weight"):
        TransformersTeacher(str(path))


def test_weights_of_a_classifier_fit_the_bare_model(folder):
    path, model = folder
    config = json.loads((path / 'config.json').read_text())
    config['architectures'] = ['ViTModel']
    (path / 'config.json').write_text(json.dumps(config))
    teacher = TransformersTeacher(str(path))
    assert teacher.num_classes is None
    expected = model.vit.layernorm.weight
    assert torch.equal(teacher.canonical_state_dict()['norm.weight'], expected)


def test_dict_with_checkpoint_file(folder):
    path, model = folder
    teacher = build(HF_VIT, checkpoint=path / 'model.safetensors')
    state = teacher.model.state_dict()
    assert all(torch.equal(t, state[key]) for key, t in model.state_dict().items())


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(model=dict(model_type='vjt')), ValueError, "'model_type'.='vjt' is no"),
        (dict(model='no/such'), FileNotFoundError, "model='no/such' is not a folder"),
        (
            dict(model='no/such', checkpoint='x.pth'),
            ValueError,
            'a checkpoint goes with a config dict',
        ),
        (
            dict(model=dict(model_type='clip_vision_model', num_labels=3)),
            ValueError,
            "no image classifier for model_type='clip_vision_model'",
        ),
        (dict(model=HF_VIT, mean=None), ValueError, 'no image processor config'),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        build(**kwargs)


def test_without_weights_it_is_refused():
    with pytest.raises(
        ValueError, match="Give checkpoint=FILE, or checkpoint='random'"
    ):
        TransformersTeacher(HF_VIT, **NORMALISATION)


CLASSIFIERS = [name for name in ENCODERS if 'ForImageClassification' in name]


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_a_converted_encoder_is_opened_by_its_class_and_teaches(name, tmp_path):
    hybrid, _ = mmtransmamba.convert(tiny_encoder(name), [0], init='mimic')
    hybrid.eval().save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert type(again).__name__ == f'Hybrid{name}'
    pixels = torch.randn(2, 3, 16, 16)
    expected = hybrid(pixels).logits
    torch.testing.assert_close(again(pixels).logits, expected)
    plain = dict(mean=[0.0] * 3, std=[1.0] * 3)
    teacher = TransformersTeacher(str(tmp_path), **plain)
    torch.testing.assert_close(teacher(pixels).logits, expected)
