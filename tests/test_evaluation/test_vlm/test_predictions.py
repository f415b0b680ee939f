"""Files of answers, and the answers of a model."""

import json
import re

import pytest

from mmtransmamba.evaluation.vlm import (
    PredictionError,
    VLMSample,
    generate_predictions,
    match_predictions,
    read_predictions,
)
from mmtransmamba.evaluation.vlm.files import Row

SAMPLES = [VLMSample(str(i), f'question {i}') for i in range(5)]


def rows(*values):
    return [Row(value, f'row {n}') for n, value in enumerate(values)]


class TestMatching:
    def test_by_id_in_any_order(self):
        texts, left_over = match_predictions(
            SAMPLES[:2],
            rows(
                dict(id=1, prediction='b'),
                dict(index=0, text='a'),
                dict(question_id='9', text='z'),
            ),
        )
        assert (texts, left_over) == (['a', 'b'], 1)

    def test_two_questions_of_one_id(self):
        pair = [VLMSample('x', 'Is it?'), VLMSample('x', 'Is it not?')]
        given = rows(
            dict(question_id='x', prompt='Is it not?', text='No'),
            dict(question_id='x', prompt='Is it?', text='Yes'),
        )
        assert match_predictions(pair, given) == (['Yes', 'No'], 0)
        without_prompts = rows(
            dict(question_id='x', text='first'), dict(question_id='x', text='second')
        )
        assert match_predictions(pair, without_prompts)[0] == ['first', 'second']

    def test_answers_to_another_prompt(self):
        given = rows(dict(question_id='0', prompt='something else', text='a'))
        with pytest.raises(PredictionError, match='row 0 answers another prompt than'):
            match_predictions(SAMPLES, given)

    def test_prompt_without_the_request_for_a_letter(self):
        sample = VLMSample('1', 'Which?\nA. x\nAnswer with the letter.')
        given = rows(dict(question_id='1', prompt='<image>\nWhich?\nA. x', text='A'))
        assert match_predictions([sample], given) == (['A'], 0)

    @pytest.mark.parametrize(
        ('row', 'missing'),
        [(dict(text='a'), 'question_id, id, index'), (dict(id=0), 'text, prediction')],
    )
    def test_missing_key(self, row, missing):
        with pytest.raises(PredictionError, match=f'row 0 has none of {missing}, but'):
            match_predictions(SAMPLES[:1], rows(row))

    def test_missing_answers(self, tmp_path, write):
        path = write(tmp_path / 'a.jsonl', [dict(question_id='1', text='b')])
        message = r'no answers to 4 of 5 questions: 0, 2, 3, 4$'
        with pytest.raises(PredictionError, match=message):
            read_predictions(SAMPLES, path)

    def test_json_list(self, tmp_path, write):
        path = write(tmp_path / 'a.json', [dict(question_id='1', text='b')])
        assert read_predictions(SAMPLES[1:2], path) == (['b'], 0)

    @pytest.mark.parametrize(
        ('content', 'message'),
        [('{"id": 1}\n{"id"', 'line 2'), ('[1]', 'record 1 is not a JSON object')],
    )
    def test_unreadable(self, tmp_path, write, content, message):
        path = write(tmp_path / 'a.jsonl', content)
        with pytest.raises(ValueError, match=message):
            read_predictions(SAMPLES, path)


class TestRefusals:
    """Each names file, line and question."""

    @pytest.mark.parametrize('value', [None, 5, 1.5, True, ['a'], {'a': 1}])
    @pytest.mark.parametrize('key', ['text', 'prediction'])
    def test_an_answer_that_is_no_text(self, tmp_path, write, key, value):
        given = [dict(question_id='0', text='a'), {'question_id': '1', key: value}]
        path = write(tmp_path / 'a.jsonl', given)
        shown = re.escape(json.dumps(value))
        message = rf'a\.jsonl, line 2.*"{key}" of question 1 must be text, not {shown}$'
        with pytest.raises(PredictionError, match=message):
            read_predictions(SAMPLES[:2], path)

    @pytest.mark.parametrize('value', [None, 1.0, True, ['0']])
    def test_an_id_that_is_none(self, tmp_path, write, value):
        path = write(tmp_path / 'a.jsonl', [dict(question_id=value, text='a')])
        with pytest.raises(
            PredictionError, match=r'line 1.*must be text or an integer'
        ):
            read_predictions(SAMPLES[:1], path)

    def test_a_prompt_that_is_no_text(self, tmp_path, write):
        path = write(tmp_path / 'a.jsonl', [dict(question_id=0, text='a', prompt=3)])
        with pytest.raises(
            PredictionError, match='"prompt" of question 0 must be text'
        ):
            read_predictions(SAMPLES[:1], path)

    @pytest.mark.parametrize('text', ['a', 'another'])
    @pytest.mark.parametrize('id_of_second', ['0', 0])
    def test_a_question_answered_twice(self, tmp_path, write, text, id_of_second):
        given = [
            dict(question_id='0', text='a'),
            dict(question_id='1', text='b'),
            dict(question_id=id_of_second, text=text),
        ]
        path = write(tmp_path / 'a.jsonl', given)
        message = r'a\.jsonl, line 3.* answers question 0 once more'
        with pytest.raises(PredictionError, match=message):
            read_predictions(SAMPLES[:2], path)

    def test_an_answer_to_no_question(self, tmp_path, write):
        given = [dict(question_id=n, text='a') for n in ('0', '3', '7')]
        path = write(tmp_path / 'a.json', given)
        assert read_predictions(SAMPLES[:1], path) == (['a'], 2)
        message = r'a\.json, record 3 answers question 7, which is none of the bench'
        with pytest.raises(PredictionError, match=message):
            read_predictions(SAMPLES[:1], path, known={'3'}.__contains__)
        known = {'3', '7'}.__contains__
        assert read_predictions(SAMPLES[:1], path, known) == (['a'], 2)

    def test_blank_lines_are_counted(self, tmp_path, write):
        text = '{"id": 0, "text": "a"}\r\n\r\n{"id": 1, "text": null}\r\n'
        path = write(tmp_path / 'a.jsonl', text)
        with pytest.raises(
            PredictionError, match='line 3, record 2: "text" of question 1'
        ):
            read_predictions(SAMPLES[:2], path)


