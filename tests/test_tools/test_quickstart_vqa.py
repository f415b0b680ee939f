"""The command for questions about pictures, shrunk: ten runs, tables, a page."""

import json
import sys

import pytest
from mmengine.config import Config

from mmtransmamba import apis
from mmtransmamba.apis import vqa_answers


@pytest.fixture
def quickstart(repo_dir, monkeypatch):
    monkeypatch.syspath_prepend(str(repo_dir / 'tools'))
    import quickstart_vqa

    whole = apis.run_experiment
    quickstart_vqa.started = []

    def shrunk(config, work_dir, options=None):
        small = {'train_cfg.max_iters': 2, 'train_dataloader.batch_size': 4}
        small['train_dataloader.dataset.num_scenes'] = 8
        if 'tower' not in config.name:
            small['train_cfg.val_interval'] = 2
            small['val_dataloader.dataset.num_scenes'] = 4
        quickstart_vqa.started.append(
            (config.stem, (work_dir / 'result.json').exists())
        )
        return whole(config, work_dir, (options or {}) | small)

    fromfile = Config.fromfile

    def few(path):
        cfg = fromfile(path)
        if 'test_dataloader' in cfg:
            cfg.test_dataloader.dataset.num_scenes = 12
            cfg.train_dataloader.dataset.num_scenes = 12
        return cfg

    monkeypatch.setattr(apis, 'run_experiment', shrunk)
    monkeypatch.setattr(Config, 'fromfile', few)
    monkeypatch.setattr(vqa_answers, 'CONTEXT', 32)
    monkeypatch.setattr(vqa_answers, 'STEPS', 2)
    return quickstart_vqa


def test_ends_with_tables_and_page(quickstart, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['quickstart_vqa.py', '--work-dir', str(tmp_path)])
    quickstart.main()
    printed = capsys.readouterr().out
    for label in ('teacher', 'hybrid, only converted', 'pure Mamba', 'KiB', 'exists'):
        assert label in printed
    records = json.loads((tmp_path / 'results_seed0.json').read_text())
    by_model = {record['model']: record for record in records}
    assert list(by_model) == [
        'most frequent answer',
        'teacher',
        'hybrid, only converted',
        'pure Mamba, only converted',
        'hybrid',
        'pure Mamba',
        'pure Mamba, from scratch',
    ]
    assert by_model['teacher']['agreement'] == 100
    pure, teacher = by_model['pure Mamba'], by_model['teacher']
    # The state of pure Mamba does not grow, that of attention does with every token.
    assert pure['state_kib_long'] == pure['state_kib_question']
    assert teacher['state_kib_long'] > teacher['state_kib_question']
    hybrid = by_model['hybrid']['state_kib_long']
    assert pure['state_kib_question'] < hybrid
    assert pure['parameters'] == by_model['pure Mamba, from scratch']['parameters']
    assert (tmp_path / 'answers_seed0.png').stat().st_size > 10_000
    assert [done for _, done in quickstart.started] == [False] * 9

    # Everything is there: nothing is trained, the answers are the same.
    quickstart.started.clear()
    quickstart.main()
    assert [done for _, done in quickstart.started] == [True] * 9
    again = json.loads((tmp_path / 'results_seed0.json').read_text())
    for one, other in zip(records, again, strict=True):
        assert one['accuracy'] == other['accuracy']

    # A student that is added does not touch the others.
    quickstart.started.clear()
    sys.argv += ['--students', 'pure', 'pure_gdn']
    quickstart.main()
    assert [done for _, done in quickstart.started] == [True] * 5 + [False] * 3 + [True]
    records = json.loads((tmp_path / 'results_seed0.json').read_text())
    added = {r['model']: r for r in records if r['model'] not in by_model}
    assert list(added) == [
        'pure Gated DeltaNet, only converted',
        'pure Gated DeltaNet',
    ]
    assert all(r['state_kib_long'] == r['state_kib_question'] for r in added.values())


def test_majority_is_of_the_training_set(quickstart):
    class Questions:
        def __init__(self, *answers):
            self.questions = [
                type('Q', (), dict(answer=answer, category=category))
                for category, answer in answers
            ]

    train = Questions(('a', 'x'), ('a', 'x'), ('a', 'y'), ('b', 'yes'))
    test = Questions(('a', 'y'), ('a', 'x'), ('b', 'no'))
    found = vqa_answers.majority(train, test)
    assert (found['a'], found['b']) == (50, 0)
