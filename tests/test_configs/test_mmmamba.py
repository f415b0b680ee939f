"""mmMamba's configs train and are tested, with sizes shrunk; the paper's values."""

from pathlib import Path

import pytest
import torch
from config_runs import (
    CONFIG_DIR,
    LOADERS,
    ROOT,
    evaluate,
    in_float32,
    logged,
    read_yaml,
    run,
    train,
)
from mmengine.config import Config
from mmengine.runner import Runner
from tiny_conversations import save_tiny_conversations
from tiny_patch_decoders import LAYOUTS, save_tiny_patch_decoder
from transformers import AutoModelForImageTextToText, AutoProcessor, LlamaConfig

from mmtransmamba.models.language import MAMBA, choose_layers
from mmtransmamba.models.multimodal import (
    PatchDecoderConfig,
    PatchDecoderForConditionalGeneration,
)
from mmtransmamba.models.trainable.stages import (
    STAGES,
    StageError,
    group_of_parameters,
)
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.convert import Conversion, convert, hybrid_config

FOLDER = CONFIG_DIR / 'multimodal' / 'mmmamba'
CONFIGS = sorted(path.name for path in FOLDER.glob('*.py'))
HISTORIES = {
    2: ['init:mimic', 'stage1'],
    3: ['init:mimic', 'stage1', 'stage2'],
}
LAYERS = dict(hybrid=[i for i in range(32) if i % 4], linear=list(range(32)))


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A teacher, students of earlier stages, and conversations."""
    root = tmp_path_factory.mktemp('mmmamba')
    save_tiny_patch_decoder(root / 'teacher')
    for stage in (2, 3):
        for kind, ratio in (('hybrid', 0.75), ('linear', 1.0)):
            student, _ = convert(root / 'teacher', 'interleaved', ratio)
            student.config.text_config.transfer_history = HISTORIES[stage]
            student.save_pretrained(root / f'{kind}-{stage}')
    return root, save_tiny_conversations(root / 'data')


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / name)


def parts(name: str) -> tuple[str, int]:
    """Kind and stage of a config."""
    kind, stage, *_ = name.split('_')
    return kind, int(stage[-1])


def shrink(cfg: Config, files) -> Config:
    """Put tiny models and a few conversations in the place of those of the config."""
    root, data = files
    teacher = str(root / 'teacher')
    kind, stage = parts(Path(cfg.filename).name)
    for key in LOADERS:
        cfg[key].update(batch_size=4, num_workers=0)
        if 'batch_size' in cfg[key].sampler:
            cfg[key].sampler.batch_size = 4
        cfg[key].dataset.update(processor=teacher, **data)
    cfg.model.teacher.path = teacher
    cfg.model.student.path = teacher if stage == 1 else str(root / f'{kind}-{stage}')
    cfg.model.teacher.dtype = 'float32'
    return in_float32(cfg)


def test_every_kind_has_its_three_stages():
    assert [parts(name) for name in CONFIGS] == [
        (kind, stage) for kind in ('hybrid', 'linear') for stage in (1, 2, 3)
    ]


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_predicts(name, files):
    cfg = shrink(load(name), files)
    kind, stage = parts(name)
    torch.manual_seed(0)
    batches = list(Runner.build_dataloader(cfg.train_dataloader, seed=0))
    # Batches of text alone are among them.
    assert {'pixel_values' in batch for batch in batches} == {True, False}
    model = MODELS.build(cfg.model).train()
    layout = 'attention first' if kind == 'hybrid' else 'pure'
    assert model.student.config.text_config.layer_types == LAYOUTS[layout]
    steps = train(cfg, model, batches)
    assert set(steps.losses) == {'loss', 'loss_kl' if stage == 3 else 'loss_mixer'}
    assert steps.changed == steps.trained
    learning = {key.split('self_attn.')[-1].split('.')[0] for key in steps.changed}
    new = {'A_log', 'dt_bias', 'dt_proj', 'conv1d', 'z_proj', 'norm'}
    assert learning == new | (set() if stage == 1 else {'x_proj', 'B_proj', 'C_proj'})

    assert evaluate(cfg, model)['token/kl'] > 0


@pytest.mark.parametrize('name', CONFIGS)
def test_parts_agree_with_each_other(name):
    cfg = load(name)
    kind, stage = parts(name)
    assert cfg.model.stage == f'stage{stage}'
    assert 'requires' not in cfg.model
    assert 'trains' not in cfg.model
    student, teacher = cfg.model.student, cfg.model.teacher
    for key in LOADERS:
        assert cfg[key].dataset.processor == teacher.path
    assert cfg.train_dataloader.dataset.files != cfg.val_dataloader.dataset.files
    assert cfg.test_dataloader == cfg.val_dataloader
    batch = cfg.train_dataloader.batch_size
    assert cfg.train_dataloader.sampler.batch_size == batch
    assert f'_8xb{batch}_' in name
    assert cfg.auto_scale_lr.base_batch_size == 8 * batch
    if stage == 1:
        assert student.path == teacher.path
        assert f'init:{student.convert.init}' in STAGES['stage1'].requires
    else:
        assert student.convert is None
        previous = Path(student.path).parent.name
        assert parts(f'{previous}.py') == (kind, stage - 1)
        assert f'{previous}.py' in CONFIGS
        assert student.path == f'work_dirs/{previous}/student'
    assert 'mmtransmamba.SaveStudentHook' in [hook.type for hook in cfg.custom_hooks]


@pytest.mark.parametrize('name', CONFIGS)
def test_the_papers_values(name):
    """Section 5.1, and Section 4.5 for the layers."""
    cfg = load(name)
    kind, stage = parts(name)
    lr, total = {1: (1e-3, 128), 2: (5e-4, 128), 3: (5e-5, 64)}[stage]
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.05
    )
    assert cfg.optim_wrapper.clip_grad.max_norm == 5.0
    assert 8 * cfg.train_dataloader.batch_size == total
    assert cfg.train_cfg.max_iters == 20000
    schedule = cfg.param_scheduler
    assert schedule.type == 'mmtransmamba.WSD'
    assert (schedule.warmup, schedule.decay) == (0.1, 0.1)
    terms = {key: term.type for key, term in cfg.model.terms.items() if term}
    expected = 'TokenKLTerm' if stage == 3 else 'MixerOutputTerm'
    assert list(terms.values()) == [f'mmtransmamba.{expected}']
    if stage == 1:
        convert = dict(cfg.model.student.convert)
        assert convert.pop('init') == 'mimic'
        layers = choose_layers(32, convert.get('layers', 'evenly'), convert['ratio'])
        assert layers == LAYERS[kind]


@pytest.mark.parametrize('kind', ['hybrid', 'linear'])
def test_the_three_stages_one_after_another(kind, files, tmp_path):
    """Each starts from the folder that the one before left, and its loss falls."""
    folder = None
    for stage in (1, 2, 3):
        (name,) = (name for name in CONFIGS if parts(name) == (kind, stage))
        cfg = shrink(load(name), files)
        if folder is not None:
            cfg.model.student.path = str(folder)
        cfg.train_cfg.update(max_iters=40, val_interval=40)
        # A tiny model needs larger steps than one of billions of parameters.
        cfg.optim_wrapper.optimizer.lr = 0.01 if stage < 3 else 0.002
        cfg.default_hooks.logger.interval = 1
        cfg.default_hooks.checkpoint.interval = 40
        cfg.randomness = dict(seed=0)
        run(cfg, tmp_path / name)
        records = logged(tmp_path / name)
        losses = [record['loss'] for record in records if 'loss' in record]
        assert len(losses) == 40
        assert sum(losses[-8:]) < 0.8 * sum(losses[:8]), (stage, losses)
        rates = [record['lr'] for record in records if 'lr' in record]
        assert rates[-1] == 0
        if stage < 3:
            # The folder is no start for this stage, nor for the last one.
            wrong = dict(cfg.model, stage='stage3' if stage == 1 else 'stage2')
            wrong['student'] = dict(
                type='mmtransmamba.VisionLanguageModel',
                path=str(tmp_path / name / 'student'),
            )
            with pytest.raises(StageError, match=f'> stage{stage}'):
                MODELS.build(wrong)
        folder = tmp_path / name / 'student'
    student = AutoModelForImageTextToText.from_pretrained(folder)
    text = student.config.get_text_config()
    assert text.transfer_history == ['init:mimic', 'stage1', 'stage2', 'stage3']
    assert text.layer_types.count(MAMBA) == (3 if kind == 'hybrid' else 4)
    assert AutoProcessor.from_pretrained(folder).patch_size == 8
    # What is frozen is the teacher's to the last bit.
    teacher = AutoModelForImageTextToText.from_pretrained(files[0] / 'teacher')
    kept = teacher.state_dict()
    for key, tensor in student.state_dict().items():
        if 'self_attn' not in key:
            assert torch.equal(tensor, kept[key]), key
        if key.endswith('self_attn.out_proj.weight'):
            assert torch.equal(tensor, kept[key.replace('out_proj', 'o_proj')]), key


def test_as_many_parameters_are_trained_as_the_paper_says():
    """Table 1: 14.7 % and 11.2 % of 2.7B, with the widths of InternLM2-1.8B."""
    text = LlamaConfig(
        vocab_size=92553,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=32,
        num_attention_heads=16,
        num_key_value_heads=8,
    )
    for kind, percent in (('linear', 14.7), ('hybrid', 11.2)):
        convert = load(f'{kind}_stage1_8xb16_hovle-2.6b.py').model.student.convert
        config = PatchDecoderConfig(
            text_config=hybrid_config(text, Conversion.of(**convert))
        )
        with torch.device('meta'):
            model = PatchDecoderForConditionalGeneration(config)
        groups = group_of_parameters(model)
        trained = sum(
            parameter.numel()
            for name, parameter in model.named_parameters()
            if groups[name] in STAGES['stage3'].trains
        )
        assert 100 * trained / 2.7e9 == pytest.approx(percent, abs=0.3)


def test_the_metafile_lists_every_config_once():
    metafile = read_yaml(FOLDER / 'metafile.yml')
    listed = [ROOT / model['Config'] for model in metafile['Models']]
    assert listed == [FOLDER / name for name in CONFIGS]
    assert [m['Name'] for m in metafile['Models']] == [path.stem for path in listed]
    (collection,) = metafile['Collections']
    assert (ROOT / collection['README']).is_file()
    assert {m['In Collection'] for m in metafile['Models']} == {collection['Name']}
