"""``tools/export.py`` on a distiller's config, and its one-line errors."""

import json
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtransmamba.apis import export_formats
from mmtransmamba.registry import MODELS

CONFIG = """
default_scope = 'mmpretrain'
student = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmtransmamba.VRWKV',
        arch=dict(embed_dims=16, depth=1, num_heads=None, post_norm=False,
                  init_values=None, key_norm=False, drop_path_rate=0.0),
        img_size=16, patch_size=8, in_channels=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=16))
model = dict(
    type='mmtransmamba.MultiDirectionDistiller',
    student=student,
    teacher=dict(type='mmtransmamba.TimmTeacher', model='no_such_model'))
"""


@pytest.fixture
def tool(repo_dir, monkeypatch, tmp_path):
    """Run the tool in a folder with a config and the checkpoint of its student."""
    monkeypatch.syspath_prepend(str(repo_dir / 'tools'))
    monkeypatch.delitem(sys.modules, 'export', raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.py').write_text(CONFIG)
    import export

    config = Config.fromfile('config.py').student
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(config).eval()
    torch.save(dict(state_dict=model.state_dict()), 'student.pth')

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['export.py', *args])
        export.main()

    run.model = model
    with DefaultScope.overwrite_default_scope('mmengine'):  # the tool sets another
        yield run


def test_the_student_of_a_distiller_leaves_without_its_teacher(tool, capsys, tmp_path):
    args = ('config.py', 'student.pth', '--format', 'torchscript', '--out', 'm.pt')
    tool(*args)
    output = capsys.readouterr().out
    assert 'wrote   m.pt' in output and 'input   batch x 1 x 16 x 16' in output
    assert output.count('checked batch') == 3
    notes = {export_formats.METADATA: ''}
    file = torch.jit.load('m.pt', _extra_files=notes)
    assert json.loads(notes[export_formats.METADATA])['model'] == 'ImageClassifier'
    images = torch.randn(4, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(file(images), tool.model(images))

    tool(*args, '--shape', '24', '16', '--batch', '2', '--no-check', '--features')
    output = capsys.readouterr().out
    assert 'input   2 x 1 x 24 x 16' in output and 'not checked' in output
    assert torch.jit.load('m.pt')(torch.randn(2, 1, 24, 16))[0].shape == (2, 16, 3, 2)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('nowhere.py', 'student.pth'), 'the config file "nowhere.py" does not exist'),
        (('config.py', 'nowhere.pth'), 'nowhere.pth'),
        (('config.py', 'config.py'), 'no file of torch.save'),
        (
            (
                'config.py',
                'student.pth',
                '--cfg-options',
                'model.student.head.num_classes=7',
            ),
            'student.pth does not fit ImageClassifier',
        ),
        (('config.py', 'student.pth', '--shape', *'1234'), 'accepted are SIDE, H W or'),
        (('config.py', 'student.pth', '--opset', '20'), 'opset=20 belongs to the form'),
    ],
)
def test_mistakes_end_in_one_line(tool, args, message):
    with pytest.raises(SystemExit) as stop:
        tool(*args, '--format', 'torchscript', '--out', 'm.pt')
    text = str(stop.value)
    assert text.startswith('export.py: error: ') and message in text
