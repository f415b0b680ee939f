"""The detection project: converter, pyramid, and the configs where mmcv has its ops."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, save_checkpoint
from mmengine.structures import InstanceData

from mmtransmamba.registry import DATASETS, MODELS
from projects.detection.bccd_to_coco import CLASSES, convert
from projects.detection.simple_pyramid import SimplePyramid

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'projects/detection/configs'
COCO = sorted(path.stem for path in CONFIGS.glob('*_coco.py'))
BCCD = sorted(path.stem for path in CONFIGS.glob('*_bccd*.py'))
needs_ops = pytest.mark.skipif(
    importlib.util.find_spec('mmdet') is None
    or importlib.util.find_spec('mmcv._ext') is None,
    reason='mmdet needs mmcv with its compiled ops, see projects/detection',
)


@pytest.fixture
def scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


# ------------------------------------------------------------------- the converter

VOC = """<annotation><size><width>64</width><height>48</height></size>
<object><name>WBC</name><bndbox><xmin>3</xmin><ymin>5</ymin><xmax>20</xmax>
<ymax>25</ymax></bndbox></object>
<object><name>{name}</name><bndbox><xmin>30</xmin><ymin>8</ymin><xmax>30</xmax>
<ymax>9</ymax></bndbox></object></annotation>"""


@pytest.fixture
def published(tmp_path):
    """A set with the folders of the published one; one box has no area."""
    root = tmp_path / 'BCCD'
    for folder in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
        (root / folder).mkdir(parents=True)
    for i, split in enumerate(('train', 'val', 'test')):
        (root / f'ImageSets/Main/{split}.txt').write_text(f'cell_{i}\n')
        (root / f'Annotations/cell_{i}.xml').write_text(VOC.format(name='RBC'))
        (root / f'JPEGImages/cell_{i}.jpg').write_bytes(bytes([i]))
    return root


def test_converter(published, tmp_path):
    target = tmp_path / 'coco'
    convert(published, target)
    coco = json.loads((target / 'val.json').read_text())
    assert [c['name'] for c in coco['categories']] == list(CLASSES)
    assert coco['images'] == [dict(id=1, file_name='cell_1.jpg', width=64, height=48)]
    (box,) = coco['annotations']
    assert box == dict(
        id=1,
        image_id=1,
        category_id=2,
        bbox=[3.0, 5.0, 17.0, 20.0],
        area=340.0,
        iscrowd=0,
    )
    assert (target / 'images/cell_1.jpg').read_bytes() == b'\x01'


def test_converter_names_what_it_does_not_know(published, tmp_path):
    path = published / 'Annotations/cell_0.xml'
    path.write_text(VOC.format(name='virus'))
    with pytest.raises(ValueError, match='cell_0.xml: object "virus" is none of RBC'):
        convert(published, tmp_path / 'coco')


# --------------------------------------------------------------------- the pyramid


def test_pyramid():
    torch.manual_seed(0)
    pyramid = SimplePyramid(16, 8)
    maps = torch.randn(2, 16, 6, 8, requires_grad=True)
    out = pyramid((torch.zeros(1), maps))
    assert [tuple(m.shape[1:]) for m in out] == [
        (8, 24, 32),
        (8, 12, 16),
        (8, 6, 8),
        (8, 3, 4),
        (8, 2, 2),
    ]
    for level in out:
        # Normalised over the channels of every place.
        torch.testing.assert_close(
            level.mean(1), torch.zeros_like(level.mean(1)), atol=1e-5, rtol=0
        )
    sum((level**3).sum() for level in out).backward()
    assert all(p.grad.any() for p in pyramid.parameters())
    assert maps.grad.any()


# --------------------------------------------------------------------- the configs


def shrink(cfg: Config) -> Config:
    """The detector of a config with the same parts, narrow and shallow."""
    model = cfg.model
    backbone = model.backbone
    backbone.pop('init_cfg')
    if backbone.type == 'mmtransmamba.VMamba':
        published = MODELS.get(backbone.type).ARCHS[backbone.arch]
        small = published | dict(embed_dims=8, depths=(1, 1, 1, 1))
        model.neck.in_channels = [8, 16, 32, 64]
    else:
        small = dict(embed_dims=8, depth=2, num_convs=1, dwconv_layers=())
        small['drop_path_rate'] = 0.0
        backbone.img_size = 64
        model.neck.in_channels = 8
    backbone.update(arch=small, drop_path_rate=0.0)
    model.neck.out_channels = 16
    model.rpn_head.update(in_channels=16, feat_channels=16)
    head = model.roi_head
    head.bbox_roi_extractor.out_channels = 16
    head.bbox_head.update(in_channels=16, fc_out_channels=16)
    if 'mask_head' in head:
        head.mask_roi_extractor.out_channels = 16
        head.mask_head.update(in_channels=16, conv_out_channels=16)
    return cfg


def cells(count: int, side: int = 64) -> dict:
    """Random images with two boxes each, as a dataloader of mmdet makes them."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for _ in range(count):
        image = torch.randint(0, 256, (3, side, side), generator=generator)
        inputs.append(image.to(torch.uint8))
        boxes = torch.tensor([[4.0, 6.0, 40.0, 44.0], [20.0, 30.0, 60.0, 58.0]])
        masks = torch.zeros(2, side, side, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(
            masks, boxes.int().tolist(), strict=True
        ):
            mask[top:bottom, left:right] = 1
        samples.append(
            DetDataSample(
                metainfo=dict(
                    img_id=0,
                    img_shape=(side, side),
                    ori_shape=(side, side),
                    scale_factor=(1.0, 1.0),
                ),
                gt_instances=InstanceData(
                    bboxes=boxes,
                    labels=torch.tensor([0, 2]),
                    masks=BitmapMasks(masks.numpy(), side, side),
                ),
            )
        )
    return dict(inputs=inputs, data_samples=samples)


@needs_ops
@pytest.mark.parametrize('name', COCO)
def test_config_trains_and_predicts(name, scope):
    cfg = shrink(load(name))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    losses = model(**model.data_preprocessor(cells(2), True), mode='loss')
    assert {'loss_rpn_cls', 'loss_bbox', 'loss_mask'} <= set(losses)
    total, _ = model.parse_losses(losses)
    total.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in model.parameters())

    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    model.train_step(cells(2), wrapper)
    model.eval()
    with torch.no_grad():
        (sample,) = model.test_step(cells(1, side=80))
    found = sample.pred_instances
    assert len(found.bboxes) == len(found.scores) == len(found.masks)
    assert found.masks.shape[1:] == (80, 80)