class Model:
    """Answers the prompt in capitals; breaks before a given question."""

    def __init__(self, breaks_at=None):
        self.breaks_at = breaks_at
        self.batches = []

    def __call__(self, batch):
        ids = [sample.question_id for sample in batch]
        if self.breaks_at in ids:
            raise KeyboardInterrupt
        self.batches.append(ids)
        return [sample.prompt.upper() for sample in batch]


EXPECTED = [f'QUESTION {i}' for i in range(5)]


class TestGenerating:
    def test_batches_and_file(self, tmp_path):
        path = tmp_path / 'new' / 'answers.jsonl'
        model = Model()
        assert generate_predictions(SAMPLES, model, path, batch_size=2) == EXPECTED
        assert model.batches == [['0', '1'], ['2', '3'], ['4']]
        written = [json.loads(line) for line in path.read_text().splitlines()]
        assert written[4] == dict(
            question_id='4', prompt='question 4', text=EXPECTED[4]
        )
        assert read_predictions(SAMPLES, path) == (EXPECTED, 0)

    def test_interrupted_and_continued(self, tmp_path):
        path = tmp_path / 'answers.jsonl'
        with pytest.raises(KeyboardInterrupt):
            generate_predictions(SAMPLES, Model('4'), path, batch_size=2)
        # Killed in the middle of a line, too.
        with path.open('a') as file:
            file.write('{"question_id": "4", "te')
        model = Model()
        assert generate_predictions(SAMPLES, model, path, batch_size=2) == EXPECTED
        assert model.batches == [['4']]
        assert len(path.read_text().splitlines()) == 5

    def test_finished(self, tmp_path):
        path = tmp_path / 'answers.jsonl'
        generate_predictions(SAMPLES, Model(), path)
        before = path.read_bytes()
        assert generate_predictions(SAMPLES, Model('0'), path) == EXPECTED
        assert path.read_bytes() == before

    @pytest.mark.parametrize('end', ['', '\r', ' '])
    def test_a_last_answer_without_a_line_end(self, tmp_path, end):
        path = tmp_path / 'answers.jsonl'
        rows = [dict(question_id=str(i), text=EXPECTED[i]) for i in range(2)]
        path.write_bytes('\n'.join(map(json.dumps, rows)).encode() + end.encode())
        model = Model()
        assert generate_predictions(SAMPLES, model, path, batch_size=5) == EXPECTED
        assert model.batches == [['2', '3', '4']]
        assert read_predictions(SAMPLES, path) == (EXPECTED, 0)

    @pytest.mark.parametrize('indent', [None, 1])
    def test_a_list_is_left_as_it_is(self, tmp_path, indent):
        path = tmp_path / 'answers.jsonl'
        rows = [dict(question_id=str(i), text=EXPECTED[i]) for i in range(5)]
        path.write_text(json.dumps(rows, indent=indent))
        before = path.read_bytes()
        with pytest.raises(PredictionError, match='is a JSON list'):
            generate_predictions(SAMPLES, Model(), path)
        assert path.read_bytes() == before
        assert read_predictions(SAMPLES, path) == (EXPECTED, 0)

    @pytest.mark.parametrize('content', [b'a,b\n1,2', b'{"question_id": "9"}\n{"te'])
    def test_a_file_that_is_not_understood_is_left_as_it_is(self, tmp_path, content):
        path = tmp_path / 'answers.jsonl'
        path.write_bytes(content)
        with pytest.raises(ValueError):
            generate_predictions(SAMPLES, Model(), path)
        assert path.read_bytes() == content

    def test_answers_to_known_questions_stay(self, tmp_path):
        path = tmp_path / 'answers.jsonl'
        generate_predictions(SAMPLES, Model(), path)
        before = path.read_bytes()
        first = generate_predictions(SAMPLES[:2], Model('0'), path, known='234'.count)
        assert first == EXPECTED[:2] and path.read_bytes() == before
        with pytest.raises(PredictionError, match='1 answers to other questions'):
            generate_predictions(SAMPLES[:2], Model(), path, known='24'.count)

    def test_any_text_survives_the_file(self, tmp_path):
        texts = ['two\nlines', '"é"\u2028\\', '']
        path = tmp_path / 'answers.jsonl'
        samples = SAMPLES[:3]
        generate_predictions(samples, lambda batch: texts, path, batch_size=3)
        assert read_predictions(samples, path) == (texts, 0)

    def test_file_of_other_questions(self, tmp_path):
        path = tmp_path / 'answers.jsonl'
        generate_predictions(SAMPLES, Model(), path)
        with pytest.raises(PredictionError, match='3 answers to other questions'):
            generate_predictions(SAMPLES[:2], Model(), path)
        changed = [VLMSample('0', 'another prompt')]
        with pytest.raises(PredictionError, match='answers another prompt'):
            generate_predictions(changed, Model(), path)

    @pytest.mark.parametrize('answers', [['a'], ['a', None], ['a', 'b', 'c']])
    def test_not_one_text_each(self, tmp_path, answers):
        path = tmp_path / 'answers.jsonl'
        with pytest.raises(PredictionError, match='2 questions got'):
            generate_predictions(SAMPLES, lambda batch: answers, path, batch_size=2)
        assert path.read_text() == ''
