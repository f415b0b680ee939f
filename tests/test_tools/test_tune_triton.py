"""``tools/benchmarks/tune_triton.py`` without a GPU."""

import sys
from types import ModuleType

import _tune_triton
import pytest
import torch
import tune_triton

from mmtransmamba.ops.selective_scan import triton_plan


@pytest.fixture
def plan():
    plan = ModuleType('mmtransmamba.ops.one.triton_plan')
    plan.BLOCK, plan.ROWS = 64, 8
    return plan


def test_the_best_sizes_are_found_one_after_another(plan):
    def passes():
        # Best at 256 and 4, and ROWS alone does not help.
        return 1 + abs(plan.BLOCK - 256) + abs(plan.ROWS - 4) * (plan.BLOCK / 64)

    kernel = _tune_triton.Kernel(plan, ('BLOCK', 'ROWS'), [passes, passes])
    sizes = dict(BLOCK=64, ROWS=8)
    best = _tune_triton.tune(kernel, sizes, lambda function: function(), rounds=3)
    assert best == dict(BLOCK=256, ROWS=4)
    assert (plan.BLOCK, plan.ROWS) == (64, 8)  # the table is as it was


def test_a_size_that_does_not_fit_is_passed_over(plan, capsys):
    def passes():
        if plan.BLOCK > 64:
            raise RuntimeError('out of resource: shared memory\nof this card')
        return plan.BLOCK + plan.ROWS

    kernel = _tune_triton.Kernel(plan, ('BLOCK', 'ROWS'), [passes])
    sizes = dict(BLOCK=64, ROWS=8)
    best = _tune_triton.tune(kernel, sizes, lambda function: function(), rounds=1)
    assert best == dict(BLOCK=32, ROWS=4)
    printed = capsys.readouterr().out
    assert 'BLOCK = 128, ROWS = 8 | RuntimeError: out of resource' in printed


def test_a_dry_run_names_the_lines_to_write(monkeypatch, capsys):
    values = iter(range(1000, 0, -1))  # every size that is tried is faster
    monkeypatch.setattr(
        _tune_triton.Session,
        'milliseconds',
        lambda self, both: both() or float(next(values)),
    )
    before = triton_plan.WIDE_FROM
    monkeypatch.setattr(sys, 'argv', ['tune_triton.py', '--dry-run', '--rounds', '1'])
    tune_triton.main()
    printed = capsys.readouterr().out
    file = 'mmtransmamba/ops/selective_scan/triton_plan.py'
    assert f'{file}: WIDE_FROM = {4 * before}\n' in printed
    assert 'mmtransmamba/ops/wkv/triton_plan.py: GROUP = 256' in printed
    for op in ('delta_rule', 'ssd', 'causal_conv1d', 'gated_norm'):
        assert f'mmtransmamba/ops/{op}/triton_plan.py: ' in printed
    assert 'mmtransmamba/ops/delta_rule/triton_plan.py: KEY_TILE = 128' in printed
    assert before == triton_plan.WIDE_FROM


def test_it_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['tune_triton.py'])
    with pytest.raises(SystemExit, match='--dry-run'):
        tune_triton.main()
