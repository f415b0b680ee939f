"""Configs of a training run are read without running them."""

import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

import mmtransmamba
from mmtransmamba.apis import configs
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.config_data import read_dumped_config


@pytest.mark.parametrize('name', configs.list_models('*digits*')[:6] + ['vqa_teacher'])
def test_a_dumped_config_is_read_as_mmengine_reads_it(name, tmp_path):
    config = configs.get_config(name)
    config.dump(tmp_path / 'dumped.py')
    read = read_dumped_config(tmp_path / 'dumped.py')
    assert read.to_dict() == Config.fromfile(tmp_path / 'dumped.py').to_dict()


def test_every_kind_of_value_survives(tmp_path):
    values = dict(
        a=-1.5e-3,
        b=(1, None, True),
        c={'x y': [float('inf'), -float('inf')], 3: 's'},
        d='a "quoted" line\nand another',
        e=dict(f=dict(), g=[]),
    )
    Config(values).dump(tmp_path / 'dumped.py')
    assert read_dumped_config(tmp_path / 'dumped.py').to_dict() == values


@pytest.mark.parametrize(
    'text',
    [
        'import os',
        'a = __import__("os").system("true")',
        'a = dict(b=open("x", "w"))',
        'a = [x for x in ()]',
        'a = dict(**{"b": 1})',
        'a = dict([("b", 1)])',
        'a.b = 1',
        'a = b = 1',
        'dict(a=1)',
        'a = "x".upper()',
        'a = (',
    ],
)
def test_anything_that_would_run_is_refused(text, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(text)
    with pytest.raises(ValueError, match='config.py'):
        read_dumped_config(path)


BACKBONE = dict(type='VisionTransformer', arch='deit-t', img_size=16, patch_size=8)
HEAD = dict(type='LinearClsHead', num_classes=3, in_channels=192)
CLASSIFIER = dict(type='mmpretrain.ImageClassifier', backbone=BACKBONE, head=HEAD)
TEACHER = dict(type='mmtransmamba.MMPretrainTeacher', model='evil/run.py', mean=[0] * 3)


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A package whose import leaves a file, beside a program that does."""
    folder = tmp_path / 'evil'
    folder.mkdir()
    program = f'open({str(tmp_path / "ran")!r}, "w")\n'
    for name in ('__init__', 'registry', 'run'):
        (folder / f'{name}.py').write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    'changed',
    [
        dict(model=CLASSIFIER | dict(backbone=dict(type='os.mkdir', path='ran'))),
        dict(model=CLASSIFIER | dict(backbone=dict(type='evil.Net'))),
        dict(model=CLASSIFIER | dict(backbone=dict(type='evil'))),
        dict(model=CLASSIFIER | dict(head=dict(HEAD, loss=dict(type='evil.Loss')))),
        dict(model=CLASSIFIER | dict(backbone=dict(BACKBONE, _scope_='evil'))),
        dict(model=dict(type='evil.Net')),
        dict(model=dict(type='any', student=dict(type='evil.Net'))),
        dict(model=TEACHER),
        dict(model=dict(CLASSIFIER, trust_remote_code=True)),
        dict(default_scope='evil'),
        dict(data_preprocessor=dict(type='evil.Preprocessor')),
        dict(train_dataloader=dict(dataset=dict(type='evil.Data'))),
    ],
    ids=str,
)
def test_what_a_folder_names_is_not_run(changed, evil):
    run = evil / 'run'
    run.mkdir()
    config = dict(default_scope='mmpretrain', model=CLASSIFIER) | changed
    Config(config).dump(run / 'config.py')
    torch.save({'state_dict': {'a': torch.ones(1)}}, run / 'epoch_1.pth')
    with pytest.raises(Exception):  # noqa: B017 (each registry has its own)
        mmtransmamba.load(run / 'epoch_1.pth')
    assert not (evil / 'ran').exists() and 'evil' not in sys.modules


def test_what_is_registered_or_a_layer_of_torch_is_built(tmp_path):
    backbone = dict(BACKBONE, patch_cfg=dict(norm_cfg=None))
    backbone['layer_cfgs'] = dict(act_cfg=dict(type='torch.nn.SiLU'))
    model = CLASSIFIER | dict(backbone=backbone)
    config = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(type='any', student=model, teacher=TEACHER),
            custom_hooks=[dict(type='mine.Hook')],
        )
    )
    config.dump(tmp_path / 'config.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        expected = MODELS.build(model)
    torch.save(expected.state_dict(), tmp_path / 'epoch_1.pth')
    loaded = mmtransmamba.load(tmp_path / 'epoch_1.pth')
    assert any(isinstance(module, torch.nn.SiLU) for module in loaded.modules())
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name])
