"""Settings of text-video retrieval: the paper's, and those of the moving shapes."""

from pathlib import Path

import pytest
from config_families.videos import Videos, shrink_model
from config_runs import LOADERS, learning_rates, load, student
from mmengine.optim import build_optim_wrapper

from mmtransmamba.datasets.video_text.shapes_captions import ShapesTokenizer

PAPER = [name for name in Videos().configs() if not name.startswith('quickstart')]
SHAPES = [name for name in Videos().configs() if name.startswith('quickstart')]
DATASETS = {'msrvtt': 32, 'didemo': 64}


@pytest.mark.parametrize('name', SHAPES)
def test_sizes_of_the_shapes_agree(name):
    cfg = load(name)
    tokenizer = ShapesTokenizer()
    model = cfg.model.teacher.model if 'teacher' in cfg.model else cfg.model
    text = model.clip.text_config
    assert text.vocab_size == tokenizer.vocab_size
    assert (text.bos_token_id, text.eos_token_id) == (tokenizer.bos, tokenizer.eos)
    assert cfg.tokenizer.type == 'mmtransmamba.ShapesTokenizer'
    train, test = cfg.train_dataloader.dataset, cfg.test_dataloader.dataset
    assert (train.split, test.split) == ('train', 'test')
    assert cfg.test_pipeline[0].num_frames == train.num_frames == test.num_frames


def test_shapes_student_and_teacher_belong_together():
    teacher, scratch, transfer = (
        load(f'quickstart/retrieval_{name}.py')
        for name in ('teacher', 'scratch', 'transfer')
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
    dataset = Path(name).stem.rpartition('_')[2]
    assert cfg.train_cfg.max_epochs == 5
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    assert cfg.auto_scale_lr.base_batch_size == 128
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
        load(f'video_retrieval/{model}_4xb32_{dataset}.py')
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
    cfg = load('video_retrieval/clip4clip-vit-b32_4xb32_msrvtt.py')
    shrink_model(cfg)
    cfg.model.update(aggregation='transformer')
    model = Videos().build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    rates = {
        id(p): group['lr'] for group in optimizer.param_groups for p in group['params']
    }
    for name, parameter in model.named_parameters():
        expected = 1e-4 if name.startswith('temporal') else 1e-7
        assert rates[id(parameter)] == pytest.approx(expected), name
