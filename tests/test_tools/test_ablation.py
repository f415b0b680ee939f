"""Several configs and seeds become one table, by any metric of a validation."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = 'analysis_tools/ablation.py'


def test_a_table_by_any_metric(run_tool, tiny_config, tmp_path):
    (tmp_path / 'scratch_tiny.py').write_text(f"_base_ = '{tiny_config}'\n")
    arguments = [SCRIPT, 'scratch_tiny.py', '--seeds', '3']
    arguments += ['--cfg-options', 'val_evaluator.topk=(1,10)']
    arguments += ['--cfg-options=train_cfg.max_epochs=1']
    arguments += ['--cfg-options=optim_wrapper.clip_grad.max_norm=inf', '--metric']
    done = run_tool(*arguments, 'accuracy/top10', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, _, row = (tmp_path / 'work_dirs/ablation/table.md').read_text().splitlines()
    # Ten of ten classes are always right.
    assert head == (
        '| config | final accuracy/top10 | best accuracy/top10 '
        '| reaches the best of scratch_tiny at | seconds |'
    )
    assert row.startswith('| scratch_tiny | 100.00 | 100.00 | 1 |')

    # The run is not trained again, and what it measured is named.
    wrong = run_tool(*arguments, 'mIoU', cwd=tmp_path)
    assert wrong.returncode
    log = (tmp_path / 'work_dirs/ablation/scratch_tiny_seed3.log').read_text()
    assert '--metric mIoU: no validation of' in log
    assert 'theirs are accuracy/top1, accuracy/top10' in log


def test_two_configs_of_one_name_are_refused_first(run_tool, tmp_path):
    for folder in 'ab':
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'scratch.py').write_text('')
    done = run_tool(SCRIPT, 'a/scratch.py', 'b/scratch.py', cwd=tmp_path)
    assert done.returncode == 2
    assert 'a/scratch.py and b/scratch.py would share the name scratch' in done.stderr


def test_nothing_is_started_after_an_interruption(monkeypatch, tmp_path, tiny_config):
    monkeypatch.syspath_prepend(str(ROOT / 'tools' / 'analysis_tools'))
    import ablation

    started = []

    def train(args, config, seed):
        started.append(seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation, 'train_in_process', train)
    options = ['--seeds', '0', '1', '2', '2', '--work-dir', str(tmp_path / 'runs')]
    monkeypatch.setattr(sys, 'argv', ['ablation.py', str(tiny_config), *options])
    with pytest.raises(SystemExit, match='130'):
        ablation.main()
    assert started in ([0], [0, 1])  # the next one may just have begun


@pytest.mark.parametrize(
    ('values', 'cells'),
    [
        ((0.032, 0.059), '| 0.0455 ± 0.0191 | 0.0455 ± 0.0191 |'),
        ((0.5, 1.0), '| 0.7500 ± 0.3536 | 0.7500 ± 0.3536 |'),
        ((42.68, 43.1), '| 42.89 ± 0.30 | 42.89 ± 0.30 |'),
    ],
)
def test_shares_have_as_many_digits_as_percentages(monkeypatch, values, cells):
    monkeypatch.syspath_prepend(str(ROOT / 'tools' / 'analysis_tools'))
    import ablation

    def train(args, config, seed):
        scalars = SimpleNamespace(
            final=values[seed], best=values[seed], epochs_to=lambda target: 1
        )
        return SimpleNamespace(scalars=scalars, seconds=None)

    monkeypatch.setattr(ablation, 'train', train)
    args = SimpleNamespace(
        configs=[Path('scratch.py')], seeds=[0, 1], baseline='scratch', metric='mIoU'
    )
    assert cells in ablation.tabulate(args).splitlines()[-1]
