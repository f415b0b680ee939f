"""Folders of LLaVA-1.6 in the original layout: tiles, rows that end, no padding."""

import pytest
import torch
from published_llava import (
    PATCH,
    SIDE,
    TOWER,
    TOWER_LAYERS,
    VOCAB,
    C,
    decode,
    project,
    write,
)
from published_math import double, tower_features
from published_tiles import (
    best_grid,
    picture,
    rows_of_tiles,
    tiles_of,
    without_padding,
)
from safetensors.torch import load_file, save_file
from tiny_vlms import tiny_tokenizer

import mmtransmamba
from mmtransmamba.datasets.conversations import (
    Conversation,
    Turn,
    collate_conversations,
    encode,
    encode_prompt,
)
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.trainable import VisionLanguageModel
from mmtransmamba.models.trainable.stages import group_of_parameters
from mmtransmamba.transfer.convert import convert
from mmtransmamba.utils.processors import load_processor

# Widths and heights, as published.
GRIDS = [[12, 24], [24, 12], [24, 24], [36, 12], [12, 36]]
NEXT = dict(
    model_type='llava_llama',
    image_aspect_ratio='anyres',
    mm_patch_merge_type='spatial_unpad',
    image_grid_pinpoints=GRIDS,
    image_crop_resolution=224,
    max_position_embeddings=512,
    unfreeze_mm_vision_tower=True,
)
NEWLINE = {'model.image_newline': (C,)}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Width and height of images, and the tiling that suits each best.
IMAGES = {
    'wide': ((48, 24), (24, 12)),
    'very wide': ((50, 11), (36, 12)),
    'tall': ((20, 48), (12, 36)),
    'small square, where the order decides': ((12, 12), (12, 24)),
    'large square': ((40, 40), (24, 24)),
}


def image_tokens(state, tiles, size):
    """The square's tokens, then the rows of the tiled image, each with an end."""
    features = [
        project(
            state,
            tower_features(
                tile.double(), state, TOWER, TOWER_LAYERS, 2, PATCH, clip=True
            )[1:],
        )
        for tile in tiles
    ]
    rows = rows_of_tiles(features[1:], best_grid(size, GRIDS), SIDE, PATCH)
    rows = without_padding(rows, size)
    end = [state['model.image_newline']]
    return torch.stack([*features[0], *(token for row in rows for token in row + end)])


def asked(*sizes):
    text = '<image>\n' * len(sizes) + 'Why?'
    return Conversation([Turn('user', text)], images=[picture(s) for s in sizes])


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp('next') / 'published'
    folder, state = write(folder, 'inside', NEWLINE, **NEXT)
    tiny_tokenizer().save_pretrained(folder)
    return folder, double(state)


def expected_logits(state, ids, image_token, tokens):
    """Logits of a prompt whose image tokens are replaced, image after image."""
    x = state['model.embed_tokens.weight'][ids.clamp(max=VOCAB - 1)].clone()
    x[ids == image_token] = tokens
    return decode(state, x)


@pytest.mark.parametrize(('size', 'grid'), IMAGES.values(), ids=IMAGES)
def test_pixels_and_logits_are_those_of_the_published_code(published, size, grid):
    folder, state = published
    assert tuple(best_grid(size, GRIDS)) == grid
    model = mmtransmamba.load(folder)
    assert type(model).__name__ == 'LlavaNextForConditionalGeneration'
    sample = encode_prompt(load_processor(folder), asked(size))
    tiles = tiles_of(picture(size), GRIDS, SIDE, MEAN, STD)
    torch.testing.assert_close(
        sample['pixel_values'][0].double(), tiles, atol=0.04, rtol=0
    )
    ids = sample['input_ids']
    with torch.no_grad():
        logits = model(
            input_ids=ids[None],
            pixel_values=sample['pixel_values'],
            image_sizes=sample['image_sizes'],
        ).logits[0, :, :VOCAB]
    tokens = image_tokens(state, sample['pixel_values'][0], size)
    image = model.config.image_token_id
    assert int((ids == image).sum()) == len(tokens)
    expected = expected_logits(state, ids, image, tokens)
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=1e-4)


