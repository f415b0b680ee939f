import pickle

import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from mmtransmamba.datasets.video_text import (
    MovingShapes,
    ShapesTokenizer,
    WordTokenizer,
    collate_video_text,
    shapes_drawing,
)
from mmtransmamba.datasets.video_text.moving_shapes import all_scenes
from mmtransmamba.datasets.video_text.shapes_captions import (
    MOTION_WORDS,
    SIZE_WORDS,
    place_words,
)
from mmtransmamba.datasets.video_text.shapes_drawing import COLOURS, SHAPES, Scene
from mmtransmamba.registry import DATASETS, FUNCTIONS, TASK_UTILS


def without_noise(dataset, number=0):
    """A video drawn without noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes_drawing, 'NOISE', 0.0)
        return dataset.video(number).numpy().astype(float)


def clear_video(number=0, **options):
    """The first video of some scene on a background as plain as it gets."""
    dataset = MovingShapes(**options)
    return dataset.scene(number), without_noise(dataset, number)


def centres(video):
    """Where the shape is in each frame, ``[T, (x, y)]``, by its difference in time.

    The background does not move.
    """
    moving = abs(video - np.median(video, axis=1, keepdims=True)).sum(0)
    y, x = np.indices(moving.shape[1:])
    total = moving.sum((1, 2))
    return np.stack([(moving * axis).sum((1, 2)) / total for axis in (x, y)], axis=1)


def test_samples_to_train_on():
    dataset = DATASETS.build(
        dict(type='MovingShapes', num_videos=3, captions_per_video=4, num_frames=5)
    )
    assert len(dataset) == 12
    sample = dataset[7]
    assert sample['video'].shape == (3, 5, 32, 32)
    assert sample['video'].dtype == torch.uint8
    assert sample['video_id'] == 'train1' and sample['caption_id'] == 7
    tokens = dataset.tokenizer([dataset.caption(1, 3)])
    assert torch.equal(sample['input_ids'], tokens['input_ids'][0])
    with pytest.raises(IndexError, match='sample 12 of 12'):
        dataset[12]


def test_samples_to_test_on():
    dataset = MovingShapes('test', num_videos=3, captions_per_video=4, test_mode=True)
    assert len(dataset) == 3
    sample = dataset[2]
    assert sample['video_id'] == 'test2'
    assert set(sample['captions']) == {'input_ids', 'attention_mask'}
    assert len(sample['captions']['input_ids']) == 4


def test_depends_on_the_arguments_alone():
    dataset = MovingShapes(num_videos=4)
    np.random.seed(1)
    again = pickle.loads(pickle.dumps(MovingShapes(num_videos=2)))
    for i in (3, 0, 3):
        assert torch.equal(dataset[i]['video'], again[i]['video'])
        assert torch.equal(dataset[i]['input_ids'], again[i]['input_ids'])
    other = MovingShapes(num_videos=4, seed=1)
    assert not torch.equal(dataset[0]['video'], other[0]['video'])


def test_splits_share_no_combination():
    train, test = MovingShapes('train'), MovingShapes('test')
    assert len(train.scenes) + len(test.scenes) == len(all_scenes()) == 2304
    assert not set(train.scenes) & set(test.scenes)
    # Every value of every attribute can be learned from the smallest training set
    # in use.
    for field in ('shape', 'colour', 'size', 'motion', 'column', 'row'):
        seen = {getattr(scene, field) for scene in train.scenes[:64]}
        assert seen == {getattr(scene, field) for scene in all_scenes()}
    other = MovingShapes('test', seed=1)
    assert set(other.scenes) != set(test.scenes)


def test_same_scene_looks_different_each_time():
    dataset = MovingShapes(num_videos=2 * 1728)
    assert dataset.scene(5) == dataset.scene(1728 + 5)
    assert not torch.equal(dataset.video(5), dataset.video(1728 + 5))


@pytest.mark.parametrize('number', range(12))
def test_shape_moves_as_the_scene_says(number):
    scene, video = clear_video(number, img_size=48)
    path = centres(video)
    way = path[-1] - path[0]
    axis = 0 if scene.motion in ('left', 'right') else 1
    sign = -1 if scene.motion in ('left', 'up') else 1
    assert sign * way[axis] > 0.2 * 48
    assert abs(way[1 - axis]) < 0.1 * 48


def draw(**changes):
    scene = Scene('circle', 'red', 'large', 'right', 0, 0)
    dataset = MovingShapes(num_frames=2, img_size=48)
    dataset.scenes = [Scene(**{**vars(scene), **changes})]
    return without_noise(dataset)


@pytest.mark.parametrize('colour', COLOURS)
def test_colours(colour):
    difference = abs(draw(colour=colour) - draw(colour='red')).max()
    assert (difference > 50) == (colour != 'red')


@pytest.mark.parametrize('shape', SHAPES)
def test_shapes_differ(shape):
    others = [draw(shape=other) for other in SHAPES if other != shape]
    for video in others:
        assert abs(video - draw(shape=shape)).mean() > 0.3


def test_captions_say_everything():
    dataset = MovingShapes(num_videos=40, captions_per_video=3)
    for number in range(40):
        scene = dataset.scene(number)
        for i in range(3):
            caption = f' {dataset.caption(number, i)} '
            for word in (scene.shape, scene.colour, place_words(scene)):
                assert f' {word} ' in caption
            assert any(f' {word} ' in caption for word in SIZE_WORDS[scene.size])
            assert any(f' {word} ' in caption for word in MOTION_WORDS[scene.motion])
            assert ' a orange' not in caption
    assert len({dataset.caption(0, i) for i in range(20)}) > 10


def test_every_caption_is_in_the_vocabulary():
    tokenizer = TASK_UTILS.build(dict(type='ShapesTokenizer'))
    dataset = MovingShapes(num_videos=1728)
    captions = [dataset.caption(number, 0) for number in range(1728)]
    ids = tokenizer(captions)['input_ids']
    used = set(ids.unique().tolist())
    assert used == set(range(tokenizer.vocab_size))


def test_word_tokenizer():
    tokenizer = WordTokenizer(['a', 'red', 'ring'])
    tokens = tokenizer(['A red ring.', 'ring'])
    assert tokens['input_ids'].tolist() == [[4, 1, 2, 3, 5], [4, 3, 5, 0, 0]]
    assert tokens['attention_mask'].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert tokenizer.vocab_size == 6
    with pytest.raises(ValueError, match=r"lacks \['pink'\]; it has a, red, ring"):
        tokenizer(['a pink ring'])


def test_clip_reads_the_caption_to_its_end():
    """The last token decides what CLIP's text tower gives; padding does not."""
    tokenizer = ShapesTokenizer()
    torch.manual_seed(0)
    model = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=24,
            projection_dim=8,
            bos_token_id=tokenizer.bos,
            eos_token_id=tokenizer.eos,
            pad_token_id=0,
        )
    ).eval()
    short, long = (
        'a red ring moves up',
        'from the centre a red ring that is big goes up',
    )
    with torch.no_grad():
        both = model(**tokenizer([short, long])).text_embeds
        alone = model(**tokenizer([short])).text_embeds
    torch.testing.assert_close(both[:1], alone, rtol=1e-5, atol=1e-6)


