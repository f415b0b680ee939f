"""Folders of LLaVA-OneVision: a grid of tokens is scaled down if it is too large."""

import json

import pytest
import torch
from PIL import Image
from published_folders import prefixed, random_state, tower_shapes, write_folder
from published_llava import (
    CONFIG,
    KV,
    LAYERS,
    MLP,
    PATCH,
    SIDE,
    TOWER,
    TOWER_LAYERS,
    VISION,
    VOCAB,
    WIDTH,
    C,
    D,
    H,
    decode,
    project,
    shapes,
)
from published_math import double, tower_features
from published_tiles import (
    best_grid,
    picture,
    pixels_of,
    rows_of_tiles,
    scaled_down,
    tiles_of,
    without_padding,
)
from safetensors.torch import load_file, save_file
from tiny_vlms import tiny_tokenizer
from transformers import AutoModelForImageTextToText, AutoProcessor

import mmtransmamba
from mmtransmamba.datasets.conversations import (
    Conversation,
    Turn,
    collate_conversations,
    encode,
    encode_prompt,
    pack_conversations,
)
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.trainable import VisionLanguageModel
from mmtransmamba.transfer.convert import convert
from mmtransmamba.utils.processors import load_processor

HALF = (0.5, 0.5, 0.5)
# Widths and heights of 1 to 4 tiles; published are 1 to 6.
GRIDS = [[SIDE * i, SIDE * j] for i in range(1, 5) for j in range(1, 5)]
# The fields of the published 7B, here with tiny sizes.
PUBLISHED = dict(
    _name_or_path='lmms-lab/llava-onevision-qwen2-7b-ov',
    architectures=['LlavaQwenForCausalLM'],
    attention_dropout=0.0,
    bos_token_id=1,
    eos_token_id=2,
    hidden_act='silu',
    hidden_size=C,
    image_token_index=109,
    image_aspect_ratio='anyres_max_9',
    image_crop_resolution=None,
    image_grid_pinpoints=GRIDS,
    image_split_resolution=None,
    initializer_range=0.02,
    intermediate_size=MLP,
    max_position_embeddings=512,
    max_window_layers=28,
    mm_hidden_size=WIDTH,
    mm_newline_position='one_token',
    mm_patch_merge_type='spatial_unpad',
    mm_projector_lr=None,
    mm_projector_type='mlp2x_gelu',
    mm_resampler_type=None,
    mm_spatial_pool_mode='bilinear',
    mm_tunable_parts='mm_vision_tower,mm_mlp_adapter,mm_language_model',
    mm_use_im_patch_token=False,
    mm_use_im_start_end=False,
    mm_vision_select_feature='patch',
    mm_vision_select_layer=-2,
    mm_vision_tower='the-tower',
    mm_vision_tower_lr=2e-6,
    model_type='llava',
    num_attention_heads=H,
    num_hidden_layers=LAYERS,
    num_key_value_heads=KV,
    pos_skipping_range=4096,
    rms_norm_eps=CONFIG['rms_norm_eps'],
    rope_scaling=None,
    rope_theta=1e4,
    sliding_window=131072,
    tie_word_embeddings=False,
    tokenizer_model_max_length=512,
    tokenizer_padding_side='right',
    torch_dtype='bfloat16',
    transformers_version='4.40.0.dev0',
    use_cache=True,
    use_mm_proj=True,
    use_pos_skipping=False,
    use_sliding_window=False,
    vision_tower_pretrained=None,
    vocab_size=VOCAB,
)
# Width and height of an image, its tiles across and down, the limit, and the size of
# the grid of tokens: rows and columns, without the ends of the rows.
IMAGES = [
    ((12, 12), (1, 1), 9, (3, 3)),
    ((48, 24), (4, 2), 9, (6, 12)),
    ((47, 45), (4, 4), 9, (9, 9)),
    ((50, 43), (4, 4), 9, (8, 9)),
    ((37, 91), (2, 4), 9, (12, 4)),
    ((101, 99), (4, 4), 9, (9, 9)),
    ((45, 46), (4, 4), 1, (3, 3)),
    ((33, 36), (3, 3), 1, (3, 3)),
    ((31, 47), (3, 4), 2, (5, 3)),
    ((48, 11), (4, 1), 3, (2, 10)),
    ((48, 11), (4, 1), 2, (2, 8)),
    ((25, 36), (3, 3), 5, (7, 5)),
    ((48, 48), (4, 4), 13, (10, 10)),
    ((48, 48), (4, 4), 14, (12, 12)),
]


