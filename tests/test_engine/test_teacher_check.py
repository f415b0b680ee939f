"""The teacher's own figures at the first validation, and the order of its classes."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from tiny_teachers import NORMALISATION

from mmtransmamba.engine.hooks import TeacherCheckHook
from mmtransmamba.models.teachers import TransformersTeacher
from mmtransmamba.models.teachers.class_order import ClassOrderError, order_of_classes
from mmtransmamba.registry import MODELS

DIGITS = list('0123456789')
SHUFFLED = list('3142590786')
VIT = dict(
    model_type='vit',
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=8,
    patch_size=4,
    num_channels=1,
)


def vit(names):
    """Fields of a ViT with names for its classes, or only so many classes."""
    if isinstance(names, int):
        return VIT | dict(num_labels=names)
    labels = dict(enumerate(names))
    kind = ['ViTForImageClassification']
    return VIT | dict(
        architectures=kind, id2label=labels, label2id={v: k for k, v in labels.items()}
    )


def teacher_config(names, **options):
    return dict(
        type='mmtransmamba.TransformersTeacher',
        checkpoint='random',
        model=vit(names),
        mean=[127.5],
        std=[127.5],
        **options,
    )


@pytest.fixture
def config(repo_dir, tmp_path) -> Config:
    cfg = Config.fromfile(repo_dir / 'configs' / 'quickstart' / 'digits_transfer.py')
    cfg.merge_from_dict(
        {
            'model.student.backbone.arch': dict(embed_dims=16, depth=1),
            'model.student.head.in_channels': 16,
            'train_dataloader.batch_size': 30,
            'train_dataloader.dataset.proportion': 0.02,
            'train_cfg.max_epochs': 2,
            'train_cfg.val_interval': 1,
            'param_scheduler': [],
            'log_level': 'WARNING',
            'work_dir': str(tmp_path / 'run'),
            'default_hooks.checkpoint.interval': 5,
        }
    )
    cfg.model.terms = dict(logits=dict(type='mmtransmamba.LogitsTerm'))
    cfg.custom_hooks = []
    return cfg


def train(cfg, names, **options) -> Runner:
    cfg.model.teacher = teacher_config(names, **options)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def scalars(folder):
    lines = next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [line for line in found if any(k.startswith('teacher/') for k in line)]


def test_its_accuracy_is_logged_once(config, tmp_path):
    runner = train(config, 10)
    (logged,) = scalars(tmp_path / 'run')
    right = total = 0
    for data in runner.val_dataloader:
        batch = runner.model.data_preprocessor(data, False)
        images = runner.model.teacher_images(batch['inputs'])
        best = runner.model.teacher(images).logits.argmax(1)
        labels = torch.cat([s.gt_label for s in batch['data_samples']])
        right, total = right + int((best == labels).sum()), total + len(labels)
    assert logged['teacher/accuracy/top1'] == pytest.approx(100 * right / total)
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'by chance it would be in 10 %' in log  # its weights are random


def test_metrics_of_each_class_are_told_and_logged_where_they_are_numbers(
    config, tmp_path
):
    single = dict(type='SingleLabelMetric', average=None, items=('recall',))
    config.val_evaluator = [config.val_evaluator, single]
    config.custom_hooks = [dict(type='mmtransmamba.ProgressBarHook')]
    train(config, 10)
    (logged,) = scalars(tmp_path / 'run')
    assert 'teacher/accuracy/top1' in logged
    assert not any('recall' in name for name in logged if name.startswith('teacher/'))


@pytest.mark.parametrize(
    'classes, accuracy, warns',
    [(2, 97, False), (2, 56, False), (2, 54, True), (3, 65, False), (3, 35, True)]
    + [(1000, 0.19, True), (1000, 0.21, False), (10, 18, True), (10, 20, False)],
)
def test_hardly_better_than_chance(classes, accuracy, warns):
    said = []
    runner = SimpleNamespace(
        logger=SimpleNamespace(log=lambda level, text: said.append(text))
    )
    model = SimpleNamespace(teacher=SimpleNamespace(num_classes=classes))
    found = {'accuracy/top1': accuracy}
    TeacherCheckHook._warn_of_chance(runner, model, found)
    assert len(said) == warns


@pytest.mark.parametrize('same', [DIGITS, [f'Digit {d}, {d}' for d in DIGITS]])
def test_the_same_order_is_accepted(same, config, tmp_path):
    train(config, same)
    assert len(scalars(tmp_path / 'run')) == 1


def test_another_order_is_refused(config):
    with pytest.raises(ClassOrderError, match="'0', is number 6 .* number 0 is '3'"):
        train(config, SHUFFLED)


def test_other_names_are_warned_of(config, tmp_path):
    train(config, [f'class_{d}' for d in 'abcdefghij'])
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert "calls its classes 'class_a', 'class_b', 'class_c', …" in log


@pytest.mark.parametrize('names', [SHUFFLED, [*'AB3142590786', 'none']])
def test_classes_are_found_by_their_names(names, config):
    runner = train(config, names, class_order='names')
    plain = TransformersTeacher(vit(names), 'random', mean=[127.5], std=[127.5])
    plain.load_state_dict(runner.model.teacher.state_dict())
    images = 255 * torch.rand(2, 1, 8, 8)
    order = [names.index(d) for d in DIGITS]
    expected = plain(images).logits[:, order]
    torch.testing.assert_close(runner.model.teacher(images).logits, expected)
    assert runner.model.teacher.class_names == DIGITS


def test_names_need_the_hook(config):
    del config.default_hooks['teacher']
    with pytest.raises(ValueError, match='default_hooks.teacher='):
        train(config, SHUFFLED, class_order='names')


def test_random_numbers_are_left_alone(config):
    drawn = []
    for checked in (True, False):
        cfg = config.copy()
        if not checked:
            del cfg.default_hooks['teacher']
        cfg.work_dir += str(checked)
        runner = train(cfg, 10)
        state = runner.model.student.state_dict()
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item(), state))
    assert drawn[0][:3] == drawn[1][:3]
    assert all(torch.equal(v, drawn[1][3][k]) for k, v in drawn[0][3].items())


@pytest.mark.parametrize(
    'order, message',
    [
        ('name', "must be 'names' or a list"),
        ([0, 0], "must be 'names' or a list"),
        ([0, 12], 'from 0 to 9'),
        ([], 'from 0 to 9'),
        ('names', 'the model has no names for its classes'),
    ],
)
def test_orders_that_are_none(order, message):
    with pytest.raises(ValueError, match=message):
        TransformersTeacher(vit(10), 'random', mean=[0.0], std=[1.0], class_order=order)


def test_a_list_chooses_from_the_classes():
    torch.manual_seed(0)
    options = dict(mean=NORMALISATION['mean'][:1], std=NORMALISATION['std'][:1])
    whole = TransformersTeacher(vit(10), 'random', **options)
    torch.manual_seed(0)
    part = TransformersTeacher(vit(10), 'random', class_order=[7, 2], **options)
    images = 255 * torch.rand(2, 1, 8, 8)
    assert part.num_classes == 2
    expected = whole(images).logits[:, [7, 2]]
    torch.testing.assert_close(part(images).logits, expected)


@pytest.mark.parametrize(
    'teacher, dataset, expected',
    [
        (['a', 'b'], ['a', 'b'], [0, 1]),
        (['b', 'a'], ['a', 'b'], [1, 0]),
        (['Sea_Lion', 'ice-cream'], ['ice cream', 'sea lion'], [1, 0]),
        (['tench, Tinca tinca', 'ox'], ['ox', 'tench'], [1, 0]),
        (['ox', 'tench'], ['tench, Tinca tinca', 'ox'], [1, 0]),
        (['crane', 'ox', 'crane'], ['crane', 'ox', 'crane'], [0, 1, 2]),  # ImageNet's
        (['crane', 'ox', 'crane'], ['ox', 'crane', 'crane'], None),
        (['0', '1', '10', '2'], ['0', '1', '2', '10'], [0, 1, 3, 2]),
        (['a', 'b', 'c'], ['c', 'a'], [2, 0]),
        (['a', 'b'], ['a', 'x'], None),
        (['a, x', 'b, x'], ['x', 'b'], None),
        (['a', 'b'], [], []),
    ],
)
def test_order_of_classes(teacher, dataset, expected):
    assert order_of_classes(teacher, dataset) == expected


@pytest.mark.parametrize('batches', [0, -1])
def test_no_batches_are_refused(batches):
    with pytest.raises(ValueError, match='batches=.* must be at least 1'):
        TeacherCheckHook(batches)


MM_TEACHER = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16),
        img_size=8,
        patch_size=4,
        in_channels=1,
    ),
    head=dict(type='VisionTransformerClsHead', num_classes=10, in_channels=16),
)


@pytest.mark.parametrize(
    ('meta', 'names'),
    [
        (dict(dataset_meta=dict(classes=SHUFFLED)), SHUFFLED),
        (dict(dataset_meta=dict(classes=tuple(SHUFFLED))), SHUFFLED),
        (dict(dataset_meta=dict(classes=SHUFFLED[1:])), None),
        (dict(dataset_meta=dict(classes=None)), None),
        (dict(dataset_meta=None), None),
        (dict(), None),
    ],
)
def test_a_checkpoint_of_mmpretrain_has_the_names_of_its_classes(tmp_path, meta, names):
    options = dict(type='mmtransmamba.MMPretrainTeacher', mean=[127.5], std=[127.5])
    random = MODELS.build(dict(options, model=MM_TEACHER, checkpoint='random'))
    assert random.class_names is None
    file = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=random.model.state_dict(), meta=meta), file)
    teacher = MODELS.build(dict(options, model=MM_TEACHER, checkpoint=str(file)))
    assert teacher.class_names == names
    # A backbone alone has no classes.
    backbone = dict(
        options,
        model=MM_TEACHER['backbone'] | dict(type='mmpretrain.VisionTransformer'),
    )
    torch.save(dict(state_dict=random.model.backbone.state_dict(), meta=meta), file)
    assert MODELS.build(dict(backbone, checkpoint=str(file))).class_names is None


def test_the_names_in_a_checkpoint_are_compared_with_the_data_sets(config, tmp_path):
    teacher = dict(
        type='mmtransmamba.MMPretrainTeacher',
        mean=[127.5],
        std=[127.5],
        model=MM_TEACHER,
    )
    random = MODELS.build(dict(teacher, checkpoint='random'))
    file = tmp_path / 'teacher.pth'
    meta = dict(dataset_meta=dict(classes=SHUFFLED))
    torch.save(dict(state_dict=random.model.state_dict(), meta=meta), file)
    config.model.teacher = dict(teacher, checkpoint=str(file))
    with pytest.raises(ClassOrderError, match="class_order='names'"):
        Runner.from_cfg(config).train()
