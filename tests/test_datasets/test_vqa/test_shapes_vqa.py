"""Generated questions about pictures of shapes."""

from collections import Counter

import numpy as np
import pytest
import torch

from mmtransmamba.datasets import ShapesCells, ShapesVQA, collate_conversations
from mmtransmamba.datasets.shapes_vqa import CATEGORIES, split_of, words
from mmtransmamba.datasets.shapes_vqa.questions import questions_of
from mmtransmamba.datasets.shapes_vqa.scenes import (
    COLOUR_NAMES,
    SHAPE_NAMES,
    Figure,
    random_scene,
)
from mmtransmamba.datasets.word_processor import SPECIAL, word_processor


@pytest.fixture(scope='module')
def processor():
    return word_processor(words(), image_size=36, patch_size=12)


@pytest.fixture(scope='module')
def many(processor):
    return ShapesVQA(processor, num_scenes=1500, questions_per_scene=4)


def test_answers_of_a_scene():
    scene = (
        Figure(0, 0, 'ring', 'red'),
        Figure(1, 1, 'cross', 'red'),
        Figure(2, 1, 'ring', 'blue'),
    )
    answers = {
        question: answer
        for found in questions_of(scene).values()
        for answer, questions in found.items()
        for question in questions
    }
    expected = {
        'What colour is the cross?': 'red',
        'What colour is the shape at top left?': 'red',
        'What colour is the shape at bottom?': 'blue',
        'What shape is blue?': 'ring',
        'What shape is at centre?': 'cross',
        'Where is the red ring?': 'top left',
        'How many shapes are there?': '3',
        'How many red shapes are there?': '2',
        'How many ring shapes are there?': '2',
        'How many square shapes are there?': '0',
        'Is there a blue ring?': 'yes',
        'Is there a blue cross?': 'no',
        'Is the red ring left of the red cross?': 'yes',
        'Is the red ring below the red cross?': 'no',
        'Is the blue ring below the red cross?': 'yes',
    }
    assert {question: answers.get(question) for question in expected} == expected
    # A question without exactly one answer is not asked.
    assert 'What colour is the ring?' not in answers
    assert 'What shape is red?' not in answers
    assert 'Is the blue ring left of the red cross?' not in answers


def test_nothing_is_said_of_one_that_is_there_twice():
    scene = (Figure(0, 0, 'ring', 'red'), Figure(0, 2, 'ring', 'red'))
    found = questions_of(scene)
    assert 'place' not in found and 'relation' not in found
    assert 'Is there a red ring?' in found['exists']['yes']


def test_same_arguments_same_set(processor):
    one, two = (ShapesVQA(processor, num_scenes=5) for _ in range(2))
    assert one.questions == two.questions
    for i in range(5):
        assert torch.equal(one[i]['pixel_values'], two[i]['pixel_values'])
    longer = ShapesVQA(processor, num_scenes=9)
    assert longer.scenes[:5] == one.scenes
    assert np.array_equal(longer.picture(3), one.picture(3))
    other = ShapesVQA(processor, num_scenes=5, seed=1)
    assert other.scenes != one.scenes


def test_no_test_scene_is_learned(processor, many):
    test = ShapesVQA(processor, split='test', num_scenes=300)
    assert not set(test.scenes) & set(many.scenes)
    assert {split_of(scene) for scene in test.scenes} == {'test'}
    rng = np.random.default_rng(3)
    split = Counter(split_of(random_scene(rng)) for _ in range(2000))
    assert 0.15 < split['test'] / 2000 < 0.25


def test_answers_are_balanced(many):
    by_category = {name: Counter() for name in CATEGORIES}
    for each in many.questions:
        by_category[each.category][each.answer] += 1
    largest = {
        name: max(count.values()) / sum(count.values())
        for name, count in by_category.items()
    }
    assert set(by_category['colour']) == set(COLOUR_NAMES)
    assert set(by_category['shape']) == set(SHAPE_NAMES)
    assert len(by_category['place']) == 9
    assert set(by_category['count']) == set('01234')
    bounds = dict(colour=0.22, shape=0.3, place=0.15, count=0.35)
    bounds |= dict(exists=0.55, relation=0.55)
    assert all(largest[name] < bound for name, bound in bounds.items()), largest
    # A scene of one figure has no relation; all other categories are as frequent.
    sizes = {name: sum(count.values()) for name, count in by_category.items()}
    assert min(sizes.values()) > 0.6 * max(sizes.values())


def test_every_word_has_a_token(processor, many):
    tokenizer = processor.tokenizer
    for question, answer in {(q.question, q.answer) for q in many.questions}:
        for text in (question, answer):
            ids = tokenizer(text)['input_ids']
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text.lower().replace('?', ' ?')
    assert len(tokenizer) == len(SPECIAL) + len(words())
    assert tokenizer('dinosaur')['input_ids'] == [tokenizer.unk_token_id]


def test_chosen_categories(processor):
    chosen = ('exists', 'relation')
    data = ShapesVQA(processor, num_scenes=50, categories=chosen)
    assert {q.category for q in data.questions} == set(chosen)


def test_samples(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    learn = ShapesVQA(str(tmp_path), num_scenes=4)
    answer = ShapesVQA(str(tmp_path), num_scenes=4, prompts=True)
    for i in range(4):
        sample, prompt = learn[i], answer[i]
        labels = sample['labels'][sample['labels'] >= 0]
        asked = learn.questions[i]
        text = processor.tokenizer.decode(labels)
        assert text.removesuffix('</s>').strip() == asked.answer
        assert (sample['input_ids'] == processor.image_token_id).sum() == 9
        start = len(prompt['input_ids'])
        assert torch.equal(prompt['input_ids'], sample['input_ids'][:start])
        assert (sample['labels'][:start] < 0).all()
        assert prompt['answer'] == asked.answer
        assert prompt['category'] == asked.category
        assert sample['pixel_values'].shape == (1, 3, 36, 36)
        assert torch.equal(learn[i]['input_ids'], sample['input_ids'])
    batch = collate_conversations([answer[i] for i in range(4)])
    assert batch['attention_mask'][:, -1].all()
    assert batch['pixel_values'].shape == (4, 3, 36, 36)
    with pytest.raises(IndexError):
        learn[4]


def test_cells(processor):
    cells = ShapesCells(processor, num_scenes=6)
    for i, scene in enumerate(cells._vqa.scenes):
        labels = cells[i]['labels']
        assert (labels > 0).sum() == len(scene)
        for figure in scene:
            number = int(labels[3 * figure.row + figure.column]) - 1
            colour, shape = divmod(number, len(SHAPE_NAMES))
            assert COLOUR_NAMES[colour] == figure.colour
            assert SHAPE_NAMES[shape] == figure.shape
            # The picture shows it there.
            column = slice(12 * figure.column + 5, 12 * figure.column + 7)
            row = slice(12 * figure.row, 12 * figure.row + 12)
            cell = cells[i]['pixel_values'][:, row, column]
            assert cell.amax() > 0.2
    assert cells.num_classes == 25


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(split='val'), "'train' or 'test'"),
        (dict(num_scenes=0), 'must be positive'),
        (dict(questions_per_scene=0), 'questions_per_scene=0 must be positive'),
        (dict(categories=['size']), 'must be of colour, shape'),
        (dict(categories=['relation']), 'one of colour, count, exists, shape'),
    ],
)
def test_bad_settings(processor, options, message):
    with pytest.raises(ValueError, match=message):
        ShapesVQA(processor, **options)
