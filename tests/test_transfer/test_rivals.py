"""Terms of other methods, against their definitions written out."""

import math
from types import SimpleNamespace

import pytest
import torch
from tiny_distillers import build

from mmtransmamba.models.taps import LayerFeature
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.alignment import TeacherTokens


def loss_of(kind, batch, **arguments):
    term = MODELS.build(dict(type=f'mmtransmamba.{kind}', **arguments))
    return term(batch)['']


def huber(a, b):
    d = abs(a - b)
    return d - 0.5 if d > 1 else d * d / 2


def features(seed, count, width):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator)


def test_hard_labels_are_the_teachers_choice():
    logits, said = features(0, 3, 5), features(1, 3, 5)
    batch = SimpleNamespace(logits=logits, teacher=SimpleNamespace(logits=said))
    wanted = -sum(
        logits[i].log_softmax(0)[int(said[i].argmax())].item() for i in range(3)
    )
    assert loss_of('HardLabelTerm', batch, weight=2.0).item() == pytest.approx(
        2 * wanted / 3, rel=1e-5
    )


def test_relations_are_distances_and_angles():
    student, teacher = features(0, 4, 6).requires_grad_(), features(1, 4, 3)

    def distances(f):
        lengths = [[math.dist(a, b) for b in f.tolist()] for a in f.tolist()]
        mean = sum(map(sum, lengths)) / 12
        return [[v / mean for v in row] for row in lengths]

    def angle(f, i, j, k):
        u, v = f[j] - f[i], f[k] - f[i]
        if not (u.any() and v.any()):
            return 0.0
        return float(u @ v / (u.norm() * v.norm()))

    batch = SimpleNamespace(feature=student, teacher=SimpleNamespace(feature=teacher))
    own, other = distances(student.detach()), distances(teacher)
    far = sum(huber(own[i][j], other[i][j]) for i in range(4) for j in range(4)) / 16
    s = student.detach()
    turned = [
        huber(angle(s, i, j, k), angle(teacher, i, j, k))
        for i in range(4)
        for j in range(4)
        for k in range(4)
    ]
    loss = loss_of('RelationTerm', batch, distance=2.0, angle=3.0)
    assert loss.item() == pytest.approx(2 * far + 3 * sum(turned) / 64, rel=1e-4)
    loss.backward()
    assert torch.isfinite(student.grad).all() and student.grad.abs().sum() > 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_relations_of_features_that_are_alike_survive_autocast(dtype):
    batch = SimpleNamespace(
        feature=features(0, 6, 768) + 10,
        teacher=SimpleNamespace(feature=features(1, 6, 512) + 20),
    )
    expected = loss_of('RelationTerm', batch, distance=1.0, angle=2.0)
    with torch.autocast('cpu', dtype):
        found = loss_of('RelationTerm', batch, distance=1.0, angle=2.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    moved = SimpleNamespace(feature=batch.feature - 10, teacher=batch.teacher)
    assert loss_of('RelationTerm', moved, distance=1.0, angle=2.0).item() == (
        pytest.approx(expected.item(), rel=1e-3)
    )


@pytest.mark.parametrize('kind', ['same', 'moved'])
def test_relations_ignore_where_the_features_lie_and_how_large_they_are(kind):
    teacher = features(1, 5, 4)
    student = teacher if kind == 'same' else 3 * teacher + 7
    batch = SimpleNamespace(feature=student, teacher=SimpleNamespace(feature=teacher))
    assert loss_of('RelationTerm', batch).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize('count', [1, 2])
def test_relations_of_small_and_of_equal_batches_are_finite(count):
    student = torch.ones(count, 4, requires_grad=True)
    batch = SimpleNamespace(
        feature=student, teacher=SimpleNamespace(feature=features(0, count, 4))
    )
    loss_of('RelationTerm', batch).backward()
    assert torch.isfinite(student.grad).all()


def test_attention_maps_compare_where_tokens_are_large():
    tokens, said = features(0, 4, 3)[None], features(1, 4, 5)[None]
    batch = SimpleNamespace(
        student=SimpleNamespace(layers=[LayerFeature(tokens, (2, 2))]),
        teacher_tokens=TeacherTokens({7: LayerFeature(said, (2, 2))}),
        layer_map=[7],
    )
    maps = [x[0].square().sum(1) for x in (tokens, said)]
    maps = [m / m.norm() for m in maps]
    wanted = (maps[0] - maps[1]).square().sum().item()
    assert loss_of('AttentionMapTerm', batch).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize('arguments', [dict(distance=-1.0), dict(angle=float('nan'))])
def test_factors_that_are_none(arguments):
    with pytest.raises(ValueError, match='RelationTerm: (distance|angle)='):
        MODELS.build(dict(type='mmtransmamba.RelationTerm', **arguments))


def test_hard_labels_need_the_students_classes():
    from tiny_distillers import teacher_config

    with pytest.raises(ValueError, match='HardLabelTerm: the teacher knows 7 classes'):
        build(
            dict(hard=dict(type='mmtransmamba.HardLabelTerm')),
            teacher=teacher_config(num_classes=7),
        )
