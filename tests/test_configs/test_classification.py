"""Every config of a classifier trains and predicts, shrunk; the paper's values."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from config_families import GRID, WIDTH, image_size, shrink_backbone, width_of
from config_runs import (
    CONFIG_DIR,
    LOADERS,
    ROOT,
    learning_rates,
    logged,
    read_yaml,
    run,
    student,
    train,
)
from mmengine.config import Config, ConfigDict
from mmengine.config.utils import _get_cfg_metainfo
from mmengine.runner import Runner
from mmpretrain.datasets import BaseDataset
from PIL import Image

from mmtransmamba.registry import DATASETS, MODELS

SCOPE = 'mmpretrain'
CONFIGS = sorted(
    path.relative_to(CONFIG_DIR).as_posix()
    for folder in ('image_classification', 'quickstart')
    for path in (CONFIG_DIR / folder).rglob('*.py')
    if not path.stem.startswith(('retrieval_', 'vqa_'))
)
CLASSIFICATION = [name for name in CONFIGS if name.startswith('image_class')]
IMAGES = 'image_classification'
BASELINES = f'{IMAGES}/plain_mamba'
TRANSFER = f'{IMAGES}/transmamba'
ABLATIONS = f'{TRANSFER}/ablations'

DEPTH = 2
NUM_SAMPLES = 16
NUM_LABELS = 4
TRANSFORMERS = 'mmtransmamba.TransformersTeacher'
# Sides of images that a data set gives as pixels; of CIFAR they are 32.
SIDES = {'mmtransmamba.ImagenetteShards': 96, 'mmtransmamba.RecordedViews': 72}


def load(name: str) -> Config:
    return Config.fromfile(CONFIG_DIR / name)


def innermost(dataset: ConfigDict) -> ConfigDict:
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


@DATASETS.register_module()
class GeneratedImages(BaseDataset):
    """Images in the form in which the dataset it stands for gives them.

    They are of one ``colour`` (RGB), or noise, ``side`` pixels wide unless they are
    files.
    """

    def __init__(
        self,
        folder: str,
        as_files: bool,
        num_classes: int,
        side: int = 32,
        colour: tuple[int, int, int] | None = None,
        **kwargs,
    ) -> None:
        self.folder = Path(folder)
        self.as_files = as_files
        self.side = side
        self.colour = colour
        classes = tuple(str(i) for i in range(num_classes))
        super().__init__(ann_file='', metainfo=dict(classes=classes), **kwargs)

    def load_data_list(self) -> list[dict]:
        rng = np.random.default_rng(0)
        shape = (60, 80, 3) if self.as_files else (self.side, self.side, 3)
        samples = []
        for i in range(NUM_SAMPLES):
            image = rng.integers(0, 256, shape, dtype=np.uint8)
            if self.colour is not None:
                image[:] = self.colour
            sample = dict(gt_label=i % NUM_LABELS)
            if self.as_files:
                sample['img_path'] = str(self.folder / f'{i}.png')
                Image.fromarray(image).save(sample['img_path'])
            else:
                sample['img'] = image
            samples.append(sample)
        return samples


def shrink_data(cfg: Config, folder: Path) -> None:
    """Put generated images under the pipelines and the subset of a config."""
    for dataloader in map(cfg.get, LOADERS):
        dataloader.update(batch_size=4, num_workers=0)
        dataset = innermost(dataloader.dataset)
        if dataset.type == 'mmtransmamba.Digits':
            continue
        pipeline, side = dataset.pipeline, SIDES.get(dataset.type, 32)
        dataset.clear()
        dataset.update(
            type='mmtransmamba.GeneratedImages',
            folder=str(folder),
            as_files=pipeline[0].type == 'LoadImageFromFile',
            num_classes=cfg.data_preprocessor.num_classes,
            side=side,
            pipeline=pipeline,
        )


def full_size(cfg: Config) -> int:
    dataset = innermost(cfg.val_dataloader.dataset).type
    return image_size(student(cfg).backbone, dataset)


def shrink_model(cfg: Config) -> int:
    """Make student and teacher narrow and shallow, the teacher random.

    Returns:
        Side in pixels of the images they take.
    """
    full = full_size(cfg)
    side = next(s for s in range(min(full, 32), 0, -GRID) if full % s == 0)
    shrink_backbone(student(cfg).backbone, side, DEPTH)
    student(cfg).head.in_channels = WIDTH
    if 'teacher' in cfg.model:
        teacher = cfg.model.teacher
        teacher.checkpoint = 'random'
        if teacher.type == TRANSFORMERS:
            teacher.update(
                model=dict(
                    model_type='vit',
                    num_labels=student(cfg).head.num_classes,
                    image_size=side,
                    patch_size=side // GRID,
                    hidden_size=WIDTH,
                    intermediate_size=2 * WIDTH,
                    num_hidden_layers=DEPTH,
                    num_attention_heads=2,
                ),
                mean=[127.5] * 3,
                std=[127.5] * 3,
                class_order=None,
                input_size=side,
            )
            return side
        if isinstance(teacher.model, str):
            config = Config.fromfile(teacher.model)
            teacher.update(
                model=config.model,
                mean=config.data_preprocessor.mean,
                std=config.data_preprocessor.std,
            )
        layer = cfg.model.get('teacher_layer', 'auto')
        depth = 12 if isinstance(layer, int) else DEPTH
        shrink_backbone(teacher.model.backbone, side, depth)
        teacher.model.head.in_channels = WIDTH
        if cfg.model.get('num_tokens') is not None:
            cfg.model.num_tokens = GRID
    return side


def shrink_images(batch: dict, side: int) -> dict:
    images = batch['inputs']
    step = images[0].shape[-1] // side
    return dict(batch, inputs=[image[:, ::step, ::step] for image in images])


# ----------------------------------------------------------------- every config


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_predicts(name, tmp_path):
    cfg = load(name)
    full = full_size(cfg)
    num_classes = cfg.data_preprocessor.num_classes
    proportion = cfg.train_dataloader.dataset.get('proportion')
    shrink_data(cfg, tmp_path)
    side = shrink_model(cfg)

    torch.manual_seed(0)
    train_loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    val_loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
    if proportion is not None and innermost(cfg.train_dataloader.dataset).get('folder'):
        per_class = NUM_SAMPLES / NUM_LABELS
        kept = max(1, round(proportion * per_class))
        assert len(train_loader.dataset) == NUM_LABELS * kept
    train_batch = next(iter(train_loader))
    val_batch = next(iter(val_loader))
    for batch in (train_batch, val_batch):
        for image in batch['inputs']:
            channels = student(cfg).backbone.get('in_channels', 3)
            assert image.shape == (channels, full, full)
            assert image.dtype == torch.uint8

    model = MODELS.build(cfg.model | dict(data_preprocessor=cfg.data_preprocessor))
    model.init_weights()
    # Heads that start at zero let gradients through at the second step.
    steps = train(cfg, model, 2 * [shrink_images(train_batch, side)])
    unchanged = steps.every - steps.changed
    # A softmax over the layers does not feel the bias that all of them get.
    assert not {key for key in unchanged if not key.endswith('weighting.net.2.bias')}

    model.eval()
    with torch.no_grad():
        predictions = model.test_step(shrink_images(val_batch, side))
    assert len(predictions) == len(val_batch['inputs'])
    for sample in predictions:
        assert sample.pred_score.shape == (num_classes,)
        assert sample.pred_score.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize('name', CONFIGS)
def test_parts_agree_with_each_other(name):
    cfg = load(name)
    num_classes = cfg.data_preprocessor.num_classes
    if '/ablations/' not in name and name in CLASSIFICATION:
        count, batch = map(int, re.search(r'(\d+)xb(\d+)_', name).groups())
        assert cfg.train_dataloader.batch_size == batch
        assert cfg.auto_scale_lr.base_batch_size == count * batch
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
    assert innermost(cfg.train_dataloader.dataset) != innermost(
        cfg.val_dataloader.dataset
    )


@pytest.mark.parametrize(
    'name',
    [
        f'{TRANSFER}/trans-plain-mamba-t_1xb128_cifar100.py',
        f'{TRANSFER}/trans-plain-mamba-t_1xb128_in100.py',
        f'{TRANSFER}/trans-plain-mamba-mini_1xb64_cifar10-32px.py',
        f'{TRANSFER}/trans-plain-mamba-t_1xb64_imagenette-96px.py',
        'quickstart/imagenette_transfer.py',
    ],
)
def test_teacher_sees_red_as_red(name, tmp_path):
    cfg = load(name)
    shrink_data(cfg, tmp_path)
    shrink_model(cfg)
    innermost(cfg.val_dataloader.dataset).colour = (200, 100, 0)
    batch = next(iter(Runner.build_dataloader(cfg.val_dataloader)))
    distiller = MODELS.build(cfg.model | dict(data_preprocessor=cfg.data_preprocessor))
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


# ------------------------------------------------------------- the paper's values


@pytest.mark.parametrize('dataset', ['cifar10', 'cifar100', 'in100', 'in1k'])
@pytest.mark.parametrize(
    'size, batch_size, teacher',
    [('t', 128, 'tiny'), ('s', 128, 'small'), ('b', 64, 'base')],
)
def test_main_settings(size, batch_size, teacher, dataset):
    suffix = f'{size}_1xb{batch_size}_{dataset}.py'
    baseline = load(f'{BASELINES}/plain-mamba-{suffix}')
    transfer = load(f'{TRANSFER}/trans-plain-mamba-{suffix}')
    for cfg in (baseline, transfer):
        assert student(cfg).backbone.arch == size.upper()
        assert cfg.train_dataloader.batch_size == batch_size
        assert cfg.auto_scale_lr.base_batch_size == batch_size
        assert cfg.optim_wrapper.optimizer.lr == 5e-4
    assert baseline.train_dataloader.dataset.proportion == 1.0
    assert transfer.train_dataloader.dataset.proportion == 0.75
    assert baseline.model == transfer.model.student
    assert transfer.model.teacher.model.backbone.arch == f'deit-{teacher}'
    assert f'deit-{teacher}_' in transfer.model.teacher.checkpoint
    assert transfer.model.alpha == 0.5
    assert [hook.type for hook in transfer.custom_hooks] == [
        'mmtransmamba.SubcloneInitializer',
        'mmtransmamba.LayerWeightsHook',
    ]
    if dataset != 'in1k':
        deit = load(f'image_classification/deit/deit-{teacher}_1xb128_{dataset}.py')
        assert deit.model.backbone.arch == f'deit-{teacher}'
        assert transfer.model.teacher.checkpoint == (
            f'checkpoints/deit-{teacher}_{dataset}.pth'
        )


@pytest.mark.parametrize('dataset', ['cifar100', 'in100', 'in1k'])
@pytest.mark.parametrize(
    'family, size, arch, batch_size, teacher, weight_decay',
    [
        ('vmamba', 't', 'vanilla_tiny', 32, 'base', 0.05),
        ('vim', 't', 'tiny', 128, 'tiny', 0.1),
        ('vim', 's', 'small', 128, 'small', 0.05),
        ('vrwkv', 't', 'tiny', 128, 'tiny', 0.05),
        ('vrwkv', 's', 'small', 128, 'small', 0.05),
    ],
)
def test_main_settings_of_other_families(
    family, size, arch, batch_size, teacher, weight_decay, dataset
):
    name = f'{family}-{size}_1xb{batch_size}_{dataset}.py'
    baseline = load(f'{IMAGES}/{family}/{name}')
    transfer = load(f'{TRANSFER}/trans-{name}')
    pmamba = load(f'{TRANSFER}/trans-plain-mamba-t_1xb128_{dataset}.py')
    for cfg in (baseline, transfer):
        assert student(cfg).backbone.arch == arch
        assert cfg.train_dataloader.batch_size == batch_size
        assert cfg.auto_scale_lr.base_batch_size == batch_size
        assert cfg.optim_wrapper.optimizer.lr == 5e-4
        assert cfg.optim_wrapper.optimizer.weight_decay == weight_decay
        assert cfg.param_scheduler == pmamba.param_scheduler
        assert cfg.train_cfg == pmamba.train_cfg
    assert baseline.train_dataloader.dataset.proportion == 1.0
    assert transfer.train_dataloader.dataset.proportion == 0.75
    assert baseline.model == transfer.model.student
    model = transfer.model
    assert model.teacher.model.backbone.arch == f'deit-{teacher}'
    assert f'deit-{teacher}_' in model.teacher.checkpoint
    for key in ('terms', 'alpha', 'teacher_layer', 'num_tokens'):
        assert model[key] == pmamba.model[key]
    # Section 3.3: only PlainMamba inherits weights.
    assert [hook.type for hook in transfer.custom_hooks] == [
        'mmtransmamba.LayerWeightsHook'
    ]


ADAPTIVE = 'mmtransmamba.AdaptiveWeighting'
UNIFORM = 'mmtransmamba.UniformWeighting'
TABLE_7 = {
    'logits': dict(logits=None),
    'feature': dict(feature=None),
    'logits-feature': dict(logits=None, feature=None),
    'layer': dict(logits=None, feature=None, layer=UNIFORM),
    'direction': dict(logits=None, feature=None, direction=UNIFORM),
    'adapt-layer': dict(logits=None, feature=None, layer=ADAPTIVE),
    'full': dict(logits=None, feature=None, direction=ADAPTIVE),
}


@pytest.mark.parametrize('dataset', ['cifar100', 'in100'])
@pytest.mark.parametrize('row', ['baseline', *TABLE_7])
def test_table_7(row, dataset):
    cfg = load(f'{ABLATIONS}/table7_{row}_{dataset}.py')
    assert student(cfg).backbone.arch == 'T'
    if row == 'baseline':
        assert cfg.model.type == 'ImageClassifier'
        assert cfg.train_dataloader.dataset.proportion == 1.0
        return
    terms = {key: term for key, term in cfg.model.terms.items() if term}
    weightings = {
        key: MODELS.build(term).weighting if key in ('layer', 'direction') else None
        for key, term in terms.items()
    }
    expected = {
        key: weighting and MODELS.build(dict(type=weighting))
        for key, weighting in TABLE_7[row].items()
    }
    assert {k: type(v) for k, v in weightings.items()} == {
        k: type(v) for k, v in expected.items()
    }
    main = load(f'{TRANSFER}/trans-plain-mamba-t_1xb128_{dataset}.py')
    if row == 'full':
        assert cfg.to_dict() == main.to_dict()
    cfg.model.terms = main.model.terms
    assert cfg.to_dict() == main.to_dict()


def test_table_8():
    main = load(f'{TRANSFER}/trans-plain-mamba-s_1xb128_in100.py')
    for percent in (25, 50, 75, 100):
        cfg = load(f'{ABLATIONS}/table8_{percent}pct_in100.py')
        assert cfg.train_dataloader.dataset.proportion == percent / 100
        cfg.train_dataloader.dataset.proportion = 0.75
        assert cfg.to_dict() == main.to_dict()


def test_table_9():
    main = load(f'{TRANSFER}/trans-plain-mamba-s_1xb128_in100.py')
    for layer in (4, 8, 12):
        cfg = load(f'{ABLATIONS}/table9_layer{layer}_in100.py')
        assert cfg.model.teacher_layer == layer - 1
        cfg.model.teacher_layer = main.model.teacher_layer
        assert cfg.to_dict() == main.to_dict()


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


def count_parameters(name: str) -> int:
    """Parameters of the model that remains after training."""
    with torch.device('meta'):
        model = MODELS.build(student(load(name)))
    return sum(p.numel() for p in model.parameters())


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
    total = count_parameters(f'{TRANSFER}/trans-{model}_cifar100.py')
    assert total / 1e6 == pytest.approx(millions, abs=0.11)


# ------------------------------------------------------------------ whole runs


@pytest.mark.parametrize(
    'name',
    [
        f'{TRANSFER}/trans-plain-mamba-t_1xb128_cifar100.py',
        f'{TRANSFER}/trans-plain-mamba-t_released-1xb256_in100.py',
        f'{BASELINES}/plain-mamba-l2_8xb256_in1k.py',
        f'{TRANSFER}/trans-vmamba-t_1xb32_in100.py',
        f'{TRANSFER}/trans-vim-t_1xb128_cifar100.py',
        f'{TRANSFER}/trans-vrwkv-s_1xb128_in100.py',
    ],
)
def test_runner_with_hooks(name, tmp_path):
    """One step an epoch, so that warm-up, decay and averaging all take part."""
    cfg = load(name)
    shrink_data(cfg, tmp_path)
    side = shrink_model(cfg)
    for dataloader in map(cfg.get, LOADERS):
        dataloader.batch_size = 12
        resize = dict(type='Resize', scale=side)
        innermost(dataloader.dataset).pipeline.insert(-1, resize)
    cfg.train_cfg.update(max_epochs=6, val_interval=6)
    for hook in cfg.custom_hooks:
        if hook.type == 'mmtransmamba.LayerWeightsHook':
            hook.interval = 1
    run(cfg, tmp_path / 'work')

    work = tmp_path / 'work'
    state = torch.load(work / 'epoch_6.pth', weights_only=False)['state_dict']
    names = {k for k in state if not k.startswith('distiller.')}
    assert names == set(MODELS.build(student(cfg)).state_dict())
    subclones = 'mmtransmamba.SubcloneInitializer' in str(cfg.custom_hooks)
    assert (work / 'subclone_report.json').is_file() == subclones
    records = logged(work)
    weighed = any('layer_weight' in key for record in records for key in record)
    assert weighed == ('terms' in cfg.model)
    assert any('accuracy/top1' in record for record in records)


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


# --------------------------------------------------------------------- metafiles


def metafile_models() -> list[dict]:
    index = read_yaml(ROOT / 'model-index.yml')
    paths = [path for path in index['Import'] if '/image_classification/' in path]
    return [m for path in paths for m in read_yaml(ROOT / path)['Models']]


def test_metafiles_list_every_config_once():
    listed = [model['Config'] for model in metafile_models()]
    assert len(listed) == len(set(listed))
    expected = [
        f'configs/{name}' for name in CLASSIFICATION if '/ablations/' not in name
    ]
    assert sorted(listed) == expected


def test_metafiles_name_files_and_collections_that_exist():
    for path in read_yaml(ROOT / 'model-index.yml')['Import']:
        metafile = read_yaml(ROOT / path)
        collections = {c['Name'] for c in metafile['Collections']}
        for collection in metafile['Collections']:
            assert (ROOT / collection['README']).is_file()
        for model in metafile['Models']:
            assert model['Name'] == Path(model['Config']).stem
            assert model['In Collection'] in collections


@pytest.mark.parametrize('model', metafile_models(), ids=lambda m: m['Name'])
def test_metafiles_count_parameters_right(model):
    name = model['Config'].removeprefix('configs/')
    assert model['Metadata']['Parameters'] == count_parameters(name)


def test_mmengine_finds_the_configs(tmp_path):
    (tmp_path / '.mim').symlink_to(ROOT)
    for name in (CLASSIFICATION[0], CLASSIFICATION[-1]):
        found = _get_cfg_metainfo(str(tmp_path), name)
        assert found['Config'] == f'configs/{name}'
