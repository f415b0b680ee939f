"""TextVQA, VQAv2 and GQA."""

import json

import pytest

from mmtransmamba.evaluation.vlm import (
    GQAMetric,
    TextVQAMetric,
    VLMSample,
    VQAv2Metric,
    load_gqa,
    load_textvqa,
    load_vqav2,
    score,
)
from mmtransmamba.evaluation.vlm.vqa_answers import (
    normalise_answer,
    soft_accuracy,
    split_words,
)


@pytest.mark.parametrize(
    ('text', 'normal'),
    [
        ('Dakota Digital', 'dakota digital'),
        ('  the  cat\nand a dog ', 'cat and dog'),
        ('Ten', '10'),
        ('none', '0'),
        ('eleven', 'eleven'),
        # Punctuation becomes a space, ...
        ('t-shirt', 't shirt'),
        ('a/b', 'b'),
        # ... but vanishes if it touches a space anywhere in the text.
        ('t-shirt - red', 'tshirt red'),
        ('"stop"', 'stop'),
        ('coca-cola (can)', 'coca cola can'),
        # Thousands: all punctuation vanishes.
        ('1,000', '1000'),
        ('1,000 t-shirts', '1000 tshirts'),
        ('red,white', 'red white'),
        ('red, white', 'red white'),
        # Full stops stay before digits only.
        ('7.5', '7.5'),
        ('7.', '7'),
        ('mr. t', 'mr t'),
        # Contractions get their apostrophe back; words are left alone.
        ('dont', "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ('yall', "y'all"),
        ('well', 'well'),
        ('id', 'id'),
    ],
)
def test_normal_form(text, normal):
    assert normalise_answer(text) == normal


@pytest.mark.parametrize(
    ('text', 'normal'),
    [
        ('1,000', '1000'),
        ('red,white', 'redwhite'),
        ("Dog's?", "dog 's"),
    ],
)
def test_evalais_first_step(text, normal):
    assert normalise_answer(split_words(text)) == normal


@pytest.mark.parametrize(
    ('matches', 'accuracy'),
    [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)],
)
def test_leave_one_out(matches, accuracy):
    """With n matches, n people see n - 1 others, the rest n."""
    people = ['x'] * matches + [f'y{i}' for i in range(10 - matches)]
    assert soft_accuracy('x', people) == pytest.approx(accuracy)


def test_textvqa_normalises_both_sides():
    gold = ["Two dog's."] * 4 + ['the cat'] * 3 + ['bird', 'bird', 'fish']
    samples = [VLMSample(str(i), '?', gold) for i in range(3)]
    found = score(TextVQAMetric(), samples, ["2 DOG'S", 'Cat', 'fish?'])
    assert found['textvqa/accuracy'] == pytest.approx(100 * (1 + 0.9 + 0.3) / 3)


def entry(number, image='img', question='What?'):
    return dict(
        question_id=number, image_id=image, question=question, answers=['x'] * 10
    )


def test_textvqa_files(tmp_path, write):
    write(tmp_path / 'TextVQA_0.5.1_val.json', {'data': [entry(1), entry(2)]})
    samples = load_textvqa(tmp_path)
    assert [s.question_id for s in samples] == ['1', '2']
    assert samples[0].images == ('img.jpg',)
    prompts = [
        dict(question_id='img', text=f'What?\nReference OCR token: {t}') for t in 'ab'
    ]
    write(tmp_path / 'questions.jsonl', prompts)
    samples = load_textvqa(tmp_path)
    assert [s.question_id for s in samples] == ['img', 'img']
    assert samples[1].prompt.endswith('token: b')
    prompts[1]['text'] = 'Who?'
    write(tmp_path / 'questions.jsonl', prompts)
    with pytest.raises(ValueError, match='record 2 is not the question of'):
        load_textvqa(tmp_path)
    write(tmp_path / 'questions.jsonl', prompts[:1])
    with pytest.raises(ValueError, match='1 prompts for 2 questions'):
        load_textvqa(tmp_path)


