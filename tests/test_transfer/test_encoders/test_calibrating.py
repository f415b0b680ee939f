"""Mixers of encoders fitted to the attention on images."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_encoders import images, tiny_encoder
from transformers import ViTImageProcessorFast

import mmtransmamba
from mmtransmamba.models.folders.encoder import PretrainedEncoder
from mmtransmamba.models.vision import EncoderMixer
from mmtransmamba.transfer.convert.calibrating import MixerFit
from mmtransmamba.transfer.convert.encoder_conversion import (
    ImageFit,
    read_images,
    split_images,
)


def errors(name, init, **options):
    """Squared distance of the mixers' outputs from the attention's on other images."""
    teacher, pixels = tiny_encoder(name), images(8, seed=3)
    hybrid, report = mmtransmamba.convert(
        teacher, init=init, calibration=[images(24)], **options
    )
    blocks = teacher.get_submodule(type(hybrid).block_list)
    mixers = [m for m in hybrid.modules() if isinstance(m, EncoderMixer)]
    found = []
    for block, mixer in zip(blocks, mixers, strict=True):
        getattr(block, type(hybrid).attention_name).register_forward_hook(
            lambda module, args, kwargs, output, mixer=mixer: found.append(
                float((mixer(*args, **kwargs)[0] - output[0]).square().mean())
            ),
            with_kwargs=True,
        )
    with torch.no_grad():
        teacher(pixels)
    return found, report


@pytest.mark.parametrize('mixer', ['Mamba2', 'GatedDeltaNet'])
def test_calibrated_mixers_are_nearer_to_the_attention(mixer):
    name = 'ViTForImageClassification'
    before, _ = errors(name, 'mimic', mixer=mixer)
    closed, report = errors(name, 'calibrate', mixer=mixer, calibration_steps=0)
    after, _ = errors(name, 'calibrate', mixer=mixer, calibration_steps=10)
    assert len(before) == 2
    assert all(a < b for a, b in zip(closed, before, strict=True))
    assert sum(after) < sum(closed)
    assert report.proof.images == 3 and report.proof.kl > 0
    assert 'fitted on 21 images, 0 steps' in str(report)


@pytest.mark.parametrize('mixer', ['Mamba2', 'GatedDeltaNet'])
def test_a_small_output_at_the_class_token_is_fitted_too(mixer):
    def error(fit_class):
        hybrid, _ = mmtransmamba.convert(tiny_encoder('ViTModel'), [0], mixer=mixer)
        (module,) = (m for m in hybrid.modules() if isinstance(m, EncoderMixer))
        fit = fit_class(module)
        generator = torch.Generator().manual_seed(0)
        inputs, target = torch.randn(2, 40, 17, module.d_inner, generator=generator)
        target[:, :1] *= 0.02
        call = SimpleNamespace(mixed=target, heads=target, arguments={})
        fit.see_output(inputs, call)
        fit.finish()
        with torch.no_grad():
            return float((module(inputs)[0] - target)[:, :1].square().mean())

    assert error(ImageFit) < error(MixerFit) / 2


@pytest.mark.parametrize(
    'name, prefix',
    [('ViTModel', 1), ('Dinov2WithRegistersModel', None), ('SiglipVisionModel', 0)],
)
def test_groups_of_tokens_weigh_the_same(name, prefix):
    hybrid, _ = mmtransmamba.convert(tiny_encoder(name), layers=[0])
    (mixer,) = (m for m in hybrid.modules() if isinstance(m, EncoderMixer))
    first = mixer.config.prefix_tokens
    assert first == prefix or (prefix is None and first > 1)
    target = torch.randn(3, first + 9, 8)
    target[:, :first] *= 0.01
    weights = ImageFit(mixer).importance(target)
    assert weights.mean() == pytest.approx(1)
    squares = target.square().mean((0, 2)) * weights
    if first:
        assert squares[:first].sum() == pytest.approx(float(squares[first:].sum()))
    else:
        assert (weights == 1).all()


def test_rotary_positions_reach_the_fit():
    before, _ = errors('DINOv3ViTModel', 'mimic')
    after, report = errors('DINOv3ViTModel', 'calibrate', calibration_steps=2)
    assert sum(after) < sum(before) and report.proof.kl is None


def test_distances_are_those_between_patches_in_front_and_behind():
    hybrid, _ = mmtransmamba.convert(tiny_encoder('ViTModel'), layers=[0])
    (mixer,) = (m for m in hybrid.modules() if isinstance(m, EncoderMixer))
    fit = ImageFit(mixer)
    weights = torch.zeros(1, 2, 5, 5)
    weights[0, :, 0, 1:] = 1  # of the class token
    weights[0, 0, 4, 1] = 0.5  # three in front
    weights[0, 1, 1, 3] = 0.25  # two behind
    weights[0, 1, 2, 2] = 1  # itself
    fit.see_weights(weights)
    spans = fit.distance / fit.mass.clamp_min(1e-9)
    assert spans.tolist() == [[3, 0], [0, 2]]


def test_a_teacher_in_a_folder_runs_on_the_gpu_as_a_copy(tmp_path, monkeypatch):
    model = tiny_encoder('ViTModel')
    model.save_pretrained(tmp_path)
    moved = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(
        torch.nn.Module, 'to', lambda self, device: moved.append(device) or self
    )
    opened = PretrainedEncoder(tmp_path)
    assert opened.on_its_device() is not opened.load()
    assert moved == ['cuda']
    # The caller says where a model in memory is.
    assert PretrainedEncoder(model).on_its_device() is model
    assert moved == ['cuda']


@pytest.mark.parametrize(('files', 'count'), [(12, 64), (3, 20), (1, 64)])
def test_images_are_of_all_folders_and_so_are_those_that_are_held_out(
    files, count, tmp_path
):
    """Ten folders as of classes, whose images have a grey value of their own."""
    for label in range(10):
        folder = tmp_path / 'images' / f'class{label}'
        folder.mkdir(parents=True)
        for number in range(files):
            image = Image.new('RGB', (16, 16), (20 * label, number, 0))
            image.save(folder / f'{number:02}.png')
    size = dict(height=16, width=16)
    ViTImageProcessorFast(
        size=size, do_rescale=False, do_normalize=False
    ).save_pretrained(tmp_path)
    pixels = torch.cat(read_images(tmp_path / 'images', tmp_path, count))
    count = min(count, 10 * files)
    assert len(pixels) == count
    labels = (pixels[:, 0, 0, 0] / 20).long()
    share = torch.bincount(labels, minlength=10)
    assert share.max() - share.min() <= 1
    _, held = split_images([pixels])
    held = {int(x[0, 0, 0] / 20) for x in torch.cat(held)}
    assert len(held) >= min(10, count // 8) - 1
