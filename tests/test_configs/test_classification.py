"""Settings of the classifiers' configs; quickstarts whose students inherit."""

import json

import pytest
import torch
from config_families import FAMILY_OF
from config_families.images import (
    NUM_LABELS,
    NUM_SAMPLES,
    TRANSFORMERS,
    Images,
    innermost,
    width_of,
)
from config_runs import (
    LOADERS,
    ROOT,
    batches_of,
    learning_rates,
    load,
    run,
    student,
)
from mmengine.config import Config
from mmengine.config.utils import _get_cfg_metainfo

from mmtransmamba.registry import DATASETS, MODELS

CONFIGS = Images().configs()
IMAGES = 'image_classification'
BASELINES = f'{IMAGES}/plain_mamba'
TRANSFER = f'{IMAGES}/transmamba'
ABLATIONS = f'{TRANSFER}/ablations'


@pytest.mark.parametrize('name', CONFIGS)
def test_widths_and_classes_agree(name):
    cfg = load(name)
    num_classes = cfg.data_preprocessor.num_classes
    models = [student(cfg)]
    # A folder of transformers has classes of its own, among which are the student's.
    if cfg.model.get('teacher', {}).get('type', TRANSFORMERS) != TRANSFORMERS:
        teacher = cfg.model.teacher.model
        models.append(
            Config.fromfile(teacher).model if isinstance(teacher, str) else teacher
        )
    for model in models:
        assert model.head.in_channels == width_of(model.backbone)
        assert model.head.num_classes == num_classes
    for dataloader in map(cfg.get, LOADERS):
        dataset = DATASETS.build(innermost(dataloader.dataset) | dict(lazy_init=True))
        if dataset.metainfo.get('classes'):  # else they are found in the folders
            assert len(dataset.metainfo['classes']) == num_classes


@pytest.mark.parametrize(
    'name, kept',
    [
        (f'{BASELINES}/plain-mamba-mini_1xb64_cifar10-32px.py', 1),
        (f'{ABLATIONS}/table8_25pct_in100.py', 1),
        (f'{ABLATIONS}/table8_50pct_in100.py', 2),
        (f'{TRANSFER}/trans-plain-mamba-t_1xb128_in100.py', 3),
        (f'{BASELINES}/plain-mamba-t_1xb128_cifar100.py', 4),
    ],
)
def test_a_subset_keeps_its_share_of_each_class(name, kept, shrunk):
    dataset = DATASETS.build(shrunk(name).train_dataloader.dataset)
    assert NUM_SAMPLES == 4 * NUM_LABELS
    assert len(dataset) == kept * NUM_LABELS


@pytest.mark.parametrize(
    'name',
    [
        f'{TRANSFER}/trans-plain-mamba-t_1xb128_cifar100.py',
        f'{TRANSFER}/trans-plain-mamba-t_1xb128_in100.py',
        f'{TRANSFER}/trans-plain-mamba-mini_1xb64_cifar10-32px.py',
        f'{TRANSFER}/trans-plain-mamba-t_1xb64_imagenette-96px.py',
        'quickstart/imagenette_transfer.py',
        'quickstart/cifar10_transfer.py',
    ],
)
def test_teacher_sees_red_as_red(name, shrunk):
    cfg = shrunk(name)
    innermost(cfg.val_dataloader.dataset).colour = (200, 100, 0)
    (batch,) = batches_of(cfg.val_dataloader, 1)
    distiller = FAMILY_OF[name].build(cfg)
    inputs = distiller.data_preprocessor(batch)['inputs']
    seen = distiller.teacher_images(inputs).mean((0, 2, 3))
    assert seen.tolist() == pytest.approx([200, 100, 0], abs=1)


