"""The segmentation project: its data, its configs, and the example's transfer."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, load_checkpoint

import mmtransmamba
from mmtransmamba.registry import MODELS

pytest.importorskip('mmseg', reason='mmseg is not installed, see requirements/')
from projects.segmentation.datasets import ShapeScenes, SingleShapes
from projects.segmentation.shapes import CLASSES, draw

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'projects/segmentation/configs'
ADE20K = sorted(path.stem for path in CONFIGS.glob('*_ade20k.py'))
SHAPES = sorted(path.stem for path in CONFIGS.glob('*-upernet_shapes*.py'))
SMALL = {
    'PlainMamba': dict(
        embed_dims=8, depth=4, num_convs=1, dwconv_layers=(), drop_path_rate=0.0
    ),
    'Vim': dict(embed_dims=8, depth=4),
    'VMamba': dict(embed_dims=8, depths=(1, 1, 1, 1)),
}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


def shrink(cfg: Config) -> Config:
    """The segmentor of a config with the same parts, narrow and shallow."""
    model = cfg.model
    backbone = model.backbone
    backbone.pop('init_cfg')
    kind = backbone.type.removeprefix('mmtransmamba.')
    small = dict(SMALL[kind])
    if kind == 'VMamba':
        published = MODELS.get(backbone.type).ARCHS[backbone.arch]
        small = published | small
        model.decode_head.in_channels = [8, 16, 32, 64]
        model.auxiliary_head.in_channels = 32
    else:
        backbone.update(img_size=64, out_indices=(0, 1, 2, 3))
        model.neck.embed_dim = 8
        model.decode_head.in_channels = [8] * 4
        model.auxiliary_head.in_channels = 8
    # Else a block may be dropped for the whole batch, and learn nothing.
    backbone.update(arch=small, drop_path_rate=0.0)
    model.decode_head.channels = model.auxiliary_head.channels = 8
    model.data_preprocessor.size = (64, 64)
    return cfg


def scenes(count: int, **kwargs) -> dict:
    """A batch as a dataloader of mmseg makes it."""
    dataset = ShapeScenes(
        'train', count, pipeline=[dict(type='PackSegInputs')], **kwargs
    )
    samples = [dataset[i] for i in range(count)]
    return {key: [s[key] for s in samples] for key in ('inputs', 'data_samples')}


# --------------------------------------------------------------------- the configs


@pytest.mark.parametrize('name', ADE20K)
def test_config_trains_and_predicts(name):
    cfg = shrink(load(name))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    losses = model(**model.data_preprocessor(scenes(2), True), mode='loss')
    assert {'decode.loss_ce', 'aux.loss_ce'} <= set(losses)
    total, _ = model.parse_losses(losses)
    total.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in model.parameters())

    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.train_step(scenes(2), wrapper)
    assert all(not torch.equal(p, before[n]) for n, p in model.named_parameters())

    model.eval()
    with torch.no_grad():
        (sample,) = model.test_step(scenes(1, size=72))
    assert sample.seg_logits.data.shape == (150, 72, 72)
    assert sample.pred_sem_seg.data.shape == (1, 72, 72)


@pytest.mark.parametrize('name', ADE20K)
def test_widths_fit_the_published_backbones(name):
    cfg = load(name)
    cfg.model.backbone.pop('init_cfg')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        maps = model.backbone(torch.zeros(2, 3, 512, 512))
        maps = model.neck(maps) if model.with_neck else maps
        assert [m.shape[1:] for m in maps] == [
            (width, 128 // 2**i, 128 // 2**i)
            for i, width in enumerate(cfg.model.decode_head.in_channels)
        ]
    assert len(model.backbone.out_indices) == 4
    if model.with_neck:
        indices = model.backbone.out_indices
        assert indices[-1] == model.backbone.depth - 1
        assert len(set(np.diff(indices))) == 1


@pytest.mark.parametrize('name', ADE20K)
def test_settings_of_the_papers(name):
    cfg = load(name)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 6e-5)
    assert cfg.train_cfg.max_iters == 160000
    warm_up, poly = cfg.param_scheduler
    assert warm_up.end == poly.begin == 1500
    assert (poly.type, poly.end, poly.power) == ('PolyLR', 160000, 1.0)
    assert tuple(cfg.model.data_preprocessor.size) == (512, 512)
    assert cfg.model.decode_head.num_classes == 150
    assert cfg.model.auxiliary_head.num_classes == 150
    gpus, per_gpu = map(int, name.split('_')[1].split('xb'))
    assert cfg.train_dataloader.batch_size == per_gpu
    assert cfg.auto_scale_lr.base_batch_size == gpus * per_gpu


# ------------------------------------------------------------------------ the data


def test_pictures_are_the_same_every_time_and_differ_from_each_other():
    first, again = ShapeScenes('train', 6), ShapeScenes('train', 9)
    other = ShapeScenes('val', 6)
    for i in range(6):
        assert np.array_equal(first[i]['img'], again[i]['img'])
        assert np.array_equal(first[i]['gt_seg_map'], again[i]['gt_seg_map'])
        assert not np.array_equal(first[i]['img'], other[i]['img'])
    assert len({dataset['img'].tobytes() for dataset in again}) == 9
    single = SingleShapes('train', 4)
    assert not np.array_equal(single[0]['img'], first[0]['img'])


def test_labels_are_where_the_shapes_are():
    for kind in range(1, len(CLASSES)):
        image, labels = draw([kind], np.random.default_rng(kind), 64)
        assert image.dtype == labels.dtype == np.uint8
        assert set(np.unique(labels)) == {0, kind}
        shape = labels == kind
        assert 64 < shape.sum() < 64 * 64 / 3
        # The background is dark and of many colours, a shape has one bright one.
        assert image[shape].mean() > image[~shape].mean() + 30
        inside = image[shape].astype(float).std(0).max()
        assert inside < 12 < image[~shape].astype(float).std(0).max()


def test_every_class_occurs_in_both_sets():
    for split in ('train', 'val'):
        labels = [s['gt_seg_map'] for s in ShapeScenes(split, 40)]
        assert set(np.unique(labels)) == set(range(len(CLASSES)))
        names = [s['gt_label'] for s in SingleShapes(split, 40)]
        assert set(names) == set(range(len(CLASSES) - 1))


def test_unknown_split():
    with pytest.raises(ValueError, match="split='test' must be one of train, val"):
        ShapeScenes('test', 2)


# --------------------------------------------------------------------- the example


def run(name: str, work_dir: Path, **options) -> Runner:
    """Train the config on a few pictures for a few steps."""
    cfg = load(name)
    cfg.merge_from_dict(
        {
            'train_dataloader.dataset.num_images': 8,
            'val_dataloader.dataset.num_images': 4,
            'test_dataloader.dataset.num_images': 4,
            'train_dataloader.batch_size': 4,
            'train_dataloader.collate_fn': dict(type='pseudo_collate'),
            'val_dataloader.collate_fn': dict(type='pseudo_collate'),
            'default_hooks.checkpoint.interval': 4,
            'default_hooks.logger.interval': 1,
            'log_level': 'WARNING',
            **options,
        }
    )
    cfg.train_cfg.update(max_iters=4, val_interval=4)
    cfg.work_dir = str(work_dir)
    # Both are kept by name for the whole process.
    cfg.experiment_name = cfg.visualizer.name = f'{work_dir.name}_{Path(name).name}'
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """An untrained teacher's checkpoint."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.manual_seed(0)
        model = MODELS.build(load('vit-teacher_shapes').model)
        model.init_weights()
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.mark.parametrize('name', SHAPES)
def test_example_runs(name, tmp_path, teacher):
    transfer = name.startswith('trans-')
    options = {'model.teacher.checkpoint': str(teacher)} if transfer else {}
    runner = run(name, tmp_path, **options)
    records = [
        json.loads(line)
        for path in tmp_path.glob('*/vis_data/scalars.json')
        for line in path.read_text().splitlines()
    ]
    assert any('mIoU' in record for record in records)
    assert (tmp_path / 'subclone_report.json').is_file() == transfer

    # What remains is a segmentor, whether or not it had a teacher.
    cfg = load('plain-mamba-upernet_shapes')
    segmentor = MODELS.build(cfg.model).eval()
    checkpoint = torch.load(tmp_path / 'iter_4.pth', weights_only=False)
    own = {k for k in checkpoint['state_dict'] if not k.startswith('distiller.')}
    assert own == set(segmentor.state_dict())
    load_checkpoint(segmentor, str(tmp_path / 'iter_4.pth'))
    trained = runner.model.eval()
    with torch.no_grad():
        (mine,) = segmentor.test_step(scenes(1))
        (theirs,) = trained.test_step(scenes(1))
    assert torch.equal(mine.seg_logits.data, theirs.seg_logits.data)

    # Loading knows it outside of mmseg's scope, too.
    with DefaultScope.overwrite_default_scope('mmengine'):
        loaded = mmtransmamba.load(tmp_path).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in segmentor.state_dict().items())


