"""``tools/analysis_tools/get_flops.py`` on the package's configs."""

import re
import sys

import pytest
from mmengine.registry import DefaultScope

from mmtransmamba.models import PlainMamba, VideoMamba
from mmtransmamba.utils.flops import count_complexity

CONFIGS = 'configs/image_classification/transmamba'


@pytest.fixture
def get_flops(repo_dir, monkeypatch, capsys):
    """Run the tool; returns what it prints."""
    monkeypatch.syspath_prepend(str(repo_dir / 'tools' / 'analysis_tools'))
    monkeypatch.chdir(repo_dir)
    import get_flops

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['get_flops.py', *args])
        get_flops.main()
        return capsys.readouterr().out

    with DefaultScope.overwrite_default_scope('mmengine'):  # the tool sets another
        yield run


def numbers(output, label):
    line = re.search(rf'^{label} .*', output, re.MULTILINE)[0]
    return [int(n.replace(',', '')) for n in re.findall(r'[\d,]{4,}', line)]


def test_a_distiller_is_counted_as_its_student(get_flops):
    config = f'{CONFIGS}/trans-plain-mamba-t_1xb128_in1k.py'
    output = get_flops(config, '--depth', '2')
    count = count_complexity(PlainMamba('T'), (1, 3, 224, 224))
    head = 1000 * 192
    assert '1 x 3 x 224 x 224' in output
    assert numbers(output, 'parameters') == [count.params + head + 1000]
    assert numbers(output, 'FLOPs') == [count.flops + head]
    row = next(line for line in output.splitlines() if ' layers ' in line)
    assert f'{count.modules["layers"][1]:,}' in row


def test_another_shape_and_a_backbone_outside_the_package(get_flops):
    config = 'projects/example_backbone/configs/gla_digits.py'
    default = get_flops(config)
    assert '1 x 1 x 8 x 8' in default
    wider = get_flops(config, '--shape', '8', '16')
    assert '1 x 1 x 8 x 16' in wider
    assert numbers(wider, 'parameters') == numbers(default, 'parameters')
    assert numbers(wider, 'FLOPs') > numbers(default, 'FLOPs')


RECOGNISER = """
default_scope = 'mmaction'
model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='mmtransmamba.VideoMamba',
        arch=dict(embed_dims=32, depth=2),
        img_size=16,
        patch_size=8,
        num_frames=4,
    ),
    cls_head=dict(type='TimeSformerHead', num_classes=5, in_channels=32),
)
"""


def test_a_recogniser_of_videos(get_flops, tmp_path):
    config = tmp_path / 'recogniser.py'
    config.write_text(RECOGNISER)
    arch = dict(embed_dims=32, depth=2)
    backbone = VideoMamba(arch, img_size=16, patch_size=8, num_frames=4)
    for frames, options in ((4, ()), (6, ('--shape', '6', '16', '16'))):
        output = get_flops(str(config), *options)
        count = count_complexity(backbone, (1, 3, frames, 16, 16))
        assert numbers(output, 'FLOPs') == [count.flops + 5 * 32]
        assert numbers(output, 'parameters') == [count.params + 5 * 32 + 5]


@pytest.mark.parametrize(
    'args, message',
    [
        (['nowhere.py'], 'get_flops.py: error: the config file "nowhere.py" does not'),
        (
            [f'{CONFIGS}/trans-plain-mamba-t_1xb128_in1k.py', '--shape', *'1234'],
            'accepted are SIDE, H W or T H W',
        ),
        (['configs/_base_/schedules/digits.py'], 'has no model'),
    ],
)
def test_what_it_refuses(get_flops, args, message):
    with pytest.raises(SystemExit, match=message):
        get_flops(*args)
