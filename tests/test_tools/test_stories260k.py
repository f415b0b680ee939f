"""The ablation on a story teller, with a tiny one and a few stories."""

import argparse
import csv
import json
import re
import shutil
import sys
from pathlib import Path

import _stories260k as module
import numpy as np
import pytest
import stories260k
from language_models import make_teacher
from markov_tokens import MarkovTokens
from processes import run_script

from mmtransmamba.utils.seed_statistics import mean_and_spread

SCRIPT = 'studies/stories260k.py'


def write_data(folder, num_layers=5, seed=0):
    make_teacher(num_hidden_layers=num_layers, seed=seed).save_pretrained(folder / 'hf')
    for name, first in (('train', 0), ('val', 32)):
        dataset = MarkovTokens(num_samples=32, length=12, vocab_size=29, first=first)
        tokens = np.stack([sample['input_ids'].numpy() for sample in dataset])
        np.savez(folder / f'samples_{name}.npz', tokens=tokens.astype(np.uint16))


def fork(command, stdout, stderr, env):
    """``subprocess.run`` of a script, without the time of its imports."""
    done = run_script(*command[1:], **env)
    stdout.write(done.stdout + done.stderr)
    return done


def test_a_table_is_made(tmp_path, monkeypatch, capsys):
    """Stages that follow each other, and single ones, with data from elsewhere."""
    write_data(tmp_path / 'tales')
    layers = (1, 3)
    rows = [
        ('two stages', module.Student(layers, stages='12')),
        ('TransMamba', module.Student(layers, 'subclone', 'T', 3)),
    ]
    other = module.Table('share', 'Not asked for', [('pure', module.Student())])
    asked = module.Table('recipes', 'Two students', rows)
    monkeypatch.setattr(module, 'tables', lambda order: [other, asked])
    arguments = '--data tales --only recipes --iters 2 --seeds 7 8 --work-dir runs'
    monkeypatch.setattr(
        sys, 'argv', ['stories260k.py', *arguments.split(), '--out', 'results']
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.subprocess, 'run', fork)
    stories260k.main()
    text = (tmp_path / 'results/tables.md').read_text()
    assert '## Two students' in text
    assert 'Not asked for' not in text
    with (tmp_path / 'results/runs.csv').open(newline='') as file:
        runs = {run['run']: run for run in csv.DictReader(file)}
    assert set(runs) == {
        f'{student.name}_i2_s{seed}' for seed in (7, 8) for _, student in rows
    }
    for label, student in rows:
        found = [runs[f'{student.name}_i2_s{seed}'] for seed in (7, 8)]
        assert [run['converted'] for run in found] == ['1, 3'] * 2
        nll, kl = ([float(run[key]) for run in found] for key in ('nll', 'kl'))
        # The seed draws the weights and the order of the stories.
        assert nll[0] != nll[1] and min(kl) > 0
        ppl = [float(run['ppl']) for run in found]
        assert ppl == pytest.approx(np.exp(nll), rel=1e-5)
        (cells,) = re.findall(rf'\| {label} \| 1, 3 \| (.*) \|', text)
        assert cells.split(' | ') == [
            mean_and_spread(values, digits)
            for values, digits in ((nll, 4), (ppl, 3), (kl, 4))
        ]
        for seed in (7, 8):
            run = tmp_path / 'runs' / f'{student.name}_i2_s{seed}'
            last = (run / 'last_checkpoint').read_text()
            assert last.endswith(f'iter_{2 * student.scale}.pth')
    histories = {
        'layers13_mimic_12': ['init:mimic', 'stage1', 'stage2'],
        'layers13_subclone_T_x3': ['init:subclone', 'transmamba'],
    }
    for name, history in histories.items():
        student = tmp_path / 'runs' / f'{name}_i2_s7' / 'student'
        config = json.loads((student / 'config.json').read_text())
        assert config['transfer_history'] == history
    # Where the paths of the configs would lead, there is nothing.
    assert not (tmp_path / 'data').exists()
    # Again, without a training or a measurement, on a machine that has only the table.
    capsys.readouterr()
    shutil.rmtree(tmp_path / 'runs')
    monkeypatch.setattr(module.Trainings, 'finish', None)
    stories260k.main()
    assert capsys.readouterr().out.endswith(f'{text}\n')
    # What another teacher taught does not continue it.
    write_data(tmp_path / 'tales', seed=1)
    with pytest.raises(SystemExit, match='results has tables with other settings'):
        stories260k.main()


