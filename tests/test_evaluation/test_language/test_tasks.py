"""Rows of the benchmarks as the harness puts them to a model."""

import gzip
import json

import pytest

from mmtransmamba.evaluation.language import TASKS, read_questions
from mmtransmamba.utils.choices import LM_BENCHMARKS

ARC = dict(
    question='Why?',
    choices=dict(text=['so', 'because'], label=['A', 'B']),
    answerKey='B',
)
QUERY = dict(query='Question: Why?\nAnswer:', choices=['so', 'because'], gold=1)
EXPECTED = {
    'arc_easy': (ARC, 'Question: Why?\nAnswer:', [' so', ' because'], 1),
    'arc_challenge': (QUERY, 'Question: Why?\nAnswer:', [' so', ' because'], 1),
    'boolq': (
        dict(passage='Ice is cold.', question='is ice hot', answer=False),
        'Ice is cold.\nQuestion: is ice hot?\nAnswer:',
        [' no', ' yes'],
        0,
    ),
    'commonsense_qa': (
        dict(
            question=' Where? ',
            choices=dict(label=list('ABCDE'), text=list('vwxyz')),
            answerKey='D',
        ),
        'Question: Where?\nA. v\nB. w\nC. x\nD. y\nE. z\nAnswer:',
        [' A', ' B', ' C', ' D', ' E'],
        3,
    ),
    'copa': (
        dict(
            premise='It rained. ',
            question='cause',
            choice1='Ab.',
            choice2='C.',
            label=0,
        ),
        'It rained because',
        ['  ab.', '  c.'],
        0,
    ),
    'hellaswag': (
        dict(
            activity_label='Roof',
            ctx_a='A man [step] sits.',
            ctx_b='he',
            endings=['falls [title] down', ' gets  up'],
            label='1',
        ),
        'Roof: A man sits. He',
        [' falls.  down'.replace('  ', ' '), ' gets up'],
        1,
    ),
    'lambada_openai': (
        dict(text='not care about signs'),
        'not care about',
        [' signs'],
        0,
    ),
    'openbookqa_val': (
        dict(question_stem='They are', choices=ARC['choices'], answerKey=' A'),
        'They are',
        [' so', ' because'],
        0,
    ),
    'piqa': (
        dict(goal='Open it', sol1='Pull', sol2='Push', label=1),
        'Question: Open it\nAnswer:',
        [' Pull', ' Push'],
        1,
    ),
    'sciq': (
        dict(
            support='  Text.',
            question='Who?',
            distractor1='a',
            distractor2='b',
            distractor3='c',
            correct_answer='d',
        ),
        'Text.\nQuestion: Who?\nAnswer:',
        [' a', ' b', ' c', ' d'],
        3,
    ),
    'social_iqa': (
        dict(
            context='C.',
            question='Q?',
            answerA='x',
            answerB='y',
            answerC='z',
            label='3',
        ),
        'Q: C. Q?\nA:',
        [' x', ' y', ' z'],
        2,
    ),
}


@pytest.mark.parametrize('name', EXPECTED)
def test_prompt_and_choices(name):
    row, context, continuations, gold = EXPECTED[name]
    question = TASKS[name].read(row)
    assert question.contexts == (context,) * len(continuations)
    assert question.continuations == tuple(continuations)
    assert question.gold == gold


def test_winogrande_scores_what_follows_either_name():
    row = dict(sentence='Jo saw Al, so _ ran.', option1='Jo', option2='Al', answer='2')
    question = TASKS['winogrande'].read(row)
    assert question.contexts == ('Jo saw Al, so Jo', 'Jo saw Al, so Al')
    assert question.continuations == (' ran.', ' ran.')
    assert question.gold == 1


def test_command_line_offers_every_benchmark():
    assert sorted(LM_BENCHMARKS) == sorted(TASKS)


@pytest.mark.parametrize('name', TASKS)
def test_official_rows_are_read(name, shared_dir):
    questions = read_questions(TASKS[name], shared_dir / 'data' / 'lm_eval', limit=50)
    assert len(questions) == 50
    for question in questions:
        assert len(question.contexts) == len(question.continuations)
        assert all(text.strip() for text in question.continuations)


def write(path, lines):
    with gzip.open(path, 'wt') if path.suffix == '.gz' else open(path, 'w') as file:
        file.write('\n'.join(lines))


@pytest.mark.parametrize('ending', ['', '.gz'])
def test_files_may_be_compressed(ending, tmp_path):
    row = json.dumps(EXPECTED['piqa'][0])
    write(tmp_path / f'piqa_validation.jsonl{ending}', [row, '', row])
    assert len(read_questions(TASKS['piqa'], tmp_path)) == 2
    assert len(read_questions(TASKS['piqa'], tmp_path, limit=1)) == 1


@pytest.mark.parametrize(
    'line, reason',
    [
        ('{"goal": "x", "sol1": "a"}', "line 2 has no 'sol2'"),
        ('{"goal": "x", "sol1": "a", "sol2": "b", "label": 2}', 'line 2 is not a row'),
        ('[1, 2]', 'line 2 is not a row'),
        ('{"goal": ', 'line 2 is not a row'),
        ('null', 'line 2 is not a row'),
    ],
)
def test_a_bad_row_is_named(line, reason, tmp_path):
    write(tmp_path / 'piqa_validation.jsonl', [json.dumps(EXPECTED['piqa'][0]), line])
    with pytest.raises(ValueError, match=reason):
        read_questions(TASKS['piqa'], tmp_path)


@pytest.mark.parametrize('content', [b'', b'\n\n', b'\xff\xfe\x00'])
def test_a_file_without_questions_is_named(content, tmp_path):
    (tmp_path / 'piqa_validation.jsonl').write_bytes(content)
    with pytest.raises(ValueError, match='piqa_validation.jsonl'):
        read_questions(TASKS['piqa'], tmp_path)


def test_a_cut_archive_is_named(tmp_path):
    path = tmp_path / 'piqa_validation.jsonl.gz'
    write(path, [json.dumps(EXPECTED['piqa'][0])] * 200)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match='piqa_validation.jsonl.gz cannot be read'):
        read_questions(TASKS['piqa'], tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no piqa_validation.jsonl'):
        read_questions(TASKS['piqa'], tmp_path)