def test_batches_of_pairs():
    dataset = MovingShapes(num_videos=2)
    assert FUNCTIONS.get('collate_video_text') is collate_video_text
    batch = collate_video_text([dataset[i] for i in range(4)])
    assert batch['video'].shape == (4, 3, 8, 32, 32)
    assert batch['video_id'] == ['train0', 'train0', 'train1', 'train1']
    assert batch['caption_id'] == [0, 1, 2, 3]
    assert batch['input_ids'].shape == batch['attention_mask'].shape
    for i in range(4):
        kept = batch['input_ids'][i][batch['attention_mask'][i] == 1]
        assert torch.equal(kept, dataset[i]['input_ids'])
        assert not batch['input_ids'][i][len(kept) :].any()


def test_batches_of_videos():
    dataset = MovingShapes('test', num_videos=2, test_mode=True)
    batch = collate_video_text([dataset[0], dataset[1]])
    assert batch['video'].shape == (2, 3, 8, 32, 32)
    assert [len(each['input_ids']) for each in batch['captions']] == [2, 2]
    assert 'input_ids' not in batch


@pytest.mark.parametrize(
    'argument, value',
    [
        ('split', 'val'),
        ('num_videos', 0),
        ('captions_per_video', 0),
        ('num_frames', 0),
        ('img_size', 8),
    ],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f'MovingShapes: {argument}'):
        MovingShapes(**{argument: value})