def test_a_finished_student_is_kept_when_another_fails(tmp_path, monkeypatch):
    write_data(tmp_path)
    students = [module.Student((1,), stages=''), module.Student((2,), stages='')]
    table = module.Table('share', 'Two', [('one', students[0]), ('two', students[1])])
    monkeypatch.setattr(module, 'tables', lambda order: [table])
    arguments = f'--data {tmp_path} --only share --seeds 0 --jobs 1'.split()
    monkeypatch.setattr(sys, 'argv', ['stories260k.py', *arguments])
    monkeypatch.chdir(tmp_path)
    finish = module.Trainings.finish
    asked = []

    def failing(self, student):
        asked.append(student)
        if student == students[1] and len(asked) == 2:
            raise SystemExit('the machine is gone')
        finish(self, student)

    monkeypatch.setattr(module.Trainings, 'finish', failing)
    with pytest.raises(SystemExit, match='the machine is gone'):
        stories260k.main()
    folder = tmp_path / 'work_dirs/stories260k'
    rows = (folder / 'runs.csv').read_text().splitlines()
    assert len(rows) == 2 and not (folder / 'tables.md').exists()
    stories260k.main()
    assert asked == [*students, students[1]]
    after = (folder / 'runs.csv').read_text().splitlines()
    assert after[:2] == rows and len(after) == 3
    assert '| two | 2 |' in (folder / 'tables.md').read_text()


def test_each_run_has_a_folder_of_its_own():
    def folder(iters, seed):
        args = argparse.Namespace(work_dir=Path('runs'), iters=iters)
        return module.Trainings(args).folder(module.Student((1, 3), seed=seed))

    assert folder(5, 0) == Path('runs/layers13_mimic_123_i5_s0')
    assert len({folder(i, s) for i in (5, 6) for s in (0, 1)}) == 4


def test_every_table_can_be_asked_for(monkeypatch):
    monkeypatch.setattr(module, 'head_tables', lambda *_: [])
    made = [*module.tables([0, 1, 2, 3, 4]), *module.HEAD_TABLES]
    assert tuple(getattr(t, 'name', t) for t in made) == stories260k.TABLES


def test_as_many_heads_are_converted_as_layers_have(tmp_path, monkeypatch):
    write_data(tmp_path)
    teacher = module.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf')
    monkeypatch.setattr(module, 'HEADS', 2)
    monkeypatch.setattr(module, 'RANKED', 8)
    monkeypatch.setattr(module, 'RANKINGS', ('single', 'gates'))
    before, after = module.head_tables(teacher, tmp_path, 0)
    assert (before.name, after.name) == module.HEAD_TABLES
    sizes = [len(s.heads) or 2 * len(s.layers) for _, s in before.rows]
    assert sizes == [2 * n for n in (1, 2, 3, 4) for _ in range(4)]
    assert {s.stages for _, s in after.rows} == {'M'}
    label, student = before.rows[2]
    assert label == '80 %, heads, single' and len(student.heads) == 2
    args = dict(work_dir=tmp_path / 'runs', iters=1, data=tmp_path)
    trainings = module.Trainings(argparse.Namespace(**args))
    trainings.finish(student)
    config = trainings.load(student).config
    found = [
        (i, head)
        for i in config.mamba_layers
        for head in range(2)
        if head not in config.mixer_of(i).get('attention_kv_heads', [])
    ]
    assert tuple(found) == student.heads
    assert student.converted == module.described(student.heads)


@pytest.mark.parametrize('name', ['share', 'positions'])
def test_the_page_has_the_rows_that_the_command_makes(repo_dir, name):
    """Their layers; those of `auto` as recorded on the page."""
    page = (repo_dir / 'docs/results/stories260k.md').read_text()
    (made,) = (t for t in module.tables([2, 4, 3, 0, 1]) if t.name == name)
    section = page.split(f'## {made.title}\n')[1].split('\n## ')[0]
    rows = [line.split(' | ') for line in section.splitlines() if line[:3] != '|--']
    found = {row[0][2:]: row[1] for row in rows if len(row) == 5 and row[0] != '|'}
    assert found == {
        label: ', '.join(map(str, student.layers)) for label, student in made.rows
    }


@pytest.mark.parametrize(
    'num_layers, message',
    [
        (None, 'there is no tales/hf; docs/data.md says what belongs there'),
        (3, 'the model in tales/hf has 3 layers; the tables are for 5'),
    ],
)
def test_other_data(tmp_path, monkeypatch, num_layers, message):
    monkeypatch.chdir(tmp_path)
    if num_layers:
        write_data(tmp_path / 'tales', num_layers)
    monkeypatch.setattr(sys, 'argv', ['stories260k.py', '--data', 'tales'])
    with pytest.raises(SystemExit, match=message):
        stories260k.main()