class TestVQAv2:
    @pytest.fixture
    def folder(self, tmp_path, write):
        for split in ('val2014', 'test-dev2015'):
            questions = [
                dict(question_id=10 + i, image_id=42, question='What?')
                for i in range(2)
            ]
            path = tmp_path / f'v2_OpenEnded_mscoco_{split}_questions.json'
            write(path, {'questions': questions})
        annotations = [
            dict(
                question_id=10,
                answer_type='yes/no',
                answers=[dict(answer='yes')] * 10,
            ),
            dict(
                question_id=11,
                answer_type='other',
                answers=[dict(answer=a) for a in ['t-shirt'] * 3 + ['hat'] * 7],
            ),
        ]
        path = tmp_path / 'v2_mscoco_val2014_annotations.json'
        write(path, {'annotations': annotations})
        return tmp_path

    def test_score(self, folder):
        samples = load_vqav2(folder)
        assert samples[0].images == ('COCO_val2014_000000000042.jpg',)
        # In normal form even where all people agree.
        found = score(VQAv2Metric(), samples, ['Yes.', 'A T-shirt'])
        assert found == pytest.approx(
            {'vqav2/accuracy': 95, 'vqav2/other': 90, 'vqav2/yes/no': 100}
        )

    def test_submission(self, folder, tmp_path):
        samples = load_vqav2(folder, 'test-dev2015')
        assert samples[0].images == ('COCO_test2015_000000000042.jpg',)
        path = tmp_path / 'out' / 'submission.json'
        found = score(VQAv2Metric(submission=path), samples, ['Yes', 'The Hat'])
        assert found == {'vqav2/answers': 2}
        assert json.loads(path.read_text()) == [
            dict(question_id=10, answer='yes'),
            dict(question_id=11, answer='hat'),
        ]
        with pytest.raises(ValueError, match='give submission=FILE'):
            score(VQAv2Metric(), samples, ['Yes', 'Hat'])

    def test_validation_needs_annotations(self, folder):
        (folder / 'v2_mscoco_val2014_annotations.json').unlink()
        with pytest.raises(FileNotFoundError, match='annotations.json'):
            load_vqav2(folder)


class TestGQA:
    def test_exact_match(self):
        info = dict(structural='query', semantic='rel')
        binary = dict(structural='verify', semantic='attr')
        samples = [
            VLMSample('1', '?', 'women', info=info),
            VLMSample('2', '?', 'yes', info=binary),
            VLMSample('3', '?', 'yes', info=binary),
        ]
        found = score(GQAMetric(), samples, ['Woman', 'Yes.', 'yes, it is'])
        assert found == pytest.approx(
            {
                'gqa/accuracy': 100 / 3,
                # To a yes/no question the rule wants the word alone.
                'gqa/unread': 100 / 3,
                'gqa/open': 0,
                'gqa/binary': 50,
                'gqa/structural/query': 0,
                'gqa/structural/verify': 50,
                'gqa/semantic/rel': 0,
                'gqa/semantic/attr': 50,
            }
        )

    def test_official_file(self, tmp_path, write):
        question = dict(
            imageId='n1',
            question='Is it?',
            answer='no',
            types=dict(structural='verify', semantic='global', detailed='x'),
        )
        write(tmp_path / 'testdev_balanced_questions.json', {'2013': question})
        (sample,) = load_gqa(tmp_path)
        assert (sample.question_id, sample.images) == ('2013', ('n1.jpg',))
        assert sample.info == dict(structural='verify', semantic='global')

    def test_gold_of_other_questions(self, tmp_path, write):
        row = dict(question_id='1', text='?', image='x.jpg')
        write(tmp_path / 'questions.jsonl', [row])
        gold = dict(question_id='2', answer='x', structural='query', semantic='rel')
        write(tmp_path / 'ground_truth.jsonl', [gold])
        with pytest.raises(ValueError, match='ground_truth.jsonl has no "1", but 2'):
            load_gqa(tmp_path)
