"""A teacher on a device of its own."""

from __future__ import annotations

import pytest
import torch
from language_models import make_hybrid, make_teacher, tokens
from mmpretrain.structures import DataSample
from placed import Devices
from tiny_distillers import ADAPTIVE, DIRECTION, FEATURE, LAYER, LOGITS, batch, build
from tiny_llavas import enlarge, learning_batch
from tiny_vlms import tiny_llava
from torch.utils._pytree import tree_map_only

from mmtransmamba.ops.backends import use_backend
from mmtransmamba.transfer import LanguageDistiller
from mmtransmamba.transfer.convert import convert
from mmtransmamba.transfer.teacher_device import device_of_process, moved

HOME, APART = 'cuda:0', 'cuda:1'
KL = dict(type='mmtransmamba.TokenKLTerm')
FORCED = dict(type='mmtransmamba.ForcedLayerTerm')
HIDDEN = dict(type='mmtransmamba.HiddenStatesTerm', weighting=ADAPTIVE)
MIXER = dict(type='mmtransmamba.MixerOutputTerm')
MATRIX = dict(type='mmtransmamba.MixingMatrixTerm')
FUSED = KL | dict(fused=True)


def classification(device):
    layer = dict(LAYER, weighting=ADAPTIVE)
    terms = dict(logits=LOGITS, feature=FEATURE, layer=layer, direction=DIRECTION)
    inputs, samples = batch(2)
    data = dict(inputs=inputs * 60 + 100, data_samples=samples)
    return build(terms, teacher_device=device), data


def language(*terms):
    def make(device):
        teacher = make_teacher()
        student = make_hybrid(teacher)
        named = {str(i): term for i, term in enumerate(terms)}
        model = LanguageDistiller(student, teacher, named, teacher_device=device)
        return model, tokens()

    return make


def vision_language(device):
    teacher = enlarge(tiny_llava())
    student, _ = convert(teacher, [1], init='vkq')
    terms = dict(kl=KL, layer=FORCED)
    model = LanguageDistiller(student, teacher, terms, 'matvlm', teacher_device=device)
    return model, learning_batch((6, 6), images=1)


KINDS = {
    'classification': classification,
    'language': language(KL, FORCED, HIDDEN),
    'mixers': language(MIXER, MATRIX),
    'fused': language(FUSED),
    'vision-language': vision_language,
}


def put(data, device):
    """A batch on a device."""
    return tree_map_only((torch.Tensor, DataSample), lambda part: part.to(device), data)


def step(kind, device):
    """Losses, gradients and the moves between devices of one step."""
    torch.manual_seed(0)
    model, data = KINDS[kind](device)
    # What a GPU would compute in Triton's kernels.
    with Devices() as devices, use_backend('reference'):
        model.to(HOME)
        for place, part in ((HOME, model), (device or HOME, model.teacher)):
            assert {str(p.device) for p in part.parameters()} == {place}
        devices.moves.clear()
        torch.manual_seed(1)
        losses = model(**put(data, HOME), mode='loss')
        assert {str(loss.device) for loss in losses.values()} == {HOME}
    sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return losses, gradients, devices.moves


@pytest.mark.parametrize('kind', KINDS)
def test_a_teacher_apart_teaches_the_same(kind):
    losses, gradients, moves = step(kind, APART)
    expected = step(kind, None)
    constants = {('cpu', HOME)}
    assert moves - constants == {(HOME, APART), (APART, HOME)}
    assert expected[2] <= constants
    assert gradients
    torch.testing.assert_close(losses, expected[0])
    torch.testing.assert_close(gradients, expected[1])


@pytest.mark.parametrize('kind', ['classification', 'language', 'vision-language'])
def test_a_teacher_apart_answers_in_validation(kind):
    answers = []
    for device in (APART, None):
        torch.manual_seed(0)
        model, data = KINDS[kind](device)
        with Devices(), use_backend('reference'):
            model.to(HOME)
            answers.append(model.teacher_predict(put(data, HOME)))
    assert answers[0] is not None
    if kind == 'classification':
        answers = [[sample.pred_score for sample in answer] for answer in answers]
    torch.testing.assert_close(*answers)


def test_tensors_of_two_devices_do_not_meet():
    with Devices():
        one, other = torch.ones(2).to(HOME), torch.ones(2, device=APART)
        with pytest.raises(AssertionError, match="'cuda:0', 'cuda:1'"):
            one + other
        with pytest.raises(AssertionError, match="'cpu', 'cuda:0'"):
            one + torch.ones(2)
        assert str((one + 1).device) == HOME


def test_a_device_for_each_process(monkeypatch):
    assert device_of_process(None) is None
    assert device_of_process('cuda:3') == torch.device('cuda:3')
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert device_of_process(['cuda:2', 'cuda:3']) == torch.device('cuda:3')


@pytest.mark.parametrize(
    'given, message',
    [
        ('gpu0', "model.teacher_device='gpu0' is not a device"),
        (['cuda:1'], 'has no device for process 1'),
    ],
)
def test_a_wrong_device_is_named(given, message, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '1')
    with pytest.raises(ValueError, match=message):
        device_of_process(given)


def test_moving_keeps_types():
    output = dict(a=(torch.ones(2), None), b=[torch.zeros(1)], c='text')
    found = moved(output, torch.device('meta'))
    assert found['a'][0].device.type == found['b'][0].device.type == 'meta'
    assert found['a'][1] is None
    assert found['c'] == 'text'
