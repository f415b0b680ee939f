"""Every config of reasoning trains and is tested, with sizes shrunk."""

import json
import re
from pathlib import Path

import pytest
import torch
from config_runs import (
    CONFIG_DIR,
    LOADERS,
    convertible,
    in_float32,
    read_yaml,
    train,
)
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from tiny_vlms import save_tiny_llava, tiny_processor

from mmtransmamba.datasets.character_processor import character_processor
from mmtransmamba.datasets.shapes_reasoning import write_shapes_reasoning
from mmtransmamba.models.folders import load_vlm
from mmtransmamba.models.trainable.stages import STAGES, StageError
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.convert import convert
from mmtransmamba.utils.reasoning_text import STOP

FOLDER = CONFIG_DIR / 'multimodal' / 'reasoning'
NAMES = sorted(
    path.stem for path in FOLDER.glob('*.py') if not path.stem.startswith('shapes')
)
TEACHERS = [name for name in NAMES if name.startswith('reasoning-sft')]
STUDENTS = [name for name in NAMES if name not in TEACHERS]
LLAVA = ['init:llava', 'llava_pretrain', 'llava_finetune']
SIZES = dict(tie_word_embeddings=True, max_position_embeddings=1024)


def load(name):
    return Config.fromfile(FOLDER / f'{name}.py')


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Data, and models as the runs before leave them."""
    root = tmp_path_factory.mktemp('reasoning')
    write_shapes_reasoning(root, dict(teacher=4, student=4, val=4), side=16)
    save_tiny_llava(root / 'llava', **SIZES)
    llava = load_vlm(str(root / 'llava'))
    hybrid, _ = convert(llava, layers=[3], init='subclone')
    for name, model, history in (
        ('llava', llava, LLAVA),
        ('sft', llava, [*LLAVA, 'reasoning']),
        ('student', hybrid, [*LLAVA, 'init:subclone', 'transmamba']),
    ):
        model.config.text_config.transfer_history = history
        model.save_pretrained(root / name)
        tiny_processor().save_pretrained(root / name)
    return root


def shrink(cfg, folders):
    """Tiny models and data; answers of eight tokens."""

    def tiny(path):
        kind = re.search(r'reasoning-sft|llava_finetune|llava-mamba', path)[0]
        names = {'reasoning-sft': 'sft', 'llava_finetune': 'llava'}
        return str(folders / names.get(kind, 'student'))

    for key in LOADERS:
        loader = cfg[key]
        loader.update(batch_size=2, num_workers=0)
        loader.dataset.files = str(folders / Path(loader.dataset.files).name)
        loader.dataset.processor = tiny(loader.dataset.processor)
        loader.dataset.pop('image_root')
        if 'batch_size' in loader.sampler:
            loader.sampler.batch_size = 2
    model = cfg.model
    for part in (model, model.get('student', {}), model.get('teacher', {})):
        if 'path' in part:
            part.path = tiny(part.path)
    model.head.max_new_tokens = 8
    return in_float32(convertible(cfg))


@pytest.mark.parametrize('name', NAMES)
def test_trains_and_answers(name, folders):
    cfg = shrink(load(name), folders)
    torch.manual_seed(0)
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    assert batch['pixel_values'].shape[0] == 2
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    # Parameters that begin as zero hold gradients back.
    steps = train(cfg, model, [batch, batch])
    assert 'terms' in cfg.model or 'loss_task' in steps.losses
    # So small a Mamba-1 gives these gradients below Adam's epsilon.
    assert all('.dt_proj.' in key for key in steps.trained - steps.changed)
    assert not any('vision_tower' in key for key in steps.trained)

    rows, evaluator = [], Evaluator(cfg.test_evaluator)
    for batch in Runner.build_dataloader(cfg.test_dataloader):
        rows += model.eval().test_step(batch)
        evaluator.process(rows[-len(batch['answers']) :], batch)
    figures = evaluator.evaluate(len(rows))
    assert len(rows) == 4 and all(row['answer'].endswith(STOP) for row in rows)
    assert all(len(row['text']) <= 8 for row in rows)
    assert figures['reasoning/well_formed'] == figures['reasoning/accuracy'] == 0
    assert figures['reasoning/no_answer'] == 100


@pytest.mark.parametrize('name', TEACHERS)
def test_settings_of_the_teacher(name):
    cfg = load(name)
    size = name.rsplit('-', 1)[1]
    assert cfg.model.stage == 'reasoning'
    assert cfg.model.path == (
        f'work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-{size}/model'
    )
    before = Path(cfg.model.path).parent.name
    assert (FOLDER.parent / 'llava' / f'{before}.py').is_file()
    assert STAGES['reasoning'].requires == ('llava_finetune',)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 2e-5)
    assert cfg.train_dataloader.dataset.files == 'data/llava_cot/teacher.jsonl'
    assert [hook.folder for hook in cfg.custom_hooks] == ['model']


@pytest.mark.parametrize('name', STUDENTS)
def test_settings_of_the_students(name):
    cfg = load(name)
    size = name.rsplit('-', 1)[1]
    teacher = f'work_dirs/reasoning-sft_8xb16_clip-vit-l_llama-3.2-{size}/model'
    assert cfg.model.teacher.path == teacher
    student = cfg.model.student
    if '_continued_' in name:
        before = name.replace('_continued', '').removeprefix('reasoning-')
        assert student.path == f'work_dirs/{before}/student'
        assert student.convert is None and cfg.model.requires == 'transmamba'
        assert (FOLDER.parent / 'transmamba' / f'{before}.py').is_file()
    else:
        assert student.path == teacher and student.convert.init == 'subclone'
        assert ('13pct-high' in name) == (student.convert.ratio == 0.13)
        # Table VI: "a scheme analogous to that used in multimodal tasks".
        path = f'transmamba/{name.removeprefix("reasoning-")}.py'
        analogous = Config.fromfile(FOLDER.parent / path)
        assert student.convert == analogous.model.student.convert
        assert cfg.model.terms == analogous.model.terms
        assert cfg.model.stage == analogous.model.stage
        assert cfg.optim_wrapper == analogous.optim_wrapper
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('Adam', 2e-5)
    assert cfg.train_dataloader.dataset.files == 'data/llava_cot/student.jsonl'
    assert 'mmtransmamba.SaveStudentHook' in [hook.type for hook in cfg.custom_hooks]


@pytest.mark.parametrize('name', NAMES)
def test_parts_agree_with_each_other(name):
    cfg = load(name)
    folder = cfg.model.get('path') or cfg.model.teacher.path
    loaders = [cfg[f'{split}_dataloader'] for split in ('train', 'val', 'test')]
    for loader in loaders:
        # Tags that were added are in no other processor.
        assert loader.dataset.processor == folder
        assert loader.dataset.format == 'llava_cot'
    train, val, test = loaders
    assert val == test and val.dataset.prompts
    assert val.dataset.files == 'data/llava_cot/val.jsonl'
    assert train.dataset.too_long == 'skip'
    count, batch = map(int, re.search(r'_(\d+)xb(\d+)_', name).groups())
    assert train.batch_size == train.sampler.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == count * batch == 128
    assert cfg.train_cfg.max_epochs == 1
    assert cfg.model.head.type == 'mmtransmamba.ReasoningHead'
    assert cfg.model.head.max_new_tokens == 2048


# ---------------------------------------------------------------- generated shapes


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
    cfg = load(name)
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
    assert max(map(len, said)) < load('shapes_teacher').model.head.max_new_tokens

    cfg, runner = run_once('shapes_hybrid', shapes, monkeypatch)
    student = load_vlm(str(shapes / 'work_dirs' / 'shapes_hybrid' / 'student'))
    assert student.config.text_config.mamba_layers == [2, 3]
    assert student.config.text_config.transfer_history == [
        'finetuned',
        'init:subclone',
        'transmamba',
    ]


# ------------------------------------------------------------------- documentation


def test_metafile_and_readme_list_every_config():
    metafile = read_yaml(FOLDER / 'metafile.yml')
    assert sorted(model['Name'] for model in metafile['Models']) == NAMES
    readme = (FOLDER / 'README.md').read_text()
    # Of the same architectures, whose parameters are counted there.
    analogous = read_yaml(FOLDER.parent / 'metafile.yml')
    counts = {m['Name']: m['Metadata']['Parameters'] for m in analogous['Models']}
    for model in metafile['Models']:
        name = model['Name'].replace('_continued', '').removeprefix('reasoning-')
        name = name.replace('sft_', 'llava_finetune_')
        assert model['Metadata']['Parameters'] == counts[name]
        assert model['Config'] == f'configs/multimodal/reasoning/{model["Name"]}.py'
    for path in FOLDER.glob('*.py'):
        assert f']({path.name})' in readme


def test_a_llava_from_elsewhere(folders):
    """One whose history nobody wrote down."""
    cfg = shrink(load(TEACHERS[0]), folders)
    llava = load_vlm(cfg.model.path)
    llava.config.text_config.transfer_history = []
    cfg.model.path = str(folders / 'elsewhere')
    llava.save_pretrained(cfg.model.path)
    tiny_processor().save_pretrained(cfg.model.path)
    with pytest.raises(StageError, match="requires=''"):
        MODELS.build(cfg.model)
    MODELS.build(dict(cfg.model, requires=''))
