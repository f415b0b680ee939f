"""Several configs and seeds become one table, by any metric of a validation."""

SCRIPT = 'analysis_tools/ablation.py'


def test_a_table_by_any_metric(run_tool, tiny_config, tmp_path):
    (tmp_path / 'scratch_tiny.py').write_text(f"_base_ = '{tiny_config}'\n")
    arguments = [SCRIPT, 'scratch_tiny.py', '--seeds', '3']
    arguments += ['--cfg-options', 'val_evaluator.topk=(1,10)']
    arguments += ['--cfg-options=train_cfg.max_epochs=1', '--metric']
    done = run_tool(*arguments, 'accuracy/top10', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, _, row = (tmp_path / 'work_dirs/ablation/table.md').read_text().splitlines()
    # Ten of ten classes are always right.
    assert head.startswith('| config | final accuracy/top10 | best accuracy/top10 |')
    assert row.startswith('| scratch_tiny | 100.00 | 100.00 | 1 |')

    # The run is not trained again, and what it measured is named.
    wrong = run_tool(*arguments, 'mIoU', cwd=tmp_path)
    assert wrong.returncode
    log = (tmp_path / 'work_dirs/ablation/scratch_tiny_seed3.log').read_text()
    assert '--metric mIoU: no validation of' in log
    assert 'theirs are accuracy/top1, accuracy/top10' in log
