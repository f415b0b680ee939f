"""The easy-VQA set, made up and real."""

import json
from collections import Counter

import numpy as np
import pytest
from tiny_easy_vqa import QUESTIONS, write_easy_vqa

from mmtransmamba.datasets import EasyVQA, EasyVQAPatches
from mmtransmamba.datasets.easy_vqa import category_of, words_of
from mmtransmamba.datasets.word_processor import word_processor


def test_made_up_shard(tmp_path):
    write_easy_vqa(tmp_path)
    words = words_of(tmp_path)
    assert words[0] == '?' and {'blue', 'circle', 'not'} <= set(words)
    data = EasyVQA(
        str(tmp_path), word_processor(words, image_size=64, patch_size=16), prompts=True
    )
    assert [q.category for q in data.questions] == [
        'colour',
        'shape',
        'shape',
        'yes/no',
    ]
    assert data.picture(1).getpixel((3, 3)) == (0, 0, 254)
    sample = data[3]
    assert sample['answer'] == 'no' and sample['question_id'] == '3'
    image = data.encoder.processor.image_token_id
    assert (sample['input_ids'] == image).sum() == 16


@pytest.mark.parametrize('patch_size', [16, 32])
def test_pictures_of_which_shape_and_colour_are_known(patch_size, tmp_path):
    write_easy_vqa(tmp_path)
    processor = word_processor(words_of(tmp_path), 64, patch_size)
    data = EasyVQAPatches(str(tmp_path), processor)
    assert len(data) == 1
    sample = data[0]
    triangle, blue = 2, 1
    assert sample['labels'].tolist() == [8 * triangle + blue] * (64 // patch_size) ** 2
    assert sample['pixel_values'].shape == (3, 64, 64)


def test_a_part_is_spread_over_the_set(tmp_path):
    write_easy_vqa(tmp_path, rows=[['is it?', 'yes', i % 2] for i in range(10)])
    data = EasyVQA(str(tmp_path), None, max_questions=4)
    assert len(data) == 4
    assert data.questions[-1].picture == 1


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match='train_questions.json'):
        EasyVQA(str(tmp_path), None)
    (tmp_path / 'train_questions.json').write_text(json.dumps(QUESTIONS))
    with pytest.raises(FileNotFoundError, match='train_images.npz'):
        EasyVQA(str(tmp_path), None)
    write_easy_vqa(tmp_path, count=1)
    with pytest.raises(ValueError, match='asks about picture 1'):
        EasyVQA(str(tmp_path), None)
    write_easy_vqa(tmp_path, rows=[['what?', 'yes']])
    with pytest.raises(ValueError, match='must hold a list'):
        EasyVQA(str(tmp_path), None)
    write_easy_vqa(tmp_path)
    with pytest.raises(ValueError, match='must be positive'):
        EasyVQA(str(tmp_path), None, max_questions=0)
    np.savez(tmp_path / 'train_images.npz', jpeg=np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match='lacks offsets, png'):
        EasyVQA(str(tmp_path), None)
    with pytest.raises(ValueError, match="'train' or 'test'"):
        EasyVQA(str(tmp_path), None, split='val')


def test_real_set(shared_dir):
    folder = shared_dir / 'data' / 'easy_vqa'
    if not folder.is_dir():
        pytest.skip('shared data/easy_vqa is not here')
    words = words_of(folder)
    processor = word_processor(words, image_size=64, patch_size=16)
    sizes = {}
    for split in ('train', 'test'):
        data = EasyVQA(str(folder), processor, split=split)
        sizes[split] = len(data)
        assert data.picture(data.questions[-1].picture).size == (64, 64)
        tokens = {
            token
            for q in {(q.question, q.answer) for q in data.questions}
            for text in q
            for token in processor.tokenizer(text)['input_ids']
        }
        assert processor.tokenizer.unk_token_id not in tokens
    assert sizes == dict(train=38575, test=9673)
    patches = EasyVQAPatches(str(folder), processor)
    assert len(patches) == 2435
    assert len(set(patches.classes.values())) == patches.num_classes
    answers = (folder / 'answers.txt').read_text().split()
    kinds = Counter(map(category_of, answers))
    assert kinds == {'colour': 8, 'shape': 3, 'yes/no': 2}
