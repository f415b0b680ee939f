"""Generated pictures whose questions are answered by reasoning."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from tiny_vlms import tiny_processor

from mmtransmamba.datasets import ConversationDataset
from mmtransmamba.datasets.shapes_reasoning import (
    COLOUR_NAMES,
    Picture,
    write_shapes_reasoning,
)
from mmtransmamba.evaluation.reasoning import extract_answer, parse_response

RED, GREEN, BLUE = (('red', 'circle'), ('green', 'square'), ('blue', 'circle'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    write_shapes_reasoning(folder, dict(train=60, val=20))
    return folder


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_counting():
    question, response = Picture((RED, None, GREEN, ('red', 'square'))).ask(
        'count', 'red', 'blue'
    )
    assert question == 'How many red shapes are there?'
    assert response == (
        '<SUMMARY> I count the red shapes. </SUMMARY>\n\n'
        '<CAPTION> red circle, nothing, green square, red square. </CAPTION>\n\n'
        '<REASONING> red: circle 1, square 2. There are 2. </REASONING>\n\n'
        '<CONCLUSION> 2 </CONCLUSION>'
    )


@pytest.mark.parametrize(
    'cells, answer',
    [((RED, RED, GREEN, BLUE), 'A'), ((GREEN, None), 'B'), ((RED, GREEN), 'C')],
)
def test_comparing(cells, answer):
    question, response = Picture(cells).ask('compare', 'red', 'green')
    assert '\nA. red\nB. green\nC. as many' in question
    assert extract_answer(response).text == answer


def test_all_pictures_differ():
    pictures = {Picture.numbered(i, 4).cells for i in range(7**4)}
    assert len(pictures) == 7**4


def test_a_drawing_shows_what_the_cells_say():
    drawn = np.asarray(Picture((RED, None, GREEN, BLUE)).draw(32))
    assert drawn.shape == (32, 32, 3)
    centres = drawn[[8, 8, 24, 24], [8, 24, 8, 24]].astype(int)
    assert centres.argmax(-1).tolist() == [0, 0, 1, 2]
    assert (centres[1] == 20).all()
    # The circle is wider than the square.
    assert (drawn[24, 2] == 20).all() and (drawn[24, 18] != 20).any()


def test_files(folder, tmp_path):
    train, val = rows(folder / 'train.jsonl'), rows(folder / 'val.jsonl')
    assert len(train) == 60 and len(val) == 20
    assert {row['category'] for row in val} == {'count', 'compare'}
    captions = set()
    for row in train + val:
        human, gpt = row['conversations']
        assert human['from'] == 'human' and gpt['from'] == 'gpt'
        response = parse_response(gpt['value'])
        assert response.well_formed
        captions.add(response.sections[1].text)
        with Image.open(folder / row['image']) as image:
            assert image.size == (32, 32)
    assert len(captions) == 80
    again = tmp_path / 'again'
    write_shapes_reasoning(again, dict(train=60, val=20))
    assert (again / 'val.jsonl').read_text() == (folder / 'val.jsonl').read_text()
    other = tmp_path / 'other'
    write_shapes_reasoning(other, dict(val=20), seed=1)
    assert rows(other / 'val.jsonl') != val


def test_responses_come_to_what_the_picture_shows(folder):
    for row in rows(folder / 'train.jsonl'):
        human, gpt = (turn['value'] for turn in row['conversations'])
        caption = parse_response(gpt).sections[1].text
        asked = [c for c in re.findall(r'\w+', human) if c in COLOUR_NAMES]
        counts = [caption.count(colour) for colour in asked[:2]]
        answer = extract_answer(gpt).text
        if row['category'] == 'count':
            assert answer == str(counts[0])
        else:
            assert answer == 'CAB'[(counts[0] > counts[1]) - (counts[0] < counts[1])]


def test_conversations_are_read(folder):
    data = ConversationDataset(
        str(folder / 'train.jsonl'), tiny_processor(), format='llava_cot'
    )
    sample = data[0]
    assert sample['pixel_values'].shape == (1, 3, 16, 16)
    response = rows(folder / 'train.jsonl')[0]['conversations'][1]['value']
    learned = sample['labels'][sample['labels'] >= 0]
    assert data.processor.decode(learned) == response + '</s>'


def test_too_many_pictures(tmp_path):
    with pytest.raises(ValueError, match='rows=1 there are 7'):
        write_shapes_reasoning(tmp_path, dict(train=8), rows=1)
