"""A distiller learns from a record as from the teacher itself."""

import copy

import pytest
import torch
from mmpretrain.structures import DataSample
from tiny_distillers import ADAPTIVE, DIRECTION, FEATURE, LAYER, LOGITS, build

TERMS = dict(
    logits=LOGITS,
    feature=FEATURE,
    layer=LAYER | dict(weighting=ADAPTIVE),
    direction=DIRECTION,
    hard=dict(type='mmtransmamba.HardLabelTerm'),
    attention=dict(type='mmtransmamba.AttentionMapTerm'),
    relation=dict(type='mmtransmamba.RelationTerm'),
)


def samples(distiller, inputs, layers):
    said = distiller.teacher(distiller.teacher_images(inputs))
    found = []
    for i in range(len(inputs)):
        record = dict(logits=said.logits[i].numpy(), feature=said.feature[i].numpy())
        for layer in layers:
            tokens, grid = said.layers[layer].tokens[i], said.layers[layer].grid
            record[f'layer_{layer}'] = tokens.unflatten(0, grid).numpy()
        sample = DataSample().set_gt_label(i % 5)
        sample.set_field(record, 'teacher_record', field_type='metainfo')
        found.append(sample)
    return found


@pytest.fixture
def distiller():
    return build(copy.deepcopy(TERMS), teacher_layer='last')


def test_losses_are_those_of_the_teacher_which_does_not_run(distiller, monkeypatch):
    torch.manual_seed(0)
    inputs = torch.randn(4, 3, 16, 16)
    recorded = samples(distiller, inputs, [1])
    plain = [DataSample().set_gt_label(i % 5) for i in range(4)]
    wanted = distiller(inputs, plain, mode='loss')
    monkeypatch.setattr(type(distiller.teacher), 'forward', None)
    got = distiller(inputs, recorded, mode='loss')
    assert set(wanted) == set(got)
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-6)
    sum(got.values()).backward()
    grads = [p.grad for p in distiller.student.backbone.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)


def test_what_was_not_recorded_is_named(distiller):
    inputs = torch.randn(2, 3, 16, 16)
    recorded = samples(distiller, inputs, [0])
    with pytest.raises(ValueError, match=r'layer 1 is not recorded, only \[0\]'):
        distiller(inputs, recorded, mode='loss')


def test_batches_that_only_partly_bring_it_are_refused(distiller):
    inputs = torch.randn(2, 3, 16, 16)
    recorded = samples(distiller, inputs, [1])
    with pytest.raises(ValueError, match='1 of 2 samples of a batch'):
        distiller(inputs, [recorded[0], DataSample().set_gt_label(1)], mode='loss')


def test_mixed_images_are_refused(distiller):
    inputs = torch.randn(2, 3, 16, 16)
    recorded = samples(distiller, inputs, [1])
    for sample in recorded:
        sample.set_gt_score(torch.full((5,), 0.2))
    with pytest.raises(ValueError, match='images are mixed'):
        distiller(inputs, recorded, mode='loss')
