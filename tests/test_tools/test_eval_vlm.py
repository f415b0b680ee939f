"""Scoring files of predictions from the command line."""

import importlib.util
import json
import sys

import pytest


@pytest.fixture
def evaluate(repo_dir, monkeypatch, tmp_path, capsys):
    """Run ``tools/eval_vlm.py`` in an empty folder; what it prints."""
    path = repo_dir / 'tools' / 'eval_vlm.py'
    spec = importlib.util.spec_from_file_location('tools_eval_vlm', path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, 'path', sys.path.copy())
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('COLUMNS', '100')

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        module.main()
        return capsys.readouterr().out

    return run


@pytest.fixture(autouse=True)
def data(tmp_path):
    """Two questions each of GQA and MM-Vet, and answers to them."""
    root = tmp_path / 'data' / 'vlm_eval'
    (root / 'gqa').mkdir(parents=True)
    (root / 'mm_vet').mkdir()
    types = dict(structural='verify', semantic='global')
    gqa = dict(imageId='n1', question='Is it?', answer='yes', types=types)
    (root / 'gqa' / 'testdev_balanced_questions.json').write_text(
        json.dumps({'0': gqa, '1': gqa})
    )
    vet = dict(imagename='v1_0.png', question='What?', capability=['ocr'])
    (root / 'mm_vet' / 'mm-vet.json').write_text(json.dumps({'v1_0': vet, 'v1_1': vet}))
    folder = tmp_path / 'answers'
    folder.mkdir()
    for name, prefix in (('gqa', ''), ('mm_vet', 'v1_')):
        rows = [
            dict(question_id=f'{prefix}{i}', text=text)
            for i, text in enumerate(['Yes', 'No'])
        ]
        lines = '\n'.join(json.dumps(row) for row in rows)
        (folder / f'{name}.jsonl').write_text(lines)


def test_several_benchmarks(evaluate, tmp_path):
    names = ('--benchmarks', 'gqa', 'mm_vet')
    out = evaluate(*names, '--predictions', 'answers', '--out', 'scores')
    assert 'GQA' in out and '50.0000' in out and 'answers to submit' in out
    scores = json.loads((tmp_path / 'scores' / 'scores.json').read_text())
    assert scores['gqa']['questions'] == 2
    assert scores['gqa']['gqa/accuracy'] == 50
    assert scores['gqa']['gqa/unread'] == 0 and 'unread, %' in out
    assert 'mm_vet: 2 answers in scores/mm_vet_submission.json' in out
    submission = tmp_path / 'scores' / 'mm_vet_submission.json'
    assert json.loads(submission.read_text()) == {'v1_0': 'Yes', 'v1_1': 'No'}


def test_scores_of_several_commands_are_kept(evaluate, tmp_path):
    path = tmp_path / 'scores' / 'scores.json'
    for name in ('gqa', 'mm_vet'):
        evaluate('--benchmarks', name, '--predictions', 'answers', '--out', 'scores')
    assert list(json.loads(path.read_text())) == ['gqa', 'mm_vet']
    before = path.read_text()
    # Answers from elsewhere have a folder of their own, and so has a model.
    (tmp_path / 'other').mkdir()
    other = tmp_path / 'other' / 'gqa.jsonl'
    other.write_text((tmp_path / 'answers' / 'gqa.jsonl').read_text())
    names = ('--benchmarks', 'gqa', '--out', 'scores')
    with pytest.raises(SystemExit, match='scores has scores with other settings'):
        evaluate(*names, '--predictions', 'other')
    with pytest.raises(SystemExit, match='scores of --predictions; choose another'):
        evaluate('model', *names)
    assert path.read_text() == before


def test_answers_of_a_model_are_not_scored_from_files(evaluate, tmp_path):
    folder = tmp_path / 'scores'
    folder.mkdir()
    (folder / 'scores.json').write_text('{"gqa": {"gqa/accuracy": 1}}')
    names = ('--benchmarks', 'gqa', '--out', 'scores')
    with pytest.raises(SystemExit, match=r'has scores, but no predictions\.json'):
        evaluate(*names, '--predictions', 'answers')
    assert '"gqa/accuracy": 1}' in (folder / 'scores.json').read_text()


def test_one_file_and_grades(evaluate, tmp_path):
    (tmp_path / 'grades.json').write_text('{"v1_0": [1.0], "v1_1": [0.6]}')
    file = tmp_path / 'answers' / 'mm_vet.jsonl'
    out = evaluate(
        '--benchmarks', 'mm_vet', '--predictions', file, '--grades', 'grades.json'
    )
    assert '80.0000' in out


def test_limit(evaluate):
    args = ('--benchmarks', 'gqa', '--predictions', 'gqa=answers/gqa.jsonl')
    out = evaluate(*args, '--limit', '1')
    assert '100.0000' in out
    assert 'gqa: answers to other questions: 1' in out


@pytest.mark.parametrize(
    ('predictions', 'message'),
    [
        (['answers/gqa.jsonl'], 'there are 2 benchmarks: give NAME=FILE for each'),
        (['gqa=answers/gqa.jsonl'], '--predictions has no file for mm_vet'),
        (['answers', 'mme=x'], 'has files for mme, but --benchmarks does not name'),
        (['answers', 'gqa=absent.jsonl'], 'There is no file absent.jsonl'),
        (['answers', 'gqa=answers/mm_vet.jsonl'], 'no answers to 2 of 2 questions'),
    ],
)
def test_wrong_predictions(evaluate, predictions, message):
    with pytest.raises(SystemExit) as error:
        evaluate('--benchmarks', 'gqa', 'mm_vet', '--predictions', *predictions)
    assert str(error.value).startswith('eval_vlm.py: error: ')
    assert message in str(error.value)


def test_failure_keeps_finished_scores(evaluate, tmp_path):
    (tmp_path / 'answers' / 'mm_vet.jsonl').write_text('')
    with pytest.raises(SystemExit):
        evaluate('--benchmarks', 'gqa', 'mm_vet', '--predictions', 'answers')
    scores = tmp_path / 'work_dirs' / 'eval_vlm' / 'scores.json'
    assert list(json.loads(scores.read_text())) == ['gqa']


def test_from_a_clean_checkout(run_tool, tmp_path):
    done = run_tool(
        'eval_vlm.py',
        *('--benchmarks', 'gqa', '--predictions', 'answers/gqa.jsonl'),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    assert '50.0000' in done.stdout
