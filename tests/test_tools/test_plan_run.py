"""``tools/plan_run.py``: its table and its JSON."""

import json
import sys

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture
def plan(repo_dir, tiny_config, monkeypatch, capsys):
    """Run the tool on a tiny config; returns what it prints."""
    monkeypatch.syspath_prepend(str(repo_dir / 'tools'))
    import plan_run

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['plan_run.py', str(tiny_config), *args])
        plan_run.main()
        return capsys.readouterr().out

    with DefaultScope.overwrite_default_scope('mmengine'):  # the tool sets another
        yield run


def test_table_and_json_say_the_same(plan):
    given = ('--gpus', '2', '--peak-tflops', '0.001', '--strategy', 'fsdp')
    table = dict(line.split('  ', 1) for line in plan(*given).splitlines())
    table = {name: value.strip() for name, value in table.items()}
    figures = json.loads(plan(*given, '--json'))
    costs = figures['costs']
    assert table['trained parameters'] == f'{costs["trained"]:,}'
    assert table["teacher's parameters"] == '0'
    assert figures['samples'] == 1200
    assert table['samples'] == '1,200'
    assert 'tokens' not in table
    assert table['memory for activations'] == (
        f'{figures["memory"]["activations"] / 2**30:.3f} GiB'
    )
    assert table['memory of each device'].endswith('of 80 GiB: fits')
    assert figures['hours'] == pytest.approx(figures['flops'] / 2 / 0.3 / 1e9 / 3600)
    assert table['time'] == f'{figures["hours"]:.3g} hours on 2 device(s)'


def test_a_device_may_be_too_small(plan):
    table = plan('--device-memory', '0.0001', '--cfg-options', 'train_cfg.max_epochs=3')
    assert 'does not fit' in table
    assert 'at most about 0' in table
    assert '3,600' in table
