import json

import pytest

from mmtransmamba.evaluation.vlm import MMVetMetric, load_mm_vet, score


@pytest.fixture
def samples(tmp_path, write):
    questions = {
        f'v1_{i}': dict(
            imagename=f'v1_{i}.png', question='What?', answer='x', capability=c
        )
        for i, c in enumerate([['ocr', 'math'], ['ocr']])
    }
    write(tmp_path / 'mm-vet.json', questions)
    return load_mm_vet(tmp_path)


def test_submission(samples, tmp_path):
    path = tmp_path / 'out' / 'submission.json'
    found = score(MMVetMetric(submission=path), samples, ['x = 1', 'é'])
    assert found == {'mm_vet/answers': 2}
    assert json.loads(path.read_text()) == {'v1_0': 'x = 1', 'v1_1': 'é'}


def test_ids_of_llavas_prompts(tmp_path, write):
    row = dict(question_id=7, image='v1_7.png', text='What?')
    write(tmp_path / 'questions.jsonl', [row])
    (sample,) = load_mm_vet(tmp_path)
    assert (sample.question_id, sample.info['official_id']) == ('7', 'v1_7')


@pytest.mark.parametrize('plain', [True, False])
def test_grades(samples, tmp_path, write, plain):
    grades = {'v1_0': [1.0, 0.8], 'v1_1': [0.0, 0.0]}
    if not plain:
        grades = {k: dict(model=['gpt-4'] * 2, score=v) for k, v in grades.items()}
    path = write(tmp_path / 'grades.json', grades)
    found = score(MMVetMetric(grades=path), samples, ['x', 'y'])
    assert found == pytest.approx(
        {
            'mm_vet/score': 45,
            'mm_vet/run_1': 50,
            'mm_vet/run_2': 40,
            'mm_vet/ocr': 45,
            'mm_vet/math': 90,
        }
    )


@pytest.mark.parametrize(
    ('grades', 'message'),
    [
        ({'v1_0': [1.0]}, r"no grades of \['v1_1'\]"),
        ({'v1_0': [1.0], 'v1_1': []}, 'no grades of v1_1'),
        ({'v1_0': [1.0], 'v1_1': [1.0, 0.0]}, 'between 1 and 2 grades each'),
    ],
)
def test_incomplete_grades(samples, tmp_path, write, grades, message):
    path = write(tmp_path / 'grades.json', grades)
    with pytest.raises(ValueError, match=message):
        score(MMVetMetric(grades=path), samples, ['x', 'y'])


def test_nothing_to_do():
    with pytest.raises(ValueError, match='give submission=FILE for the grader, or'):
        MMVetMetric()