@needs_ops
@pytest.mark.parametrize('name', COCO)
def test_widths_fit_the_published_backbones(name, scope):
    cfg = load(name)
    cfg.model.backbone.pop('init_cfg')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        levels = model.neck(model.backbone(torch.zeros(2, 3, 256, 320)))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (256, 64 // 2**i, 80 // 2**i) for i in range(5)
    ]


@pytest.mark.skipif(
    importlib.util.find_spec('mmdet') is None, reason='mmdet is not installed'
)
@pytest.mark.parametrize('name', COCO)
def test_settings_of_the_papers(name):
    cfg = load(name)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 1e-4)
    assert optimizer.weight_decay == 0.05
    epochs, milestones = {'1x': (12, [8, 11]), '3x': (36, [27, 33])}[
        name.split('_')[1].split('-')[1]
    ]
    assert cfg.train_cfg.max_epochs == epochs
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.type, warm_up.end, steps.milestones) == (
        'LinearLR',
        1000,
        milestones,
    )
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr.base_batch_size == 16


# --------------------------------------------------------------------- the example


@needs_ops
@pytest.mark.parametrize('name', BCCD)
def test_example_on_blood_cells(name, scope, shared_dir, tmp_path, monkeypatch):
    """Two steps of training and the metric, on a few real images."""
    folder = shared_dir / 'data/bccd'
    monkeypatch.setenv('BCCD_ROOT', str(folder))
    monkeypatch.setenv('MMTRANSMAMBA_DATA', str(shared_dir / 'data'))
    cfg = load(name)
    annotations = json.loads((folder / 'train.json').read_text())
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == len(annotations['images']) == 205
    boxes = [len(dataset.get_data_info(i)['instances']) for i in range(205)]
    assert sum(boxes) == len(annotations['annotations'])
    assert dataset.metainfo['classes'] == CLASSES

    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.indices = 4
        loader.batch_size = 2
        loader.collate_fn = dict(type='pseudo_collate')
    metric = json.loads((folder / 'val.json').read_text())
    metric['images'] = metric['images'][:4]
    (tmp_path / 'val.json').write_text(json.dumps(metric))
    cfg.val_evaluator.ann_file = str(tmp_path / 'val.json')
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler[1].end = 1
    detector = cfg.model.get('student', cfg.model)
    detector.test_cfg.rcnn.score_thr = 0.0
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = cfg.visualizer.name = tmp_path.name
    cfg.log_level = 'WARNING'
    runner = Runner.from_cfg(cfg)
    runner.train()
    records = [
        json.loads(line)
        for path in tmp_path.glob('*/vis_data/scalars.json')
        for line in path.read_text().splitlines()
    ]
    assert any('coco/bbox_mAP' in record for record in records)
    assert any('loss_layer' in record for record in records) == ('trans' in name)


@needs_ops
def test_predictions_become_a_picture(shared_dir, tmp_path, monkeypatch, capsys):
    """Of a detector that has learned nothing and is sure of everything."""
    monkeypatch.syspath_prepend(str(ROOT / 'projects/detection'))
    monkeypatch.setenv('BCCD_ROOT', str(shared_dir / 'data/bccd'))
    pictures = importlib.import_module('pictures')
    config = load('vmamba-faster-rcnn_bccd')
    config.model.test_cfg.rcnn.score_thr = 0.0
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    run = tmp_path / 'student'
    run.mkdir()
    config.dump(run / 'config.py')
    save_checkpoint(dict(state_dict=model.state_dict()), str(run / 'epoch_1.pth'))
    (run / 'last_checkpoint').write_text(str(run / 'epoch_1.pth'))
    boxes = []
    draw = pictures.draw
    monkeypatch.setattr(
        pictures,
        'draw',
        lambda axes, entry: (boxes.append(entry[1]), draw(axes, entry)),
    )
    out = tmp_path / 'out.png'
    for score in ('0', '1'):
        arguments = ['pictures.py', str(run), '--out', str(out), '--pictures', '2']
        monkeypatch.setattr(sys, 'argv', [*arguments, '--score', score])
        pictures.main(pictures.parse_args())
    assert out.stat().st_size > 5_000
    assert str(out) in capsys.readouterr().out
    # The labels of two pictures, then what was found there, with either score.
    truth, found = boxes[:2], boxes[2:4]
    assert all(len(labels) for _, labels in truth + found)
    assert not any(len(labels) for _, labels in boxes[6:])
    for places, _ in truth + found:
        assert (places >= 0).all() and (places <= torch.tensor([320, 240] * 2)).all()
        assert places[:, 2].max() > 200
