"""The parts of every config agree with each other, and with the configs before it."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from config_families import FAMILY_OF, Images, Videos
from config_runs import (
    LATER,
    LOADERS,
    NAMES,
    learning_rates,
    load,
    stage_of,
    strings,
    student,
)
from mmengine.config import Config

from mmtransmamba.models.trainable.stages import STAGES

# Those that only test a model, and those that train one from scratch.
TRAINED = [name for name in FAMILY_OF if name != 'language/stories260k/teacher.py']
STAGED = [
    name
    for name in TRAINED
    if not isinstance(FAMILY_OF[name], Images | Videos)
    and not name.endswith(('_tower.py', 'shapes_teacher.py'))
    and name
    not in (
        'quickstart/vqa_teacher.py',
        'quickstart/vqa_pure_scratch.py',
        'quickstart/vqa_linear.py',
        'quickstart/hybrid_vit/digits_vit_teacher.py',
    )
]

VALIDATED_ON_A_PART = (
    'multimodal/easy_vqa',
    'quickstart/imagenette',
    'quickstart/cifar10_scratch',
    'quickstart/cifar10_transfer',
    'quickstart/hybrid_vit/cifar10_vit',
)


ORIGINS = ('path', 'vision', 'language', 'processor')


def saved_folder(cfg: Config) -> str | None:
    """The folder in its work dir where a config's training leaves a model."""
    hooks = [h for h in cfg.custom_hooks if h.type == 'mmtransmamba.SaveStudentHook']
    return hooks[0].get('folder', 'student') if hooks else None


def before(path: str) -> Config | None:
    """The config whose training writes ``path``; None for a file from elsewhere."""
    if not path.startswith('work_dirs/'):
        return None
    return load(NAMES[Path(path).parts[1]])


def starts(cfg: Config) -> list[str]:
    """All folders that a config's models come from, the nearest first."""
    folders = []
    model = cfg.model
    for part in (model.get('teacher', model), student(cfg)):
        found = [part.get(key) for key in ORIGINS]
        for folder in filter(None, found):
            folders.append(folder)
            if (earlier := before(folder)) is not None:
                folders += starts(earlier)
    return folders


def history(cfg: Config) -> list[str]:
    """The stages that the student has completed when the training begins."""
    part, done = student(cfg), ['init:llava']
    if 'path' in part and (earlier := before(part.path)) is not None:
        done = [*history(earlier), stage_of(earlier) or 'finetuned']
    if part.get('convert'):
        done.append(f'init:{part.convert.init}')
    return done


@pytest.mark.parametrize('name', [name for name in TRAINED if 'xb' in name])
def test_batch_sizes_are_those_of_the_name(name):
    cfg = load(name)
    count, batch = map(int, re.search(r'(\d+)xb(\d+)_', name).groups())
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == count * batch


@pytest.mark.parametrize('name', TRAINED)
def test_loaders_agree(name):
    cfg = load(name)
    train = cfg.train_dataloader
    assert train.sampler.get('batch_size', train.batch_size) == train.batch_size
    if 'max_epochs' in cfg.train_cfg:
        assert train.sampler.type != 'InfiniteSampler'
    if cfg.test_cfg is None:
        return
    if 'max_iters' in cfg.train_cfg:
        # The last iteration is followed by a validation.
        assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0
    assert train.dataset != cfg.val_dataloader.dataset
    if not name.startswith(VALIDATED_ON_A_PART):
        assert cfg.test_dataloader == cfg.val_dataloader


@pytest.mark.parametrize('name', TRAINED)
def test_it_starts_from_what_other_configs_leave(name):
    cfg = load(name)
    for path in strings(cfg.to_dict()):
        if (earlier := before(path)) is None:
            continue
        _, _, left = Path(path).parts
        if left.endswith('.pth'):
            assert left == f'epoch_{earlier.train_cfg.max_epochs}.pth'
        else:
            assert left == saved_folder(earlier)


@pytest.mark.parametrize('name', STAGED)
def test_a_stage_can_start_from_what_the_config_gives_it(name):
    cfg = load(name)
    stage = stage_of(cfg)
    needed, last = STAGES[stage].requires, history(cfg)[-1]
    fits = any(fnmatchcase(last, pattern) for pattern in needed)
    # Another requirement is given only where it is needed.
    assert fits != ('requires' in cfg.model)
    assert cfg.model.get('requires', last) == last
    assert saved_folder(cfg) == ('student' if 'student' in cfg.model else 'model')
    if stage in LATER:
        assert cfg.model.student.convert is None
        assert before(cfg.model.student.path).model.teacher == cfg.model.teacher


@pytest.mark.parametrize('name', STAGED)
def test_processors_come_with_the_models(name):
    cfg = load(name)
    folders = starts(cfg)
    for dataset in (cfg[key].dataset for key in LOADERS):
        # Conversations have a processor, raw text has a tokenizer.
        given = dataset.get('processor', dataset.get('tokenizer'))
        assert given is None or given in folders
    if 'xb' in name:
        subject = Path(name).stem.rpartition('_')[2]
        assert subject in folders[-1].lower()


@pytest.mark.parametrize('name', TRAINED)
def test_the_rate_peaks_at_the_optimizers_and_ends_low(name):
    cfg = load(name)
    # Schedules by iterations are fractions of the training, except for short ones.
    steps = cfg.train_cfg.get('max_iters', 50)
    steps = 1 if cfg.train_cfg.get('max_epochs', 1) > 50 else min(steps, 400)
    if isinstance(cfg.param_scheduler, list) and 'max_epochs' in cfg.train_cfg:
        last = cfg.param_scheduler[-1]
        if not last.get('by_epoch', True):  # counted in iterations of all epochs
            steps = last.end // cfg.train_cfg.max_epochs
    rates = learning_rates(cfg, steps)
    assert max(rates) == pytest.approx(cfg.optim_wrapper.optimizer.lr, rel=1e-2)
    if cfg.param_scheduler is None:
        assert cfg.model.stage == 'transmamba'
        return
    assert rates[0] < 0.6 * max(rates)
    assert rates[-1] < 0.05 * max(rates)
