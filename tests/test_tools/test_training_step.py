"""``tools/benchmarks/training_step.py``, shrunk."""

import json
import sys
from functools import partial

import _training_step
import pytest
import training_step

from mmtransmamba.models import Vim, VMamba
from mmtransmamba.ops import backends

REASON = backends.available('selective_scan')['native']
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

VIM = dict(embed_dims=16, depth=2, d_state=16, d_conv=4, expand=2)
VMAMBA = {**VMamba.ARCHS['vanilla_tiny'], 'embed_dims': 8, 'depths': (1, 1)}


@pytest.fixture
def benchmark(monkeypatch):
    students = {'Vim': partial(Vim, VIM), 'VMamba': partial(VMamba, VMAMBA)}
    monkeypatch.setattr(_training_step, 'STUDENTS', students)
    monkeypatch.setattr(training_step, 'STUDENTS', list(students))
    return _training_step


def test_prints_a_table_and_writes_the_numbers(
    benchmark, tmp_path, monkeypatch, capsys
):
    path = tmp_path / 'rows.json'
    options = ['--batch-size', '2', '--image-size', '32', '--repeat', '2']
    options += ['--scan-steps', '3', '--json', str(path)]
    monkeypatch.setattr(sys, 'argv', ['training_step.py', *options])
    status = training_step.main()
    content = json.loads(path.read_text())
    vim, vmamba = content['rows']
    # 2 x 2 patches of 16 pixels and a class token; patches of 4 and then 8 pixels.
    assert vim['scans'] == {'2 x 32 x 5 x 16': 4}
    assert vmamba['scans'] == {'2 x 16 x 64 x 16': 4, '2 x 32 x 16 x 16': 4}
    for row in (vim, vmamba):
        assert 0 < row['scan_share'] < 1
        assert row['transformers'] > (1 - row['scan_share']) * row['native']
    met = all(r['reference'] >= benchmark.TARGET * r['native'] for r in (vim, vmamba))
    assert status == (0 if met else 1)
    printed = capsys.readouterr().out
    assert 'VMamba' in printed and ('met' if met else 'MISSED') in printed


def test_a_scan_that_computes_something_else_is_not_timed(benchmark, monkeypatch):
    scan = benchmark.transformers_scan()

    def wrong(*args):
        return 1.01 * scan(*args)

    monkeypatch.setattr(benchmark, 'transformers_scan', lambda: wrong)
    with pytest.raises(RuntimeError, match='differs from ours by'):
        benchmark.transformers_seconds({(1, 4, 6, 2): 2}, steps=6, repeat=1)
