"""The study on SmolLM2: what it plans, that it goes on, what its page says."""

import argparse
import csv
import gzip
import json
import shutil
import sys
from unittest.mock import Mock

import _smollm2_plan as plan
import _smollm2_runs as runs
import pytest
import smollm2
import torch
from _smollm2_page import beside_the_window, leaderboard, time_to_mimic
from byte_tokenizer import write_tokenizer
from tiny_decoders import tiny_teacher

from mmtransmamba.apis.experiment import RESULT_FILE

ALL = list(smollm2.PARTS)
WHOLE = plan.plan(ALL)
WORDS = 'the cat sat on a mat and saw that it was good to be there again '


def test_the_plan_puts_what_decides_first():
    planned = plan.plan(ALL)
    keys = [run.key for run in planned]
    assert len(set(keys)) == len(keys)
    assert keys[:4] == [
        '50_Mamba2_mimic',
        '50_Mamba2_calibrate',
        '50_GatedDeltaNet_calibrate',
        '50_SlidingWindow_mimic',
    ]
    shares = {run.share for run in planned if run.measures == 'quality'}
    assert shares == set(plan.SHARES)
    # A student is trained before it is asked.
    for number, run in enumerate(planned):
        if run.measures == 'recall' and run.share:
            trained = f'{run.share}_{run.mixer}_{run.init}'
            assert trained in keys[:number]


def test_every_run_has_the_same_budget():
    for run in plan.plan(['decisive']):
        assert sum(plan.tokens_of(run, 40960)) == 40960
        assert (plan.tokens_of(run, 40960)[0] > 0) == (run.init == 'calibrate')


