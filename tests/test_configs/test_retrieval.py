"""Every config of text-video retrieval trains and predicts, shrunk; its values."""

from pathlib import Path

import numpy as np
import pytest
import torch
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
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from tiny_retrievers import CLIP
from torch import nn

from mmtransmamba.datasets.video_text import write_captions
from mmtransmamba.datasets.video_text.shapes_captions import ShapesTokenizer
from mmtransmamba.registry import MODELS, TRANSFORMS
from mmtransmamba.utils import launch

SCOPE = 'mmpretrain'
PAPER = sorted(p.stem for p in (CONFIG_DIR / 'video_retrieval').glob('*.py'))
SHAPES = sorted(p.stem for p in (CONFIG_DIR / 'quickstart').glob('retrieval_*.py'))
DATASETS = {'msrvtt': 32, 'didemo': 64}
NUM_VIDEOS = 6


def load(name: str) -> Config:
    folder = 'quickstart' if name in SHAPES else 'video_retrieval'
    return Config.fromfile(CONFIG_DIR / folder / f'{name}.py')


def is_transfer(cfg: Config) -> bool:
    return 'teacher' in cfg.model


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
    if is_transfer(cfg):
        cfg.model.teacher.checkpoint = 'random'
        models.append(cfg.model.teacher.model)
    for model in models:
        if isinstance(model.clip, str):
            side = 224
            model.clip = dict(
                projection_dim=16,
                text_config=dict(CLIP['text_config'], eos_token_id=4),
                vision_config=dict(
                    CLIP['vision_config'], image_size=side, patch_size=56
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


def build(cfg: Config) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS.build(cfg.model | dict(data_preprocessor=cfg.data_preprocessor))
    model.init_weights()
    return model


# ----------------------------------------------------------------- every config


@pytest.mark.parametrize('name', PAPER + SHAPES)
def test_trains_and_predicts(name, tmp_path):
    cfg = load(name)
    if name in PAPER:
        pytest.importorskip('mmaction')
    frames = student(cfg).get('backbone', {}).get('num_frames')
    shrink_data(cfg, tmp_path)
    shrink_model(cfg)
    launch.set_dataloader_defaults(cfg)
    train_batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    val_batch = next(iter(Runner.build_dataloader(cfg.val_dataloader, seed=0)))
    side, length = (224, 12) if name in PAPER else (32, 4)
    assert frames in (None, length)
    for batch in (train_batch, val_batch):
        assert batch['video'].shape == (3, 3, length, side, side)
        assert batch['video'].dtype == torch.uint8

    cfg.optim_wrapper.optimizer.lr = 1e-2  # what learns at 1e-7 moves visibly
    model = build(cfg)
    # Projections that start at zero let gradients through at the second step.
    steps = train(cfg, model, [train_batch, train_batch])
    # A softmax over the layers does not feel the bias that all of them get, attention
    # none of its keys'; the class token comes first in the last forward scan, before
    # anything has decayed; captions are shorter than the positions there are.
    still = (
        'weighting.net.2.bias',
        'k_proj.bias',
        'layers.1.mixer.A_log',
        'position_embedding.weight',
    )
    assert not [key for key in steps.trained - steps.changed if not key.endswith(still)]

    model.eval()
    predictions = model.val_step(val_batch)
    assert [p['video_id'] for p in predictions] == val_batch['video_id']
    for prediction in predictions:
        assert prediction['video_feat'].norm() == pytest.approx(1, abs=1e-4)
        assert len(prediction['text_feat']) == (1 if name in PAPER else 2)


@pytest.mark.parametrize('name', SHAPES)
def test_sizes_of_the_shapes_agree(name):
    cfg = load(name)
    tokenizer = ShapesTokenizer()
    model = cfg.model.teacher.model if is_transfer(cfg) else cfg.model
    text = model.clip.text_config
    assert text.vocab_size == tokenizer.vocab_size
    assert (text.bos_token_id, text.eos_token_id) == (tokenizer.bos, tokenizer.eos)
    assert cfg.tokenizer.type == 'mmtransmamba.ShapesTokenizer'
    train, test = cfg.train_dataloader.dataset, cfg.test_dataloader.dataset
    assert (train.split, test.split) == ('train', 'test')
    assert cfg.test_pipeline[0].num_frames == train.num_frames == test.num_frames


def test_shapes_student_and_teacher_belong_together():
    teacher, scratch, transfer = (
        load(f'retrieval_{name}') for name in ('teacher', 'scratch', 'transfer')
    )
    assert scratch.model == transfer.model.student
    assert transfer.model.teacher.model == teacher.model
    for cfg in (scratch, transfer):
        checkpoint = (
            f'work_dirs/retrieval_teacher/epoch_{teacher.train_cfg.max_epochs}.pth'
        )
        assert student(cfg).text_checkpoint == checkpoint
        assert cfg.train_dataloader == scratch.train_dataloader
        assert cfg.train_cfg == scratch.train_cfg
    assert transfer.model.teacher.checkpoint == checkpoint


# ------------------------------------------------------------- the paper's values


@pytest.mark.parametrize('name', PAPER)
def test_settings_of_the_paper(name):
    cfg = load(name)
    dataset = name.rpartition('_')[2]
    assert cfg.train_cfg.max_epochs == 5
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    assert (
        4 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 128
    )
    rates = learning_rates(cfg, 40)
    assert len(rates) == 200
    assert max(rates) == pytest.approx(1e-4)
    assert rates.index(max(rates)) == pytest.approx(20, abs=1)
    assert rates[110] == pytest.approx(5e-5, rel=0.02)
    assert rates[-1] < 1e-7
    for dataloader in map(cfg.get, LOADERS):
        assert dataloader.dataset.data_root == f'data/{dataset}'
        assert dataloader.dataset.tokenizer.max_length == DATASETS[dataset]
    assert cfg.tokenizer == cfg.test_dataloader.dataset.tokenizer
    assert cfg.test_pipeline == cfg.test_dataloader.dataset.pipeline
    assert cfg.test_dataloader.dataset.test_mode


@pytest.mark.parametrize('dataset', DATASETS)
def test_main_settings(dataset):
    clip4clip, mamba, trans = (
        load(f'{model}_4xb32_{dataset}')
        for model in ('clip4clip-vit-b32', 'video-mamba-m', 'trans-video-mamba-m')
    )
    assert clip4clip.model == trans.model.teacher.model
    assert mamba.model == trans.model.student
    assert mamba.model.backbone.arch == 'middle'
    assert trans.model.teacher.checkpoint == mamba.model.text_checkpoint
    assert trans.model.alpha == 0.5
    assert set(trans.model.terms) == {'similarity', 'feature', 'direction'}
    for key in ('optim_wrapper', 'param_scheduler', 'train_dataloader'):
        assert mamba[key] == trans[key]


def test_rates_of_what_is_clips():
    cfg = load('clip4clip-vit-b32_4xb32_msrvtt')
    shrink_model(cfg)
    cfg.model.update(aggregation='transformer')
    model = build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    rates = {
        id(p): group['lr'] for group in optimizer.param_groups for p in group['params']
    }
    for name, parameter in model.named_parameters():
        expected = 1e-4 if name.startswith('temporal') else 1e-7
        assert rates[id(parameter)] == pytest.approx(expected), name


# ------------------------------------------------------------------ whole runs


def test_runner_with_hooks(tmp_path):
    cfg = load('trans-video-mamba-m_4xb32_msrvtt')
    pytest.importorskip('mmaction')
    shrink_data(cfg, tmp_path)
    shrink_model(cfg)
    launch.set_dataloader_defaults(cfg)
    cfg.train_cfg.max_epochs = 2
    cfg.custom_hooks[0].interval = 1
    run(cfg, tmp_path / 'work')

    work = tmp_path / 'work'
    state = torch.load(work / 'epoch_2.pth', weights_only=False)['state_dict']
    names = {k for k in state if not k.startswith('distiller.')}
    assert names == set(MODELS.build(student(cfg)).state_dict())
    records = logged(work)
    assert any('retrieval/t2v_R@1' in record for record in records)
    assert any('layer_weight' in key for record in records for key in record)


# --------------------------------------------------------------------- metafile


def test_metafile_lists_every_config():
    path = 'configs/video_retrieval/metafile.yml'
    assert path in read_yaml(ROOT / 'model-index.yml')['Import']
    metafile = read_yaml(ROOT / path)
    listed = [model['Config'] for model in metafile['Models']]
    assert sorted(listed) == [f'configs/video_retrieval/{name}.py' for name in PAPER]
    collections = {each['Name'] for each in metafile['Collections']}
    for model in metafile['Models']:
        assert model['Name'] == Path(model['Config']).stem
        assert model['In Collection'] in collections


def test_metafile_counts_parameters_right():
    path = ROOT / 'configs' / 'video_retrieval' / 'metafile.yml'
    for model in read_yaml(path)['Models']:
        settings = student(load(model['Name']))
        settings.clip = {}  # transformers' defaults are those of ViT-B/32
        with torch.device('meta'):
            built = MODELS.build(settings)
        total = sum(p.numel() for p in built.parameters())
        assert model['Metadata']['Parameters'] == total, model['Name']
