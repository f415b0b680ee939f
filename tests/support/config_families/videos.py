"""Retrieval of videos: painted frames in the place of decoded ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from config_runs import LOADERS, batches_of, count_on_meta, student
from mmengine.config import Config
from tiny_retrievers import CLIP

from config_families.base import Family
from mmtransmamba.datasets.video_text import write_captions
from mmtransmamba.registry import MODELS, TRANSFORMS
from mmtransmamba.utils import launch

NUM_VIDEOS = 6


@TRANSFORMS.register_module()
class PaintVideo:
    """Stands for a decoder: frames of another size for each name."""

    def __init__(self, num_frames: int, jitter: bool = False) -> None:
        self.num_frames = num_frames

    def __call__(self, results: dict) -> dict:
        number = int(Path(results['filename']).stem)
        shape = (240 + 10 * number, 320, 3)
        rng = np.random.default_rng(number)
        frames = [
            rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(self.num_frames)
        ]
        results.update(imgs=frames, img_shape=shape[:2], original_shape=shape[:2])
        results.update(clip_len=self.num_frames, num_clips=1)
        return results


def shrink_data(cfg: Config, folder: Path) -> None:
    """Generated videos under the pipelines of a config, words for CLIP's tokenizer."""
    for dataloader in map(cfg.get, LOADERS):
        dataloader.update(batch_size=3, num_workers=0)
        dataset = dataloader.dataset
        if dataset.type == 'mmtransmamba.MovingShapes':
            dataset.num_videos = NUM_VIDEOS
            continue
        assert dataset.type == 'mmtransmamba.VideoText'
        captions = {}
        for i in range(NUM_VIDEOS):
            path = folder / dataset.data_prefix.video / f'{i}.mp4'
            path.parent.mkdir(exist_ok=True)
            path.touch()
            captions[path.name] = [f'a b {"ab"[i % 2]}']
        write_captions(captions, folder / dataset.ann_file)
        dataset.data_root = str(folder)
        dataset.tokenizer = dict(type='mmtransmamba.WordTokenizer', words=['a', 'b'])
        assert dataset.pipeline[0].type == 'mmtransmamba.DecodeVideo'
        dataset.pipeline[0].type = 'mmtransmamba.PaintVideo'


def shrink_model(cfg: Config) -> None:
    """Make towers and backbone small and random; frames stay as they are."""
    models = [student(cfg)]
    if 'teacher' in cfg.model:
        cfg.model.teacher.checkpoint = 'random'
        models.append(cfg.model.teacher.model)
    for model in models:
        if isinstance(model.clip, str):
            model.clip = dict(
                projection_dim=16,
                text_config=dict(CLIP['text_config'], eos_token_id=4),
                vision_config=dict(
                    CLIP['vision_config'], image_size=224, patch_size=56
                ),
            )
        if 'backbone' in model:
            backbone = model.backbone
            backbone.pop('init_cfg', None)
            backbone.update(
                arch=dict(embed_dims=12, depth=2, d_state=4, d_conv=4, expand=2),
                patch_size=backbone.img_size // 4,
            )
            model.text_checkpoint = None


class Videos(Family):
    patterns = ('video_retrieval/*.py', 'quickstart/retrieval_*.py')
    # A softmax over the layers does not feel the bias that all of them get, attention
    # none of its keys'; the class token comes first in the last forward scan, before
    # anything has decayed; captions are shorter than the positions there are.
    still = (
        'weighting.net.2.bias',
        'k_proj.bias',
        'layers.1.mixer.A_log',
        'position_embedding.weight',
    )

    def shrink(self, cfg, root):
        if cfg.train_dataloader.dataset.type == 'mmtransmamba.VideoText':
            pytest.importorskip('mmaction')
        shrink_data(cfg, root)
        shrink_model(cfg)
        launch.set_dataloader_defaults(cfg)
        cfg.optim_wrapper.optimizer.lr = 1e-2  # what learns at 1e-7 moves visibly
        return cfg

    def build(self, cfg):
        cfg.model.data_preprocessor = cfg.data_preprocessor
        return super().build(cfg)

    def first_batch(self, cfg: Config, loader: str) -> dict:
        """A batch whose clips have the size that the config's model takes."""
        (batch,) = batches_of(cfg[loader], 1)
        papers = cfg.train_dataloader.dataset.type == 'mmtransmamba.VideoText'
        side, length = (224, 12) if papers else (32, 4)
        assert student(cfg).get('backbone', {}).get('num_frames', length) == length
        assert batch['video'].shape == (3, 3, length, side, side)
        assert batch['video'].dtype == torch.uint8
        return batch

    def batches(self, cfg):
        return 2 * [self.first_batch(cfg, 'train_dataloader')]

    def check_testing(self, name, cfg, model):
        batch = self.first_batch(cfg, 'val_dataloader')
        predictions = model.eval().val_step(batch)
        assert [p['video_id'] for p in predictions] == batch['video_id']
        for prediction in predictions:
            assert prediction['video_feat'].norm() == pytest.approx(1, abs=1e-4)
            captions = cfg.val_dataloader.dataset.get('captions_per_video', 1)
            assert len(prediction['text_feat']) == captions

    def shorten(self, cfg):
        cfg.train_cfg.max_epochs = 2
        return cfg

    def count_parameters(self, cfg):
        settings = student(cfg)
        settings.clip = {}  # transformers' defaults are those of ViT-B/32
        return count_on_meta(lambda: MODELS.build(settings))