def test_the_best_has_longer_runs():
    longer = plan.plan(['long'])
    assert [sum(plan.tokens_of(run, 40960)) for run in longer] == [163840, 1064960]
    assert [run.key for run in longer] == [
        '50_GatedDeltaNet_calibrate_4x',
        '50_GatedDeltaNet_calibrate_26x',
    ]


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Arguments of a study of a tiny teacher."""
    teacher = tmp_path / 'teacher'
    tiny_teacher(vocab_size=258, tie_word_embeddings=True).save_pretrained(teacher)
    write_tokenizer(teacher)
    data = tmp_path / 'data'
    for folder in ('text', 'lm_eval'):
        (data / folder).mkdir(parents=True)
    for name in ('train_a', 'val'):
        line = json.dumps(dict(text=WORDS * 12))
        (data / 'text' / f'{name}.jsonl').write_text(f'{line}\n' * 2)
    question = dict(
        premise='It rained.', question='cause', choice1='Ab.', choice2='C.', label=0
    )
    with gzip.open(data / 'lm_eval' / 'copa_validation.jsonl.gz', 'wt') as file:
        file.write(json.dumps(question) + '\n')
    for module in (plan, runs):
        for name, value in dict(
            BLOCK=16,
            CALIBRATION_TOKENS=64,
            CALIBRATION_STEPS=2,
            CONTEXTS=(4, 8),
            TASKS=('copa',),
            BLOCKS=2,
            STEPS=2,
            RECALL_LENGTHS=dict(mqar=(1, 2)),
            RECALL_QUESTIONS=2,
            SAMPLE_TOKENS=3,
            SPEED=('key', 'share', 'mixer', 'tokens_per_second_4', *SPEEDS),
        ).items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr('_smollm2_page.CONTEXTS', (4, 8))
    return argparse.Namespace(
        teacher=teacher,
        data=data,
        work_dir=tmp_path / 'work',
        out=tmp_path / 'out',
        seed=0,
        parts=ALL,
        tokens=128,
        limit=1,
        max_runs=None,
        threads=1,
        one=None,
    )


SPEEDS = ('tokens_per_second_8',)


def do(args, *keys):
    for key in keys:
        runs.run(argparse.Namespace(**vars(args) | dict(one=key)), WHOLE)


def test_runs_become_rows_and_a_page(arguments, monkeypatch):
    done = ('50_GatedDeltaNet_calibrate', '100_SlidingWindow_mimic')
    do(arguments, *done, 'decode_50_SlidingWindow_mimic')
    with (arguments.out / 'smollm2' / 'runs.csv').open() as file:
        rows = {row['key']: row for row in csv.DictReader(file)}
    assert tuple(rows) == done
    calibrated = rows[done[0]]
    assert (calibrated['calibration_tokens'], calibrated['tokens']) == ('64', '64')
    for row in rows.values():
        assert float(row['kl']) >= 0 and float(row['perplexity']) > 1
    history = json.loads(
        (arguments.work_dir / done[0] / 'training/student/config.json').read_text()
    )['transfer_history']
    assert history == ['init:calibrate', 'matvlm']
    arguments.max_runs = 0
    runs.run(arguments, WHOLE)
    page = (arguments.out / 'smollm2.md').read_text()
    assert f'**3 of {len(plan.plan(ALL))} runs are done.**' in page
    assert '| 50 % | GatedDeltaNet | `calibrate` |' in page
    # The page of a command that does one part has all parts.
    arguments.parts = ['decode']
    runs.run(arguments, WHOLE)
    assert (arguments.out / 'smollm2.md').read_text() == page
    # Rows of another seed, budget or test would have the same names.
    for option in ('seed', 'tokens', 'limit'):
        other = argparse.Namespace(**vars(arguments) | {option: 77})
        with pytest.raises(
            ValueError, match=f'tables with other settings .{option}: .*, now 77'
        ):
            runs.run(other, WHOLE)
    assert '| 50 % | SlidingWindow | ' in page.split('## Tokens per second')[1]
    with (arguments.out / 'smollm2' / 'curves.csv').open() as file:
        points = [row for row in csv.DictReader(file) if row['key'] == done[0]]
    assert [int(row['tokens']) for row in points] == [128]
    assert float(points[0]['kl']) > 0


def test_the_share_of_a_branch_beside_a_window_is_kept(arguments):
    key = '50_WindowGatedDeltaNet_calibrate'
    do(arguments, key)
    (row,) = runs.read_table(arguments.out / 'smollm2' / 'runs.csv')
    assert 0 < float(row['branch_share']) < 1
    arguments.max_runs = 0
    runs.run(arguments, WHOLE)
    page = (arguments.out / 'smollm2.md').read_text()
    share = f'{float(row["branch_share"]):.1%}'
    assert f'the linear branch has {share} of the norm' in ' '.join(page.split())


def test_trained_students_are_asked(arguments, capsys):
    student = '50_SlidingWindow_mimic'
    asked = f'recall_{student}'
    with pytest.raises(SystemExit, match=f'{asked} needs .*do the part decisive first'):
        do(arguments, asked)
    do(arguments, student, asked, 'recall_0_attention_none')
    rows = runs.read_table(arguments.out / 'smollm2' / 'recall.csv')
    assert [(row['key'], row['length']) for row in rows] == [
        *((asked, length) for length in '12'),
        *(('recall_0_attention_none', length) for length in '12'),
    ]
    for row in rows:
        assert 0 <= float(row['generated']) <= 100 and 0 <= float(row['acc']) <= 100
    arguments.max_runs = 0
    runs.run(arguments, WHOLE)
    page = (arguments.out / 'smollm2.md').read_text()
    assert '| student | mqar, 1 | mqar, 2 |' in page.split('## Recall')[1]
    # In the order of the plan, whoever came first.
    for section in ('## Recall', '## What they write'):
        lines = page.split(section)[1].split('\n##')[0].splitlines()
        students = [line.split(' | ')[0] for line in lines if line.startswith('| ')]
        assert students[1:] == ['| teacher', '| 50 % SlidingWindow, `mimic`']


def test_the_page_compares_mixers_with_the_window():
    rows = [
        dict(share=share, mixer=mixer, init='mimic', kl=kl)
        | dict(calibration_tokens='24', tokens='1000')
        for share, mixer, kl in (
            ('50', 'SlidingWindow', '0.1'),
            ('50', 'Mamba2', '0.2'),
            ('50', 'KDA', '0.05'),
            ('100', 'KDA', '0.01'),  # there is no window in as many layers
        )
    ]
    assert 'layers: 50 % KDA by `mimic` (1,024 tokens).' in beside_the_window(rows)
    assert 'as many layers: none of them.' in beside_the_window(rows[:2])
    assert beside_the_window(rows[1:]) == ''


@pytest.mark.parametrize(
    'before, after, calibration, cell',
    [
        (10.5, 10.4, 0, '| 0 | 96.2% |'),
        (10.5, 10.4, 70, '| 70 | 96.2% |'),
        (20.0, 10.5, 70, '| 1,070 | 95.2% |'),
        (20.0, 10.6, 70, '| > 1,070 | 94.3% |'),
    ],
)
def test_a_student_arrives_at_a_share_of_the_teacher(before, after, calibration, cell):
    row = dict(share='50', mixer='KDA', init='mimic', tokens='1000', zero_shot='30')
    row |= dict(perplexity_before=str(before), perplexity=str(after))
    row |= dict(calibration_tokens=str(calibration))
    assert f'{cell} 75.0% |' in leaderboard([row], dict(perplexity=10, zero_shot=40))


def test_the_leaderboard_begins_with_the_fewest_tokens():
    def row(mixer, before, after):
        values = dict(perplexity_before=before, perplexity=after, zero_shot='30')
        values |= dict(calibration_tokens='0', tokens='1000', share='50', init='mimic')
        return values | dict(mixer=mixer)

    rows = [row('far', '90', '40'), row('late', '90', '10'), row('near', '90', '20')]
    rows.append(row('early', '10', '10'))
    section = leaderboard(rows, dict(perplexity=10, zero_shot=40))
    places = [section.index(name) for name in ('early', 'late', 'near', 'far')]
    assert places == sorted(places)
    assert leaderboard([], dict(perplexity=10, zero_shot=40)) == ''


def test_the_page_compares_tokens_to_the_same_kl():
    kinds = dict.fromkeys(('Mamba2_mimic', 'Mamba2_calibrate', 'KDA_mimic'))
    of = {run.key: run for run in plan.plan(['decisive', 'long'])}
    kls = ([4, 3, 2, 1], [2.5, 1.5, 0.9], [5, 4, 3.5])
    curves = [
        dict(key=f'50_{kind}', tokens=str(10 * step), kl=str(kl))
        for kind, values in zip(kinds, kls, strict=True)
        for step, kl in enumerate(values, 1)
    ]
    section = time_to_mimic([of[f'50_{kind}'] for kind in kinds], curves)
    assert [line for line in section.splitlines() if line.startswith('| 50')] == [
        '| 50 % | Mamba2 | `mimic` | 20 | 40 |',
        '| 50 % | Mamba2 | `calibrate` | 10 | 30 |',
        '| 50 % | KDA | `mimic` | not reached | not reached |',
    ]
    assert time_to_mimic([of['50_KDA_mimic']], curves[7:]) == ''
    # Another budget is another schedule.
    longer = '50_GatedDeltaNet_calibrate_4x'
    curves.append(dict(key=longer, tokens='10', kl='0.1'))
    assert time_to_mimic([of[longer]], curves) == ''


def test_a_run_that_was_interrupted_is_not_converted_or_trained_again(
    arguments, monkeypatch
):
    do(arguments, '50_Mamba2_mimic')
    work = arguments.work_dir / '50_Mamba2_mimic'
    assert (work / 'training' / RESULT_FILE).is_file()
    (arguments.out / 'smollm2' / 'runs.csv').unlink()

    def never(*args, **kwargs):
        raise AssertionError('converted again')

    with monkeypatch.context() as patch:
        # The parent process removes the converted model of a finished run.
        patch.setattr(runs, 'convert', converts := Mock(wraps=runs.convert))
        shutil.rmtree(work / 'converted')
        folder, _ = runs.converted(plan.plan(['decisive'])[0], arguments)
        assert folder.is_dir() and converts.call_count == 1

    monkeypatch.setattr(runs, 'convert', never)
    monkeypatch.setattr('mmtransmamba.apis.experiment.build_runner', never)
    do(arguments, '50_Mamba2_mimic')
    assert len(runs.read_table(arguments.out / 'smollm2' / 'runs.csv')) == 1


def test_the_next_missing_runs_are_done_in_processes(arguments, monkeypatch):
    started = []

    def in_process(run, args):
        started.append(run.key)
        runs.add_rows(*runs.table_of(run, args), dict.fromkeys(runs.QUALITY, '1'))

    monkeypatch.setattr(runs, 'in_process', in_process)
    monkeypatch.setattr(runs, 'measure_teacher', lambda args: None)
    monkeypatch.setattr(runs, 'page', lambda args, planned: None)
    arguments.max_runs = 2
    runs.run(arguments, WHOLE)
    assert started == ['50_Mamba2_mimic', '50_Mamba2_calibrate']


def test_the_command_line_names_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['smollm2.py', 'teacher'])
    with pytest.raises(SystemExit):
        smollm2.parse_args()
    assert '--data' in capsys.readouterr().err


@pytest.mark.parametrize('share', [0, 50])
def test_the_speed_is_measured_after_every_context(arguments, share):
    run = plan.Run(share, 'SlidingWindow', 'mimic', 'speed')
    torch.manual_seed(0)
    row = runs.speed(run, arguments)
    assert all(float(row[f'tokens_per_second_{n}']) > 0 for n in (4, 8))