def write(folder, limit=9, clip=False, inside=True, **fields):
    """A folder with a Qwen2, and the tower with or without its last layer."""
    table = {k: v for k, v in shapes().items() if not k.startswith(TOWER)}
    table |= {'model.image_newline': (C,)}
    for i in range(LAYERS):
        for name, rows in (('q', H * D), ('k', KV * D), ('v', KV * D)):
            table[f'model.layers.{i}.self_attn.{name}_proj.bias'] = (rows,)
    if fields.get('tie_word_embeddings'):
        del table['lm_head.weight']
    tower = tower_shapes(WIDTH, 24, TOWER_LAYERS, SIDE, PATCH, clip)
    state = random_state(table | prefixed(TOWER, tower))
    last = ('head.', f'encoder.layers.{TOWER_LAYERS - 1}.')
    kept = {
        name: tensor
        for name, tensor in state.items()
        if inside
        and (clip or not name.removeprefix(TOWER).startswith(last))
        or not name.startswith(TOWER)
    }
    fields = PUBLISHED | dict(image_aspect_ratio=f'anyres_max_{limit}') | fields
    write_folder(folder, fields, kept)
    kind = 'clip_vision_model' if clip else 'siglip_vision_model'
    whole = {k.removeprefix(TOWER): v for k, v in state.items() if k.startswith(TOWER)}
    whole = whole | {'vision_model.' + k: whole.pop(k) for k in list(whole)}
    write_folder(folder / 'the-tower', VISION | dict(model_type=kind), whole)
    tiny_tokenizer().save_pretrained(folder)
    return folder, double(state)


def features_of(state, pixels, clip=False):
    cut = 1 if clip else 0
    return [
        project(
            state,
            tower_features(
                tile.double(), state, TOWER, TOWER_LAYERS, 2, PATCH, clip=clip
            )[cut:],
        )
        for tile in pixels
    ]


