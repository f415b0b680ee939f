"""The study of recall: equal states and rates, what is skipped, what its page says."""

import argparse
import csv
import sys

import _mqar_plan as plan
import _mqar_runs as runs
import mqar
import pytest
import torch
from _mqar_page import write_page
from transformers import DynamicCache

from mmtransmamba.models.language.cache_names import as_argument


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Arguments of a study whose runs are few steps."""
    monkeypatch.setattr(runs, 'BATCH', 2)
    monkeypatch.setattr(runs, 'TESTED', 4)
    monkeypatch.setattr(runs, 'SOLVED', 0.0)
    return argparse.Namespace(
        work_dir=tmp_path / 'work',
        out=tmp_path / 'out',
        seeds=[0],
        head_dims=[8],
        teacher_steps=2,
        steps=2,
        max_runs=1,
        threads=1,
    )


def rows_of(arguments, name='students'):
    with (arguments.out / 'mqar' / f'{name}.csv').open() as file:
        return list(csv.DictReader(file))


def test_every_mixer_has_the_same_rates_and_a_table_is_finished_seed_by_seed():
    planned = plan.plan([16, 8], [0, 1])
    assert len({run.key for run in planned}) == len(planned) == 2 * 2 * 4 * 3
    assert [run.seed for run in planned] == [0] * 24 + [1] * 24
    for mixer in plan.MIXERS:
        for seed in (0, 1):
            rates = [r.rate for r in planned if (r.mixer, r.seed) == (mixer, seed)]
            assert rates == list(plan.LEARNING_RATES) * 2


@pytest.mark.parametrize('mixer', plan.MIXERS)
@pytest.mark.parametrize('head_dim', [8, 32])
def test_all_mixers_keep_equally_many_numbers(mixer, head_dim, tmp_path, monkeypatch):
    run = plan.Run(mixer, head_dim, 1e-3, 0)
    monkeypatch.setattr(runs, 'TESTED', 2)
    monkeypatch.setattr(runs, 'BATCH', 2)
    monkeypatch.setattr(runs, 'SOLVED', 0.0)
    args = argparse.Namespace(work_dir=tmp_path, out=tmp_path, teacher_steps=1)
    teacher, _ = runs.teacher_of(run, args)
    student, _ = runs.convert(teacher, 'evenly', 1.0, mixer=run.fields)
    cache = DynamicCache(config=student.config)
    student.eval()(torch.zeros(1, 40, dtype=torch.long), **as_argument(cache))
    (state,) = cache.layers[0].recurrent_states.values()
    used = state.numel() - (state.shape[1] if mixer == 'SlidingWindow' else 0)
    assert used == run.state


def test_a_study_goes_on_with_the_next_run(arguments, monkeypatch):
    runs.run(arguments)
    (first,) = rows_of(arguments)
    assert first['key'] == 'Mamba2_k8_lr0.001_seed0'
    assert 0 <= float(first['accuracy']) <= 1
    runs.run(arguments)
    assert [row['key'] for row in rows_of(arguments)] == [
        first['key'],
        'Mamba2_k8_lr0.003_seed0',
    ]
    assert len(rows_of(arguments, 'teachers')) == 1  # trained once
    monkeypatch.setattr(runs, 'distil', None)
    arguments.max_runs = 0
    runs.run(arguments)
    page = (arguments.out / 'mqar.md').read_text()
    assert '**2 of 12 runs of the first command are done.**' in page
    assert ', 2 of 3 rates |' in page
    # Other steps would be other rows of the same names.
    for option in ('steps', 'teacher_steps'):
        other = argparse.Namespace(**vars(arguments) | {option: 77})
        with pytest.raises(
            ValueError, match=f'tables with other settings .{option}: .*, now 77'
        ):
            runs.run(other)
    assert f'in {arguments.teacher_steps:,} steps starts again' in page


def test_a_teacher_that_does_not_learn_starts_again_with_a_lower_rate(
    arguments, monkeypatch
):
    tried = []

    def train_teacher(run, rate, steps):
        tried.append(rate)
        return torch.nn.Linear(1, 1), steps, 0.3 + 0.4 * len(tried)

    monkeypatch.setattr(runs, 'SOLVED', 0.9)
    monkeypatch.setattr(runs, 'train_teacher', train_teacher)
    monkeypatch.setattr(torch.nn.Linear, 'save_pretrained', print, raising=False)
    _, score = runs.teacher_of(plan.Run('KDA', 8, 1e-3, 0), arguments)
    assert (tried, score) == ([5e-3, 2e-3], 0.3 + 0.8)
    (row,) = rows_of(arguments, 'teachers')
    assert (row['rate'], row['steps']) == ('0.002', '2')
    monkeypatch.setattr(runs, 'SOLVED', 9.0)
    with pytest.raises(SystemExit, match='teacher_k8_seed1 answers 230.0 %'):
        runs.teacher_of(plan.Run('KDA', 8, 1e-3, 1), arguments)


def test_a_student_learns_from_its_teacher(arguments, monkeypatch):
    """With one pair the value is the only one that there is."""
    sizes = dict(LENGTH=4, PAIRS=1, BATCH=16, TESTED=32, CHECK=20, SOLVED=0.5)
    for name, value in sizes.items():
        monkeypatch.setattr(runs, name, value)
    arguments.teacher_steps, arguments.steps = 100, 40
    row = runs.distil(plan.Run('GatedDeltaNet', 8, 1e-2, 0), arguments)
    assert float(row['teacher']) > 0.5
    assert float(row['accuracy']) > float(row['before']) + 0.2


def test_the_best_rate_is_chosen_among_those_of_all_seeds(tmp_path):
    planned = plan.plan([16], [0, 1])
    scores = {(1e-3, 0): 0.5, (1e-3, 1): 0.7, (3e-3, 0): 0.9}
    for (rate, seed), score in scores.items():
        run = plan.Run('KDA', 16, rate, seed)
        row = dict.fromkeys(runs.STUDENTS, '0') | vars(run) | dict(accuracy=score)
        row |= dict(key=run.key)
        runs.add_rows(tmp_path / 'mqar' / 'students.csv', runs.STUDENTS, row)
    for seed, score in ((0, 0.9), (1, 0.95)):
        teacher = dict.fromkeys(runs.TEACHERS, '0') | dict(accuracy=score)
        teacher |= dict(key=f't{seed}', head_dim=16, seed=seed)
        runs.add_rows(tmp_path / 'mqar' / 'teachers.csv', runs.TEACHERS, teacher)
    write_page(tmp_path, planned[:1], 2000)
    page = (tmp_path / 'mqar.md').read_text()
    assert '**0 of 1 runs of the first command are done.**' in page
    assert '| KDA | 60.0 (50.0 to 70.0), 2 seeds, at 0.001, 1 of 3 rates |' in page
    assert '| the teacher | 92.5 (90.0 to 95.0), 2 seeds |' in page
    assert '| Mamba2 | – |' in page
    assert '| KDA | 16 | 0.003 | 0 | 0.0 % | 90.0 % |' in page


def test_the_command_line_names_a_wrong_number(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mqar.py', '--steps', '0'])
    with pytest.raises(SystemExit):
        mqar.parse_args()
    assert '--steps' in capsys.readouterr().err