def test_a_batch_of_images_with_different_tiles_answers_like_each_alone(published):
    folder, _ = published
    model = VisionLanguageModel(path=str(folder))
    processor = model.companions.processor
    prompts = [asked((48, 24), (12, 12)), asked((40, 40))]
    samples = [encode_prompt(processor, prompt) for prompt in prompts]
    batch = collate_conversations(samples)
    assert batch['pixel_values'].shape == (3, 1 + 4, 3, SIDE, SIDE)
    assert batch['image_sizes'].tolist() == [[24, 48], [12, 12], [40, 40]]
    logits = model(**batch)
    for row, sample in zip(logits, samples, strict=True):
        alone = model(
            input_ids=sample['input_ids'][None],
            pixel_values=sample['pixel_values'],
            image_sizes=sample['image_sizes'],
        )[0]
        torch.testing.assert_close(row[-len(alone) :], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('beams', [1, 3])
def test_prompts_with_one_image_each_are_answered_as_alone(published, beams):
    folder, _ = published
    model = VisionLanguageModel(
        path=str(folder),
        head=dict(type='mmtransmamba.AnswerHead', num_beams=beams, max_new_tokens=4),
    )
    processor = model.companions.processor
    samples = [encode_prompt(processor, asked(size)) for size in ((48, 24), (40, 40))]
    together = model.head.generate(model.lm, processor, collate_conversations(samples))
    alone = [
        model.head.generate(model.lm, processor, collate_conversations([sample]))[0]
        for sample in samples
    ]
    assert together == alone
    assert any(alone)


def test_it_learns_and_is_converted_like_any_other(published, tmp_path):
    folder, _ = published
    student, _ = convert(folder, layers=[1], init='mimic')
    assert type(student).__name__ == 'HybridLlavaNextForConditionalGeneration'
    student.save_pretrained(tmp_path / 'student')
    processor = load_processor(folder)
    processor.save_pretrained(tmp_path / 'student')
    model = VisionLanguageModel(
        path=str(tmp_path / 'student'), trains=['ssm', 'connector']
    )
    groups = group_of_parameters(model.lm)
    assert groups['model.image_newline'] == 'connector'
    conversation = asked((48, 24))
    conversation.turns.append(Turn('assistant', 'So.'))
    sample = encode(model.companions.processor, conversation)
    loss = model(**collate_conversations([sample]), mode='loss')['loss_task']
    loss.backward()
    assert model.lm.model.image_newline.grad.abs().sum() > 0
    with torch.no_grad():
        ours = student(
            input_ids=sample['input_ids'][None],
            pixel_values=sample['pixel_values'],
            image_sizes=sample['image_sizes'],
        ).logits
    assert torch.isfinite(ours).all()


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(image_aspect_ratio='anyres_max'), "ratio='anyres_max' cannot be read"),
        (dict(mm_patch_merge_type='spatial'), "mm_patch_merge_type='spatial'"),
        (dict(mm_patch_merge_type='flat'), "'anyres': mm_patch_merge_type='flat'"),
        (dict(image_aspect_ratio='pad'), "'pad': mm_patch_merge_type='spatial_unpad'"),
        (dict(image_grid_pinpoints=None), 'image_grid_pinpoints=None'),
        (dict(image_grid_pinpoints=[[12, 25]]), 'multiple of the tile, 12'),
        (dict(image_grid_pinpoints='(1x1),...,(6x6)'), 'image_grid_pinpoints='),
    ],
)
def test_a_field_that_contradicts_is_refused_by_name(tmp_path, fields, message):
    folder, _ = write(tmp_path / 'published', 'inside', NEWLINE, **NEXT | fields)
    with pytest.raises(ValueError, match=message) as caught:
        mmtransmamba.load(folder)
    assert '\n' not in str(caught.value)


def test_tilings_may_be_written_as_text(tmp_path):
    fields = NEXT | dict(image_grid_pinpoints=str([tuple(grid) for grid in GRIDS]))
    folder, _ = write(tmp_path / 'published', 'inside', NEWLINE, **fields)
    grids = mmtransmamba.load(folder).config.image_grid_pinpoints
    assert grids == [[height, width] for width, height in GRIDS]


def test_without_the_end_of_a_row_it_is_refused(tmp_path):
    folder, _ = write(tmp_path / 'published', 'inside', NEWLINE, **NEXT)
    state = load_file(folder / 'model.safetensors')
    del state['model.image_newline']
    save_file(state, folder / 'model.safetensors')
    with pytest.raises(CheckpointError, match='missing: model.image_newline'):
        mmtransmamba.load(folder)
