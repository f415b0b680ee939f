"""Every config of the small VQA sets trains and answers, with sizes shrunk."""

from pathlib import Path

import pytest
import torch
from config_runs import (
    CONFIG_DIR,
    LOADERS,
    evaluate,
    train,
)
from mmengine.config import Config
from mmengine.runner import Runner
from tiny_easy_vqa import write_easy_vqa

from mmtransmamba.datasets import EasyVQAPatches, ShapesCells
from mmtransmamba.datasets.easy_vqa import words_of
from mmtransmamba.datasets.shapes_vqa import words
from mmtransmamba.datasets.vqa_start import write_start
from mmtransmamba.registry import DATASETS, MODELS
from mmtransmamba.transfer.convert import convert

SHAPES = sorted((CONFIG_DIR / 'quickstart').glob('vqa_*.py'))
EASY = sorted((CONFIG_DIR / 'multimodal' / 'easy_vqa').glob('*.py'))
CONFIGS = {f'{path.parent.name}/{path.stem}': path for path in SHAPES + EASY}
SMALL = dict(hidden_size=24, intermediate_size=32)
STUDENTS = {
    'hybrid': dict(layers='interleaved', ratio=0.75),
    'pure': dict(ratio=1.0),
}
TOWERS = {'quickstart': 'quickstart/vqa_tower', 'easy_vqa': 'easy_vqa/easy_vqa_tower'}
TEACHERS = {
    'quickstart': 'quickstart/vqa_teacher',
    'easy_vqa': 'easy_vqa/easy_vqa_teacher',
}
LATER = {2: ['init:mimic', 'stage1'], 3: ['init:mimic', 'stage1', 'stage2']}


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS[name])


def build(cfg: Config):
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def shrink(cfg: Config, root: Path) -> Config:
    """Sizes and data for seconds, and paths below ``root``."""
    for part in LOADERS:
        if part not in cfg:
            continue
        cfg[part].batch_size = 3
        dataset = cfg[part].dataset
        dataset.processor = str(root / 'start')
        if dataset.type.startswith('mmtransmamba.EasyVQA'):
            dataset.data_root = str(root)
        else:
            dataset.num_scenes = 4
    model = cfg.model
    if 'processor' in model:
        model.processor = str(root / 'start')
    if model.type == 'mmtransmamba.PatchClassifier':
        model.config.update(SMALL)
    elif 'vision' in model:
        model.vision, model.language = str(root / 'tower'), str(root / 'start')
    else:
        model.teacher.path = str(root / 'teacher')
        stage = int(model.stage[-1])
        kind = 'pure' if 'pure' in cfg.filename else 'hybrid'
        model.student.path = str(
            root / ('teacher' if stage == 1 else f'{kind}{stage - 1}')
        )
    return cfg


@pytest.fixture(scope='module')
def roots(tmp_path_factory) -> dict[str, Path]:
    """By the set, a folder of what its configs start from."""
    found = {}
    for name in ('quickstart', 'easy_vqa'):
        root = found[name] = tmp_path_factory.mktemp(name)
        text = dict(SMALL, num_attention_heads=2, num_key_value_heads=2)
        if name == 'quickstart':
            write_start(root / 'start', words(), 36, 12, **text)
        else:
            write_easy_vqa(root, 'train')
            write_easy_vqa(root, 'test')
            write_start(root / 'start', words_of(root), 64, 16, **text)
        tower = build(shrink(load(TOWERS[name]), root))
        tower.tower.save_pretrained(root / 'tower')
        tower.companions.save(root / 'tower')
        teacher = build(shrink(load(TEACHERS[name]), root))
        teacher.lm.save_pretrained(root / 'teacher')
        teacher.companions.save(root / 'teacher')
        for kind, options in STUDENTS.items():
            student, _ = convert(root / 'teacher', **options)
            for stage, history in LATER.items():
                student.config.get_text_config().transfer_history = history
                student.save_pretrained(root / f'{kind}{stage - 1}')
                teacher.companions.save(root / f'{kind}{stage - 1}')
    return found


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_answers(name, roots):
    cfg = shrink(load(name), roots[name.split('/')[0]])
    torch.manual_seed(0)
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    model = build(cfg).train()
    # Parameters that begin as zero hold gradients back.
    steps = train(cfg, model, [batch, batch])
    if 'student' in cfg.model:
        assert steps.changed == steps.trained
        kinds = model.student.config.get_text_config().layer_types
        attention = [kind for kind in kinds if kind != 'linear_attention']
        assert len(attention) == (0 if 'pure' in name else 1)
    if cfg.get('val_cfg') is None:
        assert steps.losses['accuracy'] <= 100
        return
    metrics = evaluate(cfg, model)
    assert 0 <= metrics['answers/accuracy'] <= 100
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    categories = {question.category for question in dataset.questions}
    assert {f'answers/{category}' for category in categories} <= set(metrics)


@pytest.mark.parametrize('name', CONFIGS)
def test_length_of_training(name):
    cfg = load(name)
    assert cfg.param_scheduler.type == 'mmtransmamba.WSD'
    if cfg.get('val_cfg') is not None:
        assert cfg.train_cfg.val_interval == cfg.train_cfg.max_iters


@pytest.mark.parametrize('pure', ['quickstart/vqa_pure', 'easy_vqa/easy_vqa_pure'])
def test_control_is_as_long_as_the_stages(pure):
    control = load(f'{pure}_scratch').train_cfg.max_iters
    stages = [load(f'{pure}_stage{i}') for i in (1, 2, 3)]
    assert control == sum(cfg.train_cfg.max_iters for cfg in stages)


@pytest.mark.parametrize('folder', ['quickstart', 'easy_vqa'])
@pytest.mark.parametrize('kind', STUDENTS)
def test_stages_follow_each_other(folder, kind):
    prefix = 'vqa' if folder == 'quickstart' else folder
    configs = {i: f'{folder}/{prefix}_{kind}_stage{i}' for i in (1, 2, 3)}
    teacher = f'work_dirs/{CONFIGS[TEACHERS[folder]].stem}/model'
    for i, name in configs.items():
        model = load(name).model
        assert model.stage == f'stage{i}'
        assert model.teacher.path == teacher
        if i == 1:
            assert model.student.path == teacher
        else:
            before = CONFIGS[configs[i - 1]].stem
            assert model.student.path == f'work_dirs/{before}/student'
            assert model.student.convert is None


def test_classes_of_the_towers():
    for name, dataset in zip(
        TOWERS.values(), (ShapesCells, EasyVQAPatches), strict=True
    ):
        assert load(name).model.num_classes == dataset.num_classes