def image_tokens(state, pixels, size, limit, clip=False):
    """The square's tokens, then the rows of the scaled grid, each with an end."""
    square, *tiles = features_of(state, pixels, clip)
    rows = rows_of_tiles(tiles, best_grid(size, GRIDS), SIDE, PATCH)
    rows = scaled_down(without_padding(rows, size), limit * (SIDE // PATCH) ** 2)
    end = [state['model.image_newline']]
    tokens = torch.stack([*square, *(token for row in rows for token in row + end)])
    return tokens, (len(rows), len(rows[0]))


def asked(*sizes):
    text = '<image>\n' * len(sizes) + 'Why?'
    return Conversation([Turn('user', text)], images=[picture(s) for s in sizes])


def logits_of(model, sample):
    images = ('pixel_values', 'image_sizes', 'batch_num_images')
    with torch.no_grad():
        return model(
            input_ids=sample['input_ids'][None],
            **{name: sample[name] for name in images},
        ).logits[0]


def check(model, state, sample, tokens):
    """The logits are the oracle's, with its tokens in the images' places."""
    ids, image = sample['input_ids'], model.config.image_token_id
    assert int((ids == image).sum()) == len(tokens)
    x = state['model.embed_tokens.weight'][ids.clamp(max=VOCAB - 1)].clone()
    x[ids == image] = tokens
    if 'lm_head.weight' not in state:
        state = state | {'lm_head.weight': state['model.embed_tokens.weight']}
    ours = logits_of(model, sample)[:, :VOCAB].double()
    torch.testing.assert_close(ours, decode(state, x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(('size', 'tiles', 'limit', 'grid'), IMAGES)
def test_the_tokens_of_an_image_are_scaled_down_to_the_limit(
    tmp_path, size, tiles, limit, grid
):
    folder, state = write(tmp_path / 'published', limit)
    assert [side // SIDE for side in best_grid(size, GRIDS)] == [*tiles]
    model = mmtransmamba.load(folder)
    assert type(model).__name__ == 'LlavaOnevisionForConditionalGeneration'
    sample = encode_prompt(load_processor(folder), asked(size))
    pixels = sample['pixel_values'][0]
    expected = tiles_of(picture(size), GRIDS, SIDE, HALF, HALF)
    torch.testing.assert_close(pixels.double(), expected, atol=0.04, rtol=0)
    tokens, found = image_tokens(state, pixels, size, limit)
    assert found == grid
    check(model, state, sample, tokens)


@pytest.mark.parametrize(
    'how',
    [
        dict(inside=False),
        dict(clip=True),
        dict(clip=True, inside=False),
        dict(tie_word_embeddings=True),
        dict(model_type='llava_qwen', architectures=None),
    ],
    ids=['tower elsewhere', 'clip', 'clip elsewhere', 'tied head', 'newer type'],
)
def test_the_limit_holds_for_other_parts_too(tmp_path, how):
    folder, state = write(tmp_path / 'published', 2, **how)
    model = mmtransmamba.load(folder)
    sample = encode_prompt(load_processor(folder), asked((31, 47)))
    clip = how.get('clip', False)
    tokens, _ = image_tokens(state, sample['pixel_values'][0], (31, 47), 2, clip)
    check(model, state, sample, tokens)
    model.save_pretrained(tmp_path / 'ours')  # in the layout of transformers
    check(mmtransmamba.load(tmp_path / 'ours'), state, sample, tokens)
    student, _ = convert(tmp_path / 'ours', layers=[0], init='vkq')
    assert torch.isfinite(logits_of(student, sample)).all()


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    return write(tmp_path_factory.mktemp('onevision') / 'published', 2)


def padded_square(image):
    """The image in the middle of a grey square, as the published code pads."""
    side = max(image.size)
    square = Image.new('RGB', (side, side), (127, 127, 127))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def test_several_images_are_padded_squares_with_one_end_each(published):
    """Published training sets ``image_aspect_ratio`` to ``pad`` for several images."""
    folder, state = published
    model = mmtransmamba.load(folder)
    sizes = ((30, 12), (12, 12))
    sample = encode_prompt(load_processor(folder), asked(*sizes))
    assert sample['batch_num_images'].tolist() == [2]
    squares = pixels_of([padded_square(picture(s)) for s in sizes], HALF, HALF)
    pixels = sample['pixel_values']
    # A narrow image is half padding, whose edge depends on the interpolation.
    torch.testing.assert_close(pixels[:, 0].double(), squares, atol=0.15, rtol=0)
    end = state['model.image_newline'][None]
    images = features_of(state, pixels[:, 0])
    tokens = torch.cat([part for image in images for part in (image, end)])
    check(model, state, sample, tokens)


@pytest.mark.parametrize('collate', ['padded', 'packed'])
def test_a_batch_answers_like_each_conversation_alone(published, collate):
    folder, _ = published
    model = VisionLanguageModel(path=str(folder))
    processor = model.companions.processor
    samples = []
    for sizes in (((47, 45),), ((30, 12), (12, 12)), ((20, 12),)):
        conversation = asked(*sizes)
        conversation.turns.append(Turn('assistant', 'So.'))
        samples.append(encode(processor, conversation))
    alone = [logits_of(model.lm, sample) for sample in samples]
    if collate == 'padded':
        batch = collate_conversations(samples)
        assert batch['batch_num_images'].tolist() == [1, 2, 1]
        rows = model(**batch)
        together = [row[: len(one)] for row, one in zip(rows, alone, strict=True)]
    else:
        batch = pack_conversations(samples, 2000)
        order = sorted(range(3), key=lambda i: -len(alone[i]))
        (row,) = model(**batch)
        parts = row.split([len(alone[i]) for i in order])
        together = [parts[order.index(i)] for i in range(3)]
    for ours, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('init', ['mimic', 'vkq'])
def test_it_is_converted_learns_and_answers_like_any_other(published, tmp_path, init):
    folder, _ = published
    student, _ = convert(folder, layers=[1], init=init)
    assert type(student).__name__ == 'HybridLlavaOnevisionForConditionalGeneration'
    student.save_pretrained(tmp_path / 'student')
    load_processor(folder).save_pretrained(tmp_path / 'student')
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / 'student')
    processor = AutoProcessor.from_pretrained(tmp_path / 'student')
    conversation = asked((31, 47))
    sample = encode_prompt(processor, conversation)
    logits = logits_of(again, sample)
    assert torch.equal(logits, logits_of(student, sample))
    assert torch.isfinite(logits).all()
    ids = sample['input_ids']
    images = ('pixel_values', 'image_sizes', 'batch_num_images')
    cached = again.generate(
        input_ids=ids[None],
        **{name: sample[name] for name in images},
        max_new_tokens=4,
        min_new_tokens=4,
        do_sample=False,
    )[0, len(ids) :]
    for token in cached:
        assert int(logits_of(again, sample | dict(input_ids=ids))[-1].argmax()) == token
        ids = torch.cat((ids, token[None]))
    model = VisionLanguageModel(
        path=str(tmp_path / 'student'), trains=['ssm', 'connector']
    )
    conversation.turns.append(Turn('assistant', 'So.'))
    batch = collate_conversations([encode(processor, conversation)])
    model(**batch, mode='loss')['loss_task'].backward()
    assert model.lm.model.image_newline.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(image_aspect_ratio='anyres_max_0'), "='anyres_max_0' cannot be read"),
        (dict(image_aspect_ratio='anyres_max_-9'), "='anyres_max_-9' cannot be read"),
        (dict(image_aspect_ratio='anyres_max_9.5'), "='anyres_max_9.5' cannot"),
        (dict(image_aspect_ratio='anyres_max_'), "='anyres_max_' cannot be read"),
        (dict(image_aspect_ratio='highres'), "='highres' cannot be read"),
        (dict(image_aspect_ratio=9), 'image_aspect_ratio=9 cannot be read'),
        (dict(mm_patch_merge_type='flat'), "'anyres_max_9': mm_patch_merge_type"),
        (dict(mm_patch_merge_type=None), "'anyres_max_9': mm_patch_merge_type=None"),
        (dict(image_grid_pinpoints=None), 'image_grid_pinpoints=None'),
        (dict(mm_projector_type='pooler'), "mm_projector_type='pooler'"),
        (dict(mm_resampler_type='spatial_pool'), "mm_resampler_type='spatial_pool'"),
        (dict(mm_vision_tower='nobody/has-it'), 'nobody/has-it'),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, fields, message):
    folder, _ = write(tmp_path / 'published')
    config = json.loads((folder / 'config.json').read_text('utf-8'))
    (folder / 'config.json').write_text(json.dumps(config | fields), 'utf-8')
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        mmtransmamba.load(folder)
    assert '\n' not in str(caught.value)


def test_without_the_end_of_a_row_it_is_refused(tmp_path):
    folder, _ = write(tmp_path / 'published')
    state = load_file(folder / 'model.safetensors')
    del state['model.image_newline']
    save_file(state, folder / 'model.safetensors')
    with pytest.raises(CheckpointError, match='missing: model.image_newline'):
        mmtransmamba.load(folder)
