"""Configs of a training run are read without running them."""

import pytest
from mmengine.config import Config

from mmtransmamba.apis import configs
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