@pytest.mark.parametrize(
    'name, peak',
    [
        (f'{BASELINES}/plain-mamba-t_1xb128_cifar100.py', 5e-4),
        (f'{BASELINES}/plain-mamba-l1_8xb256_in1k.py', 2e-3),
        (f'{TRANSFER}/trans-plain-mamba-b_1xb64_in1k.py', 5e-4),
        (f'{TRANSFER}/trans-plain-mamba-t_released-1xb256_cifar100.py', 2.5e-4),
    ],
)
def test_schedule_of_the_paper_and_the_released_code(name, peak):
    cfg = load(name)
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    steps = 10
    rates = learning_rates(cfg, steps)
    assert len(rates) == 300 * steps
    assert rates[0] == pytest.approx(1e-6)
    assert max(rates) == pytest.approx(peak)
    assert rates.index(max(rates)) == pytest.approx(5 * steps, abs=1)
    assert rates[-1] == pytest.approx(1e-5, rel=0.05)
    halfway = rates[(5 + 295 // 2) * steps]
    assert halfway == pytest.approx((peak + 1e-5) / 2, rel=0.02)


@pytest.mark.parametrize(
    'family, size, arch, batch_size, teacher, weight_decay, dataset',
    [
        (*row, dataset)
        for row in (
            ('plain-mamba', 't', 'T', 128, 'tiny', 0.05),
            ('plain-mamba', 's', 'S', 128, 'small', 0.05),
            ('plain-mamba', 'b', 'B', 64, 'base', 0.05),
            ('vmamba', 't', 'vanilla_tiny', 32, 'base', 0.05),
            ('vim', 't', 'tiny', 128, 'tiny', 0.1),
            ('vim', 's', 'small', 128, 'small', 0.05),
            ('vrwkv', 't', 'tiny', 128, 'tiny', 0.05),
            ('vrwkv', 's', 'small', 128, 'small', 0.05),
        )
        for dataset in ('cifar10', 'cifar100', 'in100', 'in1k')
        if row[0] == 'plain-mamba' or dataset != 'cifar10'
    ],
)
def test_main_settings(family, size, arch, batch_size, teacher, weight_decay, dataset):
    name = f'{family}-{size}_1xb{batch_size}_{dataset}.py'
    baseline = load(f'{IMAGES}/{family.replace("-", "_")}/{name}')
    transfer = load(f'{TRANSFER}/trans-{name}')
    main = load(f'{TRANSFER}/trans-plain-mamba-t_1xb128_{dataset}.py')
    for cfg in (baseline, transfer):
        assert student(cfg).backbone.arch == arch
        assert cfg.optim_wrapper.optimizer.lr == 5e-4
        assert cfg.optim_wrapper.optimizer.weight_decay == weight_decay
        assert cfg.param_scheduler == main.param_scheduler
        assert cfg.train_cfg == main.train_cfg
    assert baseline.train_dataloader.dataset.proportion == 1.0
    assert transfer.train_dataloader.dataset.proportion == 0.75
    assert baseline.model == transfer.model.student
    model = transfer.model
    assert model.alpha == 0.5
    for key in ('terms', 'teacher_layer', 'num_tokens'):
        assert model[key] == main.model[key]
    assert model.teacher.model.backbone.arch == f'deit-{teacher}'
    assert f'deit-{teacher}_' in model.teacher.checkpoint
    # Section 3.3: only PlainMamba inherits weights.
    hooks = ['mmtransmamba.SubcloneInitializer', 'mmtransmamba.LayerWeightsHook']
    found = [hook.type for hook in transfer.custom_hooks]
    assert found == (hooks if family == 'plain-mamba' else hooks[1:])
    if dataset != 'in1k':
        deit = load(f'{IMAGES}/deit/deit-{teacher}_1xb128_{dataset}.py')
        assert deit.model.backbone.arch == f'deit-{teacher}'
        assert model.teacher.checkpoint == f'checkpoints/deit-{teacher}_{dataset}.pth'


@pytest.mark.parametrize('dataset', ['cifar100', 'in100'])
def test_released_recipe(dataset):
    cfg = load(f'{TRANSFER}/trans-plain-mamba-t_released-1xb256_{dataset}.py')
    assert set(cfg.model.terms) == {'feature', 'layer'}
    feature, layer = (MODELS.build(cfg.model.terms[k]) for k in ('feature', 'layer'))
    assert (feature.weight, feature.align) == (120, False)
    assert (layer.weight, layer.align) == (1, False)
    assert feature.distance.temperature == layer.distance.temperature == 2
    weights = layer.weighting(torch.zeros(1, 11, 1), torch.zeros(1, 11, 1))
    assert weights[0].tolist() == list(range(1, 12))
    assert cfg.model.alpha == cfg.model.distill_weight == 1
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 256
    ema = cfg.custom_hooks[0]
    assert (ema.type, ema.momentum) == ('EMAHook', pytest.approx(1 - 0.99996))


@pytest.mark.parametrize(
    'model, millions',
    [
        ('plain-mamba-t_1xb128', 4.1),
        ('plain-mamba-s_1xb128', 13.7),
        ('plain-mamba-b_1xb64', 49.5),
        ('vim-t_1xb128', 7.0),
        ('vim-s_1xb128', 25.5),
    ],
)
def test_size_of_the_students_in_table_2(model, millions):
    cfg = load(f'{TRANSFER}/trans-{model}_cifar100.py')
    total = Images().count_parameters(cfg)
    assert total / 1e6 == pytest.approx(millions, abs=0.11)


@pytest.mark.parametrize(
    'family, percent', [('vim', 13), ('vmamba', 47), ('vrwkv', 69)]
)
def test_quickstart_students_inherit(family, percent, tmp_path):
    cfg = load(f'quickstart/{family}_digits_transfer.py')
    scratch = load(f'quickstart/{family}_digits_scratch.py')
    assert cfg.model.student == scratch.model
    cfg.model.teacher.checkpoint = 'random'
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler = []
    run(cfg, tmp_path)
    report = json.loads((tmp_path / 'subclone_report.json').read_text())
    assert report['weight_map'] == f'vit_to_{family}'
    assert report['layers'] == [0, 1, 2, 3]
    assert int(report['totals']['inherited_percent']) == percent


def test_mmengine_finds_the_configs(tmp_path):
    (tmp_path / '.mim').symlink_to(ROOT)
    classifiers = [name for name in CONFIGS if name.startswith(IMAGES)]
    for name in (classifiers[0], classifiers[-1]):
        found = _get_cfg_metainfo(str(tmp_path), name)
        assert found['Config'] == f'configs/{name}'
