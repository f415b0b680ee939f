"""Every LLaVA config trains and is tested, with sizes shrunk; the papers' values."""

import json
import re
from pathlib import Path

import pytest
import torch
from config_families import optimizer_of
from config_runs import (
    CONFIG_DIR,
    LOADERS,
    ROOT,
    convertible,
    evaluate,
    in_float32,
    layers_of,
    read_yaml,
    run,
    teacher_of,
    train,
)
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image
from tiny_llavas import save_language_model, save_tower
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    PhiConfig,
    SiglipVisionConfig,
)

from mmtransmamba.models.folders import assemble_llava, load_vlm
from mmtransmamba.models.multimodal import (
    HybridLlavaConfig,
    HybridLlavaForConditionalGeneration,
)
from mmtransmamba.models.trainable.stages import STAGES, history_of
from mmtransmamba.registry import MODELS, PARAM_SCHEDULERS
from mmtransmamba.transfer.convert import Conversion, hybrid_config

FOLDER = CONFIG_DIR / 'multimodal'
FOLDERS = ('llava', 'transmamba', 'matvlm')
CONFIGS = sorted(
    path.relative_to(FOLDER).as_posix()
    for folder in FOLDERS
    for path in (FOLDER / folder).rglob('*.py')
)
TEACHERS = [name for name in CONFIGS if name.startswith('llava/')]
RECIPES = [name for name in CONFIGS if name not in TEACHERS]
HISTORIES = {
    'llava_pretrain': ['init:llava'],
    'llava_finetune': ['init:llava', 'llava_pretrain'],
    'done': ['init:llava', 'llava_pretrain', 'llava_finetune'],
}


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / name)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Tiny LLaVAs of a Llama and a Phi before each stage, and conversations."""
    root = tmp_path_factory.mktemp('llava')
    for family, tower in (('llama', 'clip'), ('phi', 'siglip')):
        vision = save_tower(root / tower, tower)
        language = save_language_model(root / 'lm', family, num_hidden_layers=4)
        model, processor = assemble_llava(vision, language)
        for stage, history in HISTORIES.items():
            model.config.text_config.transfer_history = history
            model.save_pretrained(root / family / stage)
            processor.save_pretrained(root / family / stage)
    Image.new('RGB', (20, 20), (200, 30, 30)).save(root / 'red.png')
    rows = [
        {
            'id': str(i),
            'image': 'red.png',
            'conversations': [
                {'from': 'human', 'value': '<image>\nWhat is it?'},
                {'from': 'gpt', 'value': f'{i} red'},
            ],
        }
        for i in range(8)
    ]
    for row in rows[4:]:
        del row['image']
        row['conversations'][0]['value'] = 'Who?'
    (root / 'mixed.json').write_text(json.dumps(rows))
    (root / 'images.json').write_text(json.dumps(rows[:4]))
    return root


def shrink(cfg: Config, folders: Path) -> Config:
    """Put tiny models and data in the place of those of the config."""
    family = folders / ('phi' if 'phi' in cfg.filename else 'llama')
    model = cfg.model
    if model.type == 'mmtransmamba.VisionLanguageModel':
        model.path = str(family / model.stage)
        processor = model.path
    else:
        model.teacher.path = model.student.path = processor = str(family / 'done')
    for key in LOADERS:
        cfg[key].update(batch_size=2, num_workers=0)
        if 'batch_size' in cfg[key].sampler:
            cfg[key].sampler.batch_size = 2
        captions = 'LLaVA-Pretrain' in cfg[key].dataset.files
        cfg[key].dataset.update(
            files=str(folders / ('images.json' if captions else 'mixed.json')),
            image_root=str(folders),
            processor=processor,
            cache_dir=str(folders / 'index'),
        )
    return in_float32(convertible(cfg))


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_predicts(name, folders):
    cfg = shrink(load(name), folders)
    torch.manual_seed(0)
    batches = list(Runner.build_dataloader(cfg.train_dataloader, seed=0))
    # Batches with images, and in the mixtures batches without.
    kinds = {'pixel_values' in batch for batch in batches}
    captions = cfg.model.get('stage') == 'llava_pretrain'
    assert kinds == ({True} if captions else {True, False})
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    steps = train(cfg, model, batches)
    assert 'terms' in cfg.model or 'loss_task' in steps.losses
    # Terms on layers alone give the connector no gradient, and so small a Mamba-1
    # gives these below Adam's epsilon. Of the last words only some are in the batch.
    spared = ('.dt_proj.', '.B_', '.C_')
    if 'table4_layer' in name:
        spared += ('multi_modal_projector',)
    assert all(
        any(part in key for part in spared) for key in steps.trained - steps.changed
    )
    assert not any('vision_tower' in key for key in steps.trained)

    metrics = evaluate(cfg, model)
    assert metrics['token/ppl'] > 1
    assert ('token/kl' in metrics) == (name in RECIPES)


@pytest.mark.parametrize('name', CONFIGS)
def test_parts_agree_with_each_other(name):
    cfg = load(name)
    model = cfg.model
    assert model.stage in STAGES
    assert 'requires' not in model
    teacher = teacher_of(name)
    processor = f'checkpoints/llava-{teacher}'
    for key in LOADERS:
        assert cfg[key].dataset.processor == processor
    assert cfg.train_dataloader.dataset != cfg.val_dataloader.dataset
    assert cfg.test_dataloader == cfg.val_dataloader
    (hook,) = (h for h in cfg.custom_hooks if h.type == 'mmtransmamba.SaveStudentHook')
    count, batch = (
        map(int, re.search(r'_(\d+)xb(\d+)_', name).groups())
        if ('ablations' not in name)
        else (None, cfg.train_dataloader.batch_size)
    )
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.train_dataloader.sampler.get('batch_size', batch) == batch
    assert count is None or cfg.auto_scale_lr.base_batch_size == count * batch
    if name in RECIPES:
        # From the folder that the teacher's training leaves.
        assert hook.get('folder', 'student') == 'student'
        assert model.student.path == model.teacher.path
        run, folder = Path(model.teacher.path).parts[1:]
        assert f'init:{model.student.convert.init}' in STAGES[model.stage].requires
        assert load(f'llava/{run}.py').model.stage == 'llava_finetune'
    elif model.stage == 'llava_finetune':
        run, folder = Path(model.path).parts[1:]
        before = load(f'llava/{run}.py')
        assert before.model.stage == 'llava_pretrain'
        assert run.split('_')[3:] == Path(name).stem.split('_')[3:]
    else:
        assert model.path == processor
        return
    assert folder == 'model'
    before = load(f'llava/{run}.py')
    assert teacher_of(run) == teacher
    hooks = {h.type: h for h in before.custom_hooks}
    assert hooks['mmtransmamba.SaveStudentHook'].folder == 'model'


# ------------------------------------------------------------ the papers' values


@pytest.mark.parametrize('model', ['clip-vit-l_llama-3.2-1b', 'siglip-so400m_phi-2'])
@pytest.mark.parametrize(
    'stage, lr, batch', [('pretrain', 1e-3, 256), ('finetune', 2e-5, 128)]
)
def test_llava(stage, lr, batch, model):
    cfg = load(f'llava/llava_{stage}_8xb{batch // 8}_{model}.py')
    assert cfg.model.stage == f'llava_{stage}'
    assert optimizer_of(cfg) == ('AdamW', lr, (0.9, 0.999), 0.0)
    assert cfg.train_cfg.max_epochs == 1
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=lr)
    schedule = PARAM_SCHEDULERS.build(
        dict(cfg.param_scheduler) | dict(end=1),
        default_args=dict(optimizer=optimizer, epoch_length=1000),
    )
    assert schedule.warmup == 30
    assert schedule.factor(30)[0] == pytest.approx(1, abs=1e-3)
    assert schedule.factor(515)[0] == pytest.approx(0.5, abs=1e-2)
    assert schedule.factor(999)[0] == 0
    plain = cfg.train_dataloader.dataset.get('template') == 'llava_plain'
    assert plain == (stage == 'pretrain')


def test_transmamba():
    cfg = load('transmamba/llava-mamba_8xb16_llama-3.2-1b.py')
    assert optimizer_of(cfg) == ('Adam', 2e-5, (0.9, 0.999), 0)
    assert cfg.train_cfg.max_epochs == 1
    assert cfg.auto_scale_lr.base_batch_size == 128
    assert layers_of(cfg, 'llama-3.2-1b') == list(range(16))
    terms = {key: MODELS.build(term) for key, term in cfg.model.terms.items() if term}
    assert {k: t.weight for k, t in terms.items()} == dict(task=0.5, hidden=0.5)
    logits = load('transmamba/llava-mamba-logits_8xb16_llama-3.2-1b.py')
    assert logits.model.terms.pop('kl').weight == 0.5
    assert logits.to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    'name, layers',
    [
        ('llava-mamba-hybrid-13pct-high_8xb16', [14, 15]),
        ('ablations/table11_25pct-high_clip-vit-l', [12, 13, 14, 15]),
        ('ablations/table11_50pct-high_clip-vit-l', list(range(8, 16))),
        ('ablations/table11_50pct-low_clip-vit-l', list(range(8))),
        (
            'ablations/table11_50pct-interleaved_clip-vit-l',
            list(range(1, 16, 2)),
        ),
        ('ablations/table11_75pct-high_clip-vit-l', list(range(4, 16))),
    ],
)
def test_transmamba_table_11(name, layers):
    cfg = load(f'transmamba/{name}_llama-3.2-1b.py')
    assert layers_of(cfg, 'llama-3.2-1b') == layers
    main = load('transmamba/llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-1b.py')
    cfg.model.student.convert = main.model.student.convert
    assert cfg.to_dict() == main.to_dict()


@pytest.mark.parametrize('percent, count', [('12p5', 4), ('25', 8), ('50', 16)])
def test_matvlm(percent, count):
    cfg = load(f'matvlm/matvlm-{percent}pct_4xb16_siglip-so400m_phi-2.py')
    assert optimizer_of(cfg) == ('AdamW', 2e-4, (0.9, 0.95), 0.01)
    assert cfg.auto_scale_lr.base_batch_size == 64
    layers = layers_of(cfg, 'phi-2')
    assert {b - a for a, b in zip(layers, layers[1:], strict=False)} == {32 // count}
    terms = {key: term.weight for key, term in cfg.model.terms.items() if term}
    assert terms == dict(kl=1.0, layer=1.0)
    assert cfg.model.student.convert.init == 'vkq'
    assert cfg.train_dataloader.dataset.format == 'sharegpt4v'


@pytest.mark.parametrize(
    'row', ['early', 'middle', 'late', 'kl', 'layer', 'task', 'kl-layer-task']
)
def test_matvlm_tables(row):
    """The rows differ from the main config as those of the language model do."""
    place = row in ('early', 'middle', 'late')
    table = f'table{3 if place else 4}_{row}_siglip-so400m_phi-2.py'
    cfg = load(f'matvlm/ablations/{table}')
    main = load('matvlm/matvlm-25pct_4xb16_siglip-so400m_phi-2.py')
    if place:
        assert cfg.model.student.convert.pop('layers') == row
        main.model.student.convert.pop('layers')
    else:
        on = {key for key, term in cfg.model.terms.items() if term}
        assert on == set(row.split('-'))
        cfg.model.terms = main.model.terms
    assert cfg.to_dict() == main.to_dict()


# --------------------------------------------------------------------- metafile


def test_metafile_lists_every_main_config():
    metafile = read_yaml(FOLDER / 'metafile.yml')
    listed = [model['Config'] for model in metafile['Models']]
    main = {f'configs/multimodal/{name}' for name in CONFIGS if 'ablations' not in name}
    assert main <= set(listed)
    assert all((ROOT / name).is_file() for name in listed)
    collections = {each['Name'] for each in metafile['Collections']}
    for model in metafile['Models']:
        assert model['Name'] == Path(model['Config']).stem
        assert model['In Collection'] in collections


LLAMA = dict(
    vocab_size=128257,
    num_attention_heads=32,
    num_key_value_heads=8,
    intermediate_size=8192,
    tie_word_embeddings=True,
)
TEXTS = {
    'llama-3.2-1b': LlamaConfig(
        **LLAMA | dict(hidden_size=2048, num_hidden_layers=16, head_dim=64)
    ),
    'llama-3.2-3b': LlamaConfig(
        **LLAMA
        | dict(
            hidden_size=3072,
            num_hidden_layers=28,
            head_dim=128,
            num_attention_heads=24,
        )
    ),
    'phi-2': PhiConfig(
        vocab_size=51200,
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
        partial_rotary_factor=0.4,
    ),
}
TOWER_OF = {
    'llama': CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    ),
    'phi': SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    ),
}


def test_metafile_counts_parameters_right():
    """Of the models in their real sizes."""
    metafile = read_yaml(FOLDER / 'metafile.yml')
    counted = {}
    for model in metafile['Models']:
        name = model['Config'].removeprefix('configs/multimodal/')
        if name not in CONFIGS:
            continue
        cfg, teacher = load(name), teacher_of(name)
        text = TEXTS[teacher]
        if name in RECIPES:
            convert = dict(cfg.model.student.convert)
            convert.pop('mamba_checkpoint', None)
            text = hybrid_config(text, Conversion.of(**convert))
        config = HybridLlavaConfig(
            text_config=text,
            vision_config=TOWER_OF[teacher.split('-')[0]],
            lm_head_bias='phi' in teacher,
        )
        key = (teacher, str(getattr(text, 'layer_types', None)))
        if key not in counted:
            with torch.device('meta'):
                built = HybridLlavaForConditionalGeneration(config)
            counted[key] = sum(p.numel() for p in built.parameters())
        assert model['Metadata']['Parameters'] == counted[key], (name, counted[key])


# ------------------------------------------------------------------ whole runs


def test_from_two_folders_to_a_student(folders, tmp_path):
    """Pre-training, fine-tuning, distillation, each from the folder of the last."""
    last = None
    for name, model in (
        ('llava/llava_pretrain_8xb32_clip-vit-l_llama-3.2-1b.py', 'model'),
        ('llava/llava_finetune_8xb16_clip-vit-l_llama-3.2-1b.py', 'model'),
        ('transmamba/llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-1b.py', 'student'),
    ):
        cfg = shrink(load(name), folders)
        if last is not None and model == 'model':
            cfg.model.path = last
        elif last is not None:
            cfg.model.student.path = cfg.model.teacher.path = last
        cfg.default_hooks.logger.interval = 1
        run(cfg, tmp_path / cfg.model.stage)
        before, last = last, f'{cfg.work_dir}/{model}'
        saved = load_vlm(last)
        assert history_of(saved)[-1] == cfg.model.stage
        processor = AutoProcessor.from_pretrained(last)
        assert '<image>' in processor.tokenizer.get_vocab()
        assert "USER: '" in processor.chat_template
    assert history_of(saved) == [
        *HISTORIES['done'],
        'init:subclone',
        'transmamba',
    ]
    teacher = load_vlm(before).state_dict()
    for key, value in saved.state_dict().items():
        if 'vision_tower' in key:
            assert torch.equal(value, teacher[key])

    # The student answers questions, with and without images in one batch.
    loader = Runner.build_dataloader(
        dict(
            batch_size=3,
            num_workers=0,
            dataset=cfg.test_dataloader.dataset | dict(processor=last, prompts=True),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='mmtransmamba.collate_conversations'),
        )
    )
    head = dict(type='mmtransmamba.AnswerHead', max_new_tokens=4)
    model = MODELS.build(
        dict(type='mmtransmamba.VisionLanguageModel', path=last, head=head)
    )
    predictions = [p for batch in loader for p in model.eval().test_step(batch)]
    assert [p['answer'] for p in predictions] == [f'{i} red' for i in range(8)]
    assert [p['question_id'] for p in predictions] == [str(i) for i in range(8)]
    assert all(len(p['text']) <= 4 for p in predictions)