def test_backbone_starts_from_the_teacher(tmp_path, teacher):
    """The patch embedding aside, which a ViT of 8x8 patches has nothing for."""
    name = 'trans-plain-mamba-upernet_shapes-few'
    options = {
        'model.teacher.checkpoint': str(teacher),
        'optim_wrapper.optimizer.lr': 0.0,
        'optim_wrapper.optimizer.weight_decay': 0.0,
    }
    student = run(name, tmp_path, **options).model.student
    state = torch.load(teacher, weights_only=True)['state_dict']
    for i in range(4):
        torch.testing.assert_close(
            student.backbone.layers[i].norm.weight,
            state[f'backbone.layers.{i}.ln1.weight'],
        )
    rows = json.loads((tmp_path / 'subclone_report.json').read_text())
    assert 'backbone.pos_embed' in json.dumps(rows)


def test_a_segmentor_teaches(tmp_path):
    """The other teacher trains, and its backbone is read out of its checkpoint."""
    run('vit-segmentor_shapes', tmp_path / 'teacher')
    checkpoint = tmp_path / 'teacher' / 'iter_4.pth'
    options = {
        'model.teacher.checkpoint': str(checkpoint),
        'optim_wrapper.optimizer.lr': 0.0,
        'optim_wrapper.optimizer.weight_decay': 0.0,
    }
    name = 'ablations/shapes-few_segmentor'
    student = run(name, tmp_path / 'student', **options).model.student
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    for i in range(4):
        torch.testing.assert_close(
            student.backbone.layers[i].norm.weight,
            state[f'backbone.layers.{i}.ln1.weight'],
        )


def test_predictions_become_a_picture(tmp_path, repo_dir, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(repo_dir / 'projects' / 'segmentation'))
    import pictures

    run('plain-mamba-upernet_shapes', tmp_path / 'student')
    out = tmp_path / 'out.png'
    arguments = ['pictures.py', str(tmp_path / 'student'), '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', [*arguments, '--scenes', '2'])
    # A script is started without the folder of the package in the path.
    monkeypatch.setattr(sys, 'path', [p for p in sys.path if p != str(repo_dir)])
    pictures.main(pictures.parse_args())
    assert str(repo_dir) in sys.path
    assert out.stat().st_size > 5_000
    assert str(out) in capsys.readouterr().out
