"""The study of questions about pictures: what it trains, and its page."""

import argparse

import _vqa_runs as runs
import pytest
from tiny_easy_vqa import write_easy_vqa

from mmtransmamba import apis


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Arguments of a study whose trainings take two steps."""
    folder = tmp_path / 'data' / 'easy_vqa'
    folder.mkdir(parents=True)
    for split in ('train', 'test'):
        write_easy_vqa(folder, split)
    whole, trained = apis.run_experiment, []

    def shrunk(config, work_dir, options):
        small = {'train_cfg.max_iters': 2, 'train_dataloader.batch_size': 2}
        if 'tower' not in config.name:
            small['train_cfg.val_interval'] = 2
        if not (work_dir / 'result.json').exists():
            trained.append(work_dir.name)
        return whole(config, work_dir, options | small)

    monkeypatch.setattr(apis, 'run_experiment', shrunk)
    monkeypatch.setattr('mmtransmamba.apis.vqa_answers.CONTEXT', 32)
    monkeypatch.setattr('mmtransmamba.apis.vqa_answers.STEPS', 2)
    return argparse.Namespace(
        data=tmp_path / 'data',
        work_dir=tmp_path / 'work',
        out=tmp_path / 'out',
        sets=['easy_vqa'],
        seeds=[3],
        students=['pure_gdn'],
        max_runs=None,
        threads=1,
        one=None,
        trained=trained,
    )


def test_a_seed_becomes_rows_and_a_page(study):
    study.one = 'easy_vqa_seed3'
    runs.run(study)
    models = [row['model'] for row in runs.rows_of(study)]
    assert models == ['teacher', 'pure_gdn', 'scratch']
    for row in runs.rows_of(study):
        assert (row['set'], row['seed'], row['questions']) == ('easy_vqa', '3', '4')
        assert 0 <= float(row['accuracy']) <= 100
    assert study.trained == [
        *('tower_seed3', 'teacher_seed3'),
        *(f'pure_gdn_stage{stage}_seed3' for stage in (1, 2, 3)),
        'pure_scratch_seed3',
    ]

    # Another student. The first one is asked again, by the same teacher.
    study.students = ['pure']
    earlier = list(study.trained)
    runs.run(study)
    models = [row['model'] for row in runs.rows_of(study)]
    assert models == ['teacher', 'pure', 'pure_gdn', 'scratch']
    new = study.trained[len(earlier) :]
    assert new == [f'pure_stage{stage}_seed3' for stage in (1, 2, 3)]

    # Nothing is missing, so no process starts; the page has what is there.
    study.one = None
    runs.run(study)
    page = (study.out / 'vqa_seeds.md').read_text()
    assert '## easy-VQA' in page and '## Shapes' not in page
    assert '| model | seed 3 | mean | minus control |' in page
    assert '| pure Gated DeltaNet | ' in page


def test_runs_that_are_missing_are_done_in_processes(study, monkeypatch):
    done = []
    monkeypatch.setattr(runs, 'in_process', lambda key, args: done.append(key))
    study.sets, study.seeds = ['shapes', 'easy_vqa'], [0, 1]
    runs.add_rows(
        study,
        [
            dict(
                set='shapes', seed=1, model=m, accuracy='1', agreement='1', questions=1
            )
            for m in ('teacher', 'pure_gdn', 'scratch')
        ],
    )
    study.max_runs = 2
    runs.run(study)
    assert done == ['shapes_seed0', 'easy_vqa_seed0']


def test_gains_are_paired_by_seed():
    rows = [
        dict(model=model, seed=str(seed), accuracy=str(value), questions='10')
        for model, values in (('pure', (70, 72)), ('scratch', (60, 66, 90)))
        for seed, value in enumerate(values)
    ]
    page = runs.section('Shapes', rows)
    assert '| pure Mamba-2 | 70.0 | 72.0 | – | 71.0 ± 1.4 | +8.0 ± 25.4 |' in page
    assert '| 60.0 | 66.0 | 90.0 | 72.0 ± 15.9 | – |' in page
