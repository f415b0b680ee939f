"""Every language config trains and is tested, with sizes shrunk; the papers' values."""

import re
from pathlib import Path

import pytest
import torch
from config_families import optimizer_of
from config_runs import (
    CONFIG_DIR,
    DEPTHS,
    LOADERS,
    convertible,
    evaluate,
    in_float32,
    layers_of,
    logged,
    run,
    teacher_of,
    train,
)
from language_models import make_hybrid, make_teacher
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmtransmamba.models.trainable.stages import STAGES
from mmtransmamba.registry import MODELS, PARAM_SCHEDULERS

FOLDER = CONFIG_DIR / 'language'
CONFIGS = sorted(p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob('*.py'))
TEACHER = 'stories260k/teacher.py'
RECIPES = [name for name in CONFIGS if name != TEACHER]
LATER = {
    'stage2': ['init:mimic', 'stage1'],
    'stage3': ['init:mimic', 'stage1', 'stage2'],
}


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / name)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Folders of tiny models: a Llama, a Phi, and the students of earlier stages."""
    root = tmp_path_factory.mktemp('models')
    for family in ('llama', 'phi'):
        teacher = make_teacher(family, num_hidden_layers=4)
        teacher.save_pretrained(root / family)
        student = make_hybrid(teacher, layers=[1, 2, 3])
        for stage, history in LATER.items():
            student.config.transfer_history = history
            student.save_pretrained(root / f'{family}-{stage}')
    return root


def shrink(cfg: Config, folders: Path) -> Config:
    """Put tiny models and generated tokens in the place of those of the config."""
    for i, name in enumerate(LOADERS):
        if name in cfg:
            cfg[name].update(batch_size=4, num_workers=0)
            cfg[name].dataset = ConfigDict(
                type='mmtransmamba.MarkovTokens',
                vocab_size=29,
                length=12,
                num_samples=8,
                first=8 * min(i, 1),
            )
    if cfg.model.type == 'mmtransmamba.CausalLM':
        cfg.model.path = str(folders / 'llama')
        return cfg
    family = 'phi' if 'phi' in cfg.model.teacher.path else 'llama'
    student, teacher = cfg.model.student, cfg.model.teacher
    teacher.path = str(folders / family)
    student.path = str(
        folders
        / (f'{family}-{cfg.model.stage}' if cfg.model.stage in LATER else family)
    )
    return in_float32(convertible(cfg))


@pytest.mark.parametrize('name', RECIPES)
def test_trains_and_predicts(name, folders):
    cfg = shrink(load(name), folders)
    torch.manual_seed(0)
    train_batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    # Parameters that begin as zero hold gradients back.
    steps = train(cfg, model, [train_batch, train_batch])
    losses = steps.losses
    wanted = {f'loss_{key}' for key, term in cfg.model.terms.items() if term}
    assert {key.split('_')[1] for key in losses if '_' in key} == {
        key.split('_')[1] for key in wanted
    }
    # So small a Mamba-1 gives these gradients below Adam's epsilon.
    assert all('.dt_proj.' in key for key in steps.trained - steps.changed)

    metrics = evaluate(cfg, model)
    assert set(metrics) == {
        f'token/{key}' for key in ('nll', 'ppl', 'accuracy', 'kl', 'agreement')
    }
    assert metrics['token/kl'] > 0


def test_teacher_alone(folders):
    cfg = shrink(load(TEACHER), folders)
    model = MODELS.build(cfg.model).eval()
    assert evaluate(cfg, model)['token/ppl'] > 1


@pytest.mark.parametrize('name', RECIPES)
def test_parts_agree_with_each_other(name):
    cfg = load(name)
    assert cfg.model.stage in STAGES
    assert cfg.model.compare
    assert 'requires' not in cfg.model
    path = cfg.model.teacher.path
    assert teacher_of(name) in path.lower()
    for key in LOADERS:
        assert cfg[key].dataset.get('tokenizer', path) == path
    assert cfg.train_dataloader.dataset != cfg.val_dataloader.dataset
    assert cfg.test_dataloader == cfg.val_dataloader
    student = cfg.model.student
    if cfg.model.stage in LATER:
        # From the folder that training the config of the stage before leaves.
        assert student.get('convert') is None
        previous = Path(student.path).parent.name
        before = load(f'{Path(name).parent}/{previous}.py')
        assert student.path == f'work_dirs/{previous}/student'
        assert before.model.stage == LATER[cfg.model.stage][-1]
        assert before.model.teacher == cfg.model.teacher
    else:
        assert student.path == path
        needed = STAGES[cfg.model.stage].requires
        assert f'init:{student.convert.init}' in needed
    assert 'mmtransmamba.SaveStudentHook' in [hook.type for hook in cfg.custom_hooks]
    processes = re.search(r'_(\d+)xb(\d+)_', name)
    if processes:
        count, batch = map(int, processes.groups())
        assert cfg.train_dataloader.batch_size == batch
        assert cfg.auto_scale_lr.base_batch_size == count * batch
    infinite = cfg.train_cfg.get('type') == 'IterBasedTrainLoop'
    assert (cfg.train_dataloader.sampler.type == 'InfiniteSampler') == infinite


@pytest.mark.parametrize('name', RECIPES)
def test_last_iteration_has_the_lowest_rate(name):
    cfg = load(name)
    if cfg.param_scheduler is None:
        assert name.startswith('transmamba/')
        return
    epoch_length = 50
    scheduler = dict(cfg.param_scheduler)
    length = cfg.train_cfg.get('max_iters') or epoch_length * cfg.train_cfg.max_epochs
    counts_epochs = scheduler.get('by_epoch', True)
    scheduler['end'] = cfg.train_cfg.get('max_epochs', 1) if counts_epochs else length
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    schedule = PARAM_SCHEDULERS.build(
        scheduler, default_args=dict(optimizer=optimizer, epoch_length=epoch_length)
    )
    assert schedule.warmup == schedule.decay == length // 10
    assert schedule.factor(length - 1)[0] == 0
    assert schedule.factor(length // 2)[0] == 1


# ------------------------------------------------------------ the papers' values


@pytest.mark.parametrize('teacher', ['llama-3.2-1b', 'llama-3.2-3b', 'phi-2'])
@pytest.mark.parametrize(
    'stage, lr, batch', [(1, 1e-3, 128), (2, 5e-4, 128), (3, 5e-5, 64)]
)
def test_mmmamba(stage, lr, batch, teacher):
    cfg = load(f'mmmamba/hybrid_stage{stage}_8xb{batch // 8}_{teacher}.py')
    assert cfg.model.stage == f'stage{stage}'
    assert optimizer_of(cfg) == ('AdamW', lr, (0.9, 0.999), 0.05)
    assert cfg.optim_wrapper.clip_grad.max_norm == 5.0
    assert cfg.train_cfg.max_iters == 20000
    terms = {key: term.type for key, term in cfg.model.terms.items() if term}
    expected = 'TokenKLTerm' if stage == 3 else 'MixerOutputTerm'
    assert list(terms.values()) == [f'mmtransmamba.{expected}']
    if stage == 1:
        assert cfg.model.student.convert.init == 'mimic'
        layers = layers_of(cfg, teacher)
        assert layers == [i for i in range(DEPTHS[teacher]) if i % 4]


def test_mmmamba_linear():
    cfg = load('mmmamba/linear_stage1_8xb16_llama-3.2-1b.py')
    assert layers_of(cfg, 'llama-3.2-1b') == list(range(16))
    for stage in (2, 3):
        suffix = f'stage{stage}_8xb{16 if stage == 2 else 8}_llama-3.2-1b.py'
        hybrid, linear = (
            load(f'mmmamba/hybrid_{suffix}'),
            load(f'mmmamba/linear_{suffix}'),
        )
        linear.model.student.path = linear.model.student.path.replace(
            'linear', 'hybrid'
        )
        assert linear.to_dict() == hybrid.to_dict()


@pytest.mark.parametrize('percent, count', [('12p5', 4), ('25', 8), ('50', 16)])
def test_matvlm(percent, count):
    cfg = load(f'matvlm/matvlm-{percent}pct_4xb16_phi-2.py')
    assert optimizer_of(cfg) == ('AdamW', 2e-4, (0.9, 0.95), 0.01)
    assert cfg.train_cfg.max_epochs == 1
    layers = layers_of(cfg, 'phi-2')
    assert len(layers) == count
    gaps = {b - a for a, b in zip(layers, layers[1:], strict=False)}
    assert gaps == {32 // count}
    terms = {key: term for key, term in cfg.model.terms.items() if term}
    assert {key: term.weight for key, term in terms.items()} == dict(kl=1.0, layer=1.0)
    assert MODELS.build(terms['kl']).divergence.temperature == 1.0
    assert cfg.model.student.convert.init == 'vkq'


@pytest.mark.parametrize(
    'position, layers',
    [('early', range(8)), ('middle', range(12, 20)), ('late', range(24, 32))],
)
def test_matvlm_table_3(position, layers):
    cfg = load(f'matvlm/ablations/table3_{position}_phi-2.py')
    assert layers_of(cfg, 'phi-2') == list(layers)
    cfg.model.student.convert.layers = 'evenly'
    assert cfg.to_dict() == load('matvlm/matvlm-25pct_4xb16_phi-2.py').to_dict()


@pytest.mark.parametrize('row', ['kl', 'layer', 'task', 'kl-layer-task'])
def test_matvlm_table_4(row):
    cfg = load(f'matvlm/ablations/table4_{row}_phi-2.py')
    assert {key for key, term in cfg.model.terms.items() if term} == set(row.split('-'))
    main = load('matvlm/matvlm-25pct_4xb16_phi-2.py')
    cfg.model.terms = main.model.terms
    assert cfg.to_dict() == main.to_dict()


def test_transmamba():
    cfg = load('transmamba/llama-mamba_8xb16_llama-3.2-1b.py')
    assert optimizer_of(cfg) == ('Adam', 2e-5, (0.9, 0.999), 0)
    assert cfg.train_cfg.max_epochs == 1
    assert layers_of(cfg, 'llama-3.2-1b') == list(range(16))
    terms = {key: MODELS.build(term) for key, term in cfg.model.terms.items() if term}
    assert {key: term.weight for key, term in terms.items()} == dict(
        task=0.5, hidden=0.5
    )
    assert type(terms['hidden'].weighting).__name__ == 'AdaptiveWeighting'
    logits = load('transmamba/llama-mamba-logits_8xb16_llama-3.2-1b.py')
    assert logits.model.terms.pop('kl').weight == 0.5
    assert logits.to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    'name, layers',
    [
        ('llama-mamba-hybrid-13pct-high_8xb16', [14, 15]),
        ('ablations/table11_25pct-high', [12, 13, 14, 15]),
        ('ablations/table11_50pct-high', list(range(8, 16))),
        ('ablations/table11_50pct-low', list(range(8))),
        ('ablations/table11_50pct-interleaved', list(range(1, 16, 2))),
        ('ablations/table11_75pct-high', list(range(4, 16))),
    ],
)
def test_transmamba_table_11(name, layers):
    cfg = load(f'transmamba/{name}_llama-3.2-1b.py')
    assert layers_of(cfg, 'llama-3.2-1b') == layers
    main = load('transmamba/llama-mamba-hybrid-13pct-high_8xb16_llama-3.2-1b.py')
    cfg.model.student.convert = main.model.student.convert
    assert cfg.to_dict() == main.to_dict()


# ------------------------------------------------------------------ whole runs


@pytest.mark.parametrize(
    'name',
    [
        'stories260k/mmmamba_stage1.py',
        'matvlm/matvlm-25pct_4xb16_llama-3.2-1b.py',
        'transmamba/llama-mamba_8xb16_llama-3.2-1b.py',
    ],
)
def test_runner_with_hooks(name, folders, tmp_path):
    cfg = shrink(load(name), folders)
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.update(max_iters=10, val_interval=10)
    else:
        cfg.train_dataloader.dataset.num_samples = 40
    cfg.default_hooks.logger.interval = 1
    for hook in cfg.custom_hooks:
        if hook.type == 'mmtransmamba.LayerWeightsHook':
            hook.interval = 1
    run(cfg, tmp_path / 'work')

    saved = MODELS.build(
        dict(type='mmtransmamba.CausalLM', path=str(tmp_path / 'work' / 'student'))
    )
    stage = cfg.model.stage
    assert saved.lm.config.transfer_history[-1] == stage
    records = logged(tmp_path / 'work')
    rates = [record['lr'] for record in records if 'lr' in record]
    assert len(rates) == 10
    assert (rates[-1] == 0) == (stage != 'transmamba')
    assert any('token/kl' in record for record in records)
    weighed = any('layer_weight' in key for record in records for key in record)
    assert weighed == (stage == 'transmamba')
