"""Classifiers of images: generated images under the pipelines of the config."""

from pathlib import Path

import numpy as np
import pytest
import torch
from config_runs import LOADERS, batches_of, count_on_meta, student
from mmengine.config import Config, ConfigDict
from mmpretrain.datasets import BaseDataset
from PIL import Image

from config_families.base import Family
from mmtransmamba.models import VRWKV, PlainMamba, Vim, VMamba
from mmtransmamba.models.backbones.arch import resolve_arch
from mmtransmamba.registry import DATASETS, MODELS

WIDTH = 16
GRID = 4
DEPTH = 2
NUM_SAMPLES = 16
NUM_LABELS = 4
TRANSFORMERS = 'mmtransmamba.TransformersTeacher'
DEITS = {
    'deit-tiny': dict(embed_dims=192),
    'deit-small': dict(embed_dims=384),
    'deit-base': dict(embed_dims=768),
}
ARCHS = {
    'mmtransmamba.PlainMamba': PlainMamba.ARCHS,
    'mmtransmamba.Vim': Vim.ARCHS,
    'mmtransmamba.VMamba': VMamba.ARCHS,
    'mmtransmamba.VRWKV': VRWKV.ARCHS,
}
# Of the backbones that are made for images of any size.
IMAGE_SIZES = {'mmtransmamba.Digits': 8}
# Sides of images that a data set gives as pixels; of CIFAR they are 32.
SIDES = {'mmtransmamba.ImagenetteShards': 96, 'mmtransmamba.RecordedViews': 72}


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
                sample['img_path'] = str(self.folder / f'{self.colour}_{i}.png')
                if not Path(sample['img_path']).exists():
                    Image.fromarray(image).save(sample['img_path'])
            else:
                sample['img'] = image
            samples.append(sample)
        return samples


def innermost(dataset: ConfigDict) -> ConfigDict:
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def arch_of(backbone: ConfigDict) -> dict:
    """The dimensions of a config's backbone."""
    if backbone.type != 'VisionTransformer':
        return resolve_arch(backbone.type, backbone.arch, ARCHS[backbone.type])
    return DEITS[backbone.arch] if isinstance(backbone.arch, str) else backbone.arch


def width_of(backbone: ConfigDict) -> int:
    """Channels that the head reads: in a model of stages those of the last."""
    arch = arch_of(backbone)
    return arch['embed_dims'] * 2 ** (len(arch.get('depths', [1])) - 1)


def image_size(cfg: Config) -> int:
    """Side in pixels of the images that a config's pipelines give the backbone."""
    dataset = innermost(cfg.val_dataloader.dataset).type
    return student(cfg).backbone.get('img_size', IMAGE_SIZES.get(dataset, 224))


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


def shrink_backbone(backbone: ConfigDict, side: int, depth: int) -> None:
    """Make it ``depth`` deep, ``WIDTH`` wide at its end, with ``GRID`` patches a side.

    Args:
        backbone: Config, changed in place.
        side: Side of its images in pixels.
        depth: Number of blocks, 2 at least.
    """
    arch = arch_of(backbone)
    if backbone.type == 'VisionTransformer':
        arch = dict(
            embed_dims=WIDTH,
            num_layers=depth,
            num_heads=2,
            feedforward_channels=2 * WIDTH,
        )
    elif 'depths' in arch:
        arch = dict(arch, embed_dims=WIDTH // 2, depths=(1, depth - 1))
    else:
        arch = dict(arch, embed_dims=WIDTH, depth=depth)
    backbone.update(arch=arch, patch_size=side // GRID, init_cfg=None)
    if 'img_size' in backbone:
        backbone.img_size = side


def small_side(cfg: Config) -> int:
    """Side in pixels of the images that the shrunk models take."""
    full = image_size(cfg)
    return next(s for s in range(min(full, 32), 0, -GRID) if full % s == 0)


def shrink_model(cfg: Config, side: int) -> None:
    """Make student and teacher narrow and shallow, the teacher random."""
    shrink_backbone(student(cfg).backbone, side, DEPTH)
    student(cfg).head.in_channels = WIDTH
    if 'teacher' not in cfg.model:
        return
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
        return
    if isinstance(teacher.model, str):
        config = Config.fromfile(teacher.model)
        teacher.update(
            model=config.model,
            mean=config.data_preprocessor.mean,
            std=config.data_preprocessor.std,
        )
    layer = cfg.model.get('teacher_layer', 'auto')
    shrink_backbone(
        teacher.model.backbone, side, 12 if isinstance(layer, int) else DEPTH
    )
    teacher.model.head.in_channels = WIDTH
    if cfg.model.get('num_tokens') is not None:
        cfg.model.num_tokens = GRID


def shrink_images(batch: dict, side: int) -> dict:
    images = batch['inputs']
    step = images[0].shape[-1] // side
    return dict(batch, inputs=[image[:, ::step, ::step] for image in images])


class Images(Family):
    patterns = (
        'image_classification/**/*.py',
        'quickstart/*digits_*.py',
        'quickstart/cifar10_*.py',
        'quickstart/imagenette_*.py',
        'quickstart/ablations/*.py',
    )
    # A softmax over the layers does not feel the bias that all of them get.
    still = ('weighting.net.2.bias',)

    def shrink(self, cfg, root):
        self.full, self.side = image_size(cfg), small_side(cfg)
        shrink_data(cfg, root)
        shrink_model(cfg, self.side)
        return cfg

    def build(self, cfg):
        cfg.model.data_preprocessor = cfg.data_preprocessor
        return super().build(cfg)

    def first_batch(self, cfg: Config, loader: str) -> dict:
        """A batch whose images have the size that the config's model takes."""
        (batch,) = batches_of(cfg[loader], 1)
        channels = student(cfg).backbone.get('in_channels', 3)
        for image in batch['inputs']:
            assert image.shape == (channels, self.full, self.full)
            assert image.dtype == torch.uint8
        return shrink_images(batch, self.side)

    def batches(self, cfg):
        return 2 * [self.first_batch(cfg, 'train_dataloader')]

    def check_training(self, name, cfg, model, steps):
        assert steps.trained == steps.every

    def check_testing(self, name, cfg, model):
        batch = self.first_batch(cfg, 'val_dataloader')
        with torch.no_grad():
            predictions = model.eval().test_step(batch)
        assert len(predictions) == len(batch['inputs'])
        for sample in predictions:
            assert sample.pred_score.shape == (cfg.data_preprocessor.num_classes,)
            assert sample.pred_score.sum() == pytest.approx(1, abs=1e-4)

    def shorten(self, cfg):
        """One step an epoch, so that warm-up, decay and averaging all take part."""
        for dataloader in map(cfg.get, LOADERS):
            dataloader.batch_size = 12
            resize = dict(type='Resize', scale=self.side)
            innermost(dataloader.dataset).pipeline.insert(-1, resize)
        cfg.train_cfg.update(max_epochs=6, val_interval=6)
        return cfg

    def count_parameters(self, cfg):
        return count_on_meta(lambda: MODELS.build(student(cfg)))
