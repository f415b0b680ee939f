"""Settings of the reasoning configs; the example on shapes with its own paths."""

import json

import pytest
from config_families.reasoning import Reasoning
from config_runs import CONFIG_DIR, NAMES, load, student
from mmengine.runner import Runner
from tiny_vlms import tiny_processor

from mmtransmamba.datasets.character_processor import character_processor
from mmtransmamba.datasets.shapes_reasoning import write_shapes_reasoning
from mmtransmamba.models.folders import load_vlm
from mmtransmamba.models.trainable.stages import StageError
from mmtransmamba.registry import MODELS

FOLDER = CONFIG_DIR / 'multimodal' / 'reasoning'
CONFIGS = [name for name in Reasoning().configs() if '/shapes_' not in name]
TEACHERS = [name for name in CONFIGS if 'reasoning-sft' in name]


@pytest.mark.parametrize('name', CONFIGS)
def test_data_and_head_of_the_recipe(name):
    cfg = load(name)
    teaches = name in TEACHERS
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    part = 'teacher' if teaches else 'student'
    assert train.files == f'data/llava_cot/{part}.jsonl'
    assert val.files == 'data/llava_cot/val.jsonl'
    assert val.prompts and train.too_long == 'skip'
    for dataset in (train, val):
        # Tags that were added are in no other processor.
        assert dataset.processor == (cfg.model.get('path') or cfg.model.teacher.path)
        assert dataset.format == 'llava_cot'
    assert cfg.model.head.type == 'mmtransmamba.ReasoningHead'
    assert cfg.model.head.max_new_tokens == 2048


@pytest.mark.parametrize('name', [n for n in CONFIGS if n not in TEACHERS])
def test_students_are_those_of_the_multimodal_tasks(name):
    """Table VI: "a scheme analogous to that used in multimodal tasks"."""
    cfg = load(name)
    stem = name.rpartition('/')[2].removeprefix('reasoning-')
    analogous = NAMES[stem.replace('_continued', '').removesuffix('.py')]
    if '_continued_' in name:
        before = student(cfg).path.split('/')[1]
        assert NAMES[before] == analogous and cfg.model.requires == 'transmamba'
        return
    analogous = load(analogous)
    assert student(cfg).convert == student(analogous).convert
    for key in ('terms', 'stage'):
        assert cfg.model[key] == analogous.model[key]
    assert cfg.optim_wrapper == analogous.optim_wrapper


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """The folder that the example is run in, after the data have been made."""
    folder = tmp_path_factory.mktemp('shapes')
    data = folder / 'data' / 'shapes_reasoning'
    write_shapes_reasoning(data, dict(train=8, val=4), side=16)
    character_processor(16, 8).save_pretrained(data / 'processor')
    return folder


def run_once(name, folder, monkeypatch):
    """Train one iteration and validate, with the config's own paths."""
    monkeypatch.chdir(folder)
    cfg = load(f'multimodal/reasoning/{name}.py')
    cfg.work_dir = f'work_dirs/{name}'
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.model.head.max_new_tokens = 8
    # Its length is that of the training, of which a tenth is to be an iteration.
    cfg.pop('param_scheduler')
    runner = Runner.from_cfg(cfg)
    runner.train()
    return cfg, runner


def test_the_example_on_shapes(shapes, monkeypatch):
    cfg, runner = run_once('shapes_teacher', shapes, monkeypatch)
    figures = runner.val_loop.evaluator.metrics
    assert [type(m).__name__ for m in figures] == [
        'ReasoningFormat',
        'ReasoningAccuracy',
    ]
    parameters = sum(p.numel() for p in runner.model.parameters())
    assert parameters == 452_096
    teacher = load_vlm(str(shapes / 'work_dirs' / 'shapes_teacher' / 'model'))
    assert teacher.generation_config.eos_token_id == 2
    # A response of the data is no longer than what may be generated.
    lines = (shapes / 'data/shapes_reasoning/train.jsonl').read_text().splitlines()
    said = [json.loads(line)['conversations'][1]['value'] for line in lines]
    assert (
        max(map(len, said))
        < load('multimodal/reasoning/shapes_teacher.py').model.head.max_new_tokens
    )

    cfg, runner = run_once('shapes_hybrid', shapes, monkeypatch)
    student = load_vlm(str(shapes / 'work_dirs' / 'shapes_hybrid' / 'student'))
    assert student.config.text_config.mamba_layers == [2, 3]
    assert student.config.text_config.transfer_history == [
        'finetuned',
        'init:subclone',
        'transmamba',
    ]


def test_the_readme_lists_every_config():
    readme = (FOLDER / 'README.md').read_text()
    for path in FOLDER.glob('*.py'):
        assert f']({path.name})' in readme


def test_a_llava_from_elsewhere(shrunk, tmp_path):
    """One whose history nobody wrote down."""
    cfg = shrunk(TEACHERS[0])
    llava = load_vlm(cfg.model.path)
    llava.config.text_config.transfer_history = []
    llava.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    cfg.model.path = str(tmp_path)
    with pytest.raises(StageError, match="requires=''"):
        MODELS.build(cfg.model)
    MODELS.build(dict(cfg.model, requires=''))
