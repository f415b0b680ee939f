"""Images cut into tiles, from the picture to the answer."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_patch_decoders import IMAGE, PATCHES, tiny_patch_decoder
from tiny_vlms import CHAT_TEMPLATE, IMAGE_SIZE, PATCH_SIZE, tiny_tokenizer
from transformers import AutoProcessor, CLIPImageProcessor
from transformers.models.got_ocr2.image_processing_got_ocr2 import (
    get_optimal_tiled_canvas,
)

from mmtransmamba.datasets.conversations import Conversation, Turn, encode
from mmtransmamba.models.multimodal import PatchDecoderProcessor
from mmtransmamba.models.multimodal.patch_decoder_processor import tile_grid


def make_processor(max_tiles=6, **settings) -> PatchDecoderProcessor:
    return PatchDecoderProcessor(
        image_processor=CLIPImageProcessor(
            size=dict(height=IMAGE_SIZE, width=IMAGE_SIZE), do_center_crop=False
        ),
        tokenizer=tiny_tokenizer(),
        patch_size=PATCH_SIZE,
        chat_template=CHAT_TEMPLATE,
        max_tiles=max_tiles,
        **settings,
    )


def checkerboard(columns, rows) -> Image.Image:
    """A picture each of whose tiles has a colour of its own."""
    pixels = np.zeros((rows, columns, 3), dtype=np.uint8)
    pixels[..., 0] = 40 * np.arange(columns)[None]
    pixels[..., 1] = 40 * np.arange(rows)[:, None]
    size = (columns * IMAGE_SIZE, rows * IMAGE_SIZE)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


@pytest.mark.parametrize('max_tiles', [1, 6, 12])
def test_the_grid_is_that_of_internvl(max_tiles):
    """transformers has the same rule for a model that took it over."""
    generator = np.random.default_rng(0)
    sizes = [(448, 448), (896, 896), (100, 1000), (640, 480)]
    sizes += [tuple(map(int, pair)) for pair in generator.integers(20, 2000, (200, 2))]
    for width, height in sizes:
        expected = get_optimal_tiled_canvas((height, width), (448, 448), 1, max_tiles)
        assert tile_grid((width, height), (448, 448), max_tiles) == tuple(expected)


def test_tiles_are_cut_row_by_row():
    tiles = make_processor().tiles(checkerboard(3, 2))
    assert len(tiles) == 7
    assert {tile.size for tile in tiles} == {(IMAGE_SIZE, IMAGE_SIZE)}
    centre = (IMAGE_SIZE // 2, IMAGE_SIZE // 2)
    found = [tile.getpixel(centre)[:2] for tile in tiles[:6]]
    assert found == [(40 * x, 40 * y) for y in range(2) for x in range(3)]
    small = np.asarray(tiles[6])
    assert small[0, 0, 0] == 0 and small[-1, -1, 0] == 80
    assert len(make_processor(thumbnail=False).tiles(checkerboard(3, 2))) == 6
    # One tile is the whole image already.
    assert len(make_processor().tiles(checkerboard(1, 1))) == 1


def test_one_image_token_stands_for_all_tiles():
    processor = make_processor(max_tiles=4)
    images = [checkerboard(2, 1), checkerboard(1, 1), checkerboard(2, 2)]
    texts = ['a<image>b<image>c', 'd', 'e<image>']
    out = processor(images=images, text=texts, padding=True, return_tensors='pt')
    assert out['pixel_values'].shape == (3 + 1 + 5, 3, IMAGE_SIZE, IMAGE_SIZE)
    counts = (out['input_ids'] == IMAGE).sum(-1)
    assert counts.tolist() == [4 * PATCHES, 0, 5 * PATCHES]
    plain = make_processor(max_tiles=1)
    each = [
        plain(images=tile, text='<image>', return_tensors='pt')
        for tile in (tile for image in images for tile in processor.tiles(image))
    ]
    expected = torch.cat([one['pixel_values'] for one in each])
    torch.testing.assert_close(out['pixel_values'], expected)
    arrays = [np.asarray(image) for image in images]
    same = processor(images=arrays, text=texts, padding=True, return_tensors='pt')
    assert torch.equal(same['pixel_values'], out['pixel_values'])
    message = 'The texts have 1 times <image>, but there are 3 images.'
    with pytest.raises(ValueError, match=re.escape(message)):
        processor(images=images, text='<image>')
    assert 'pixel_values' not in processor(text='no image')
    with pytest.raises(ValueError, match='max_tiles=0 must be at least 1'):
        make_processor(max_tiles=0)


def test_saves_and_loads(tmp_path):
    make_processor(max_tiles=5, thumbnail=False).save_pretrained(tmp_path)
    same = AutoProcessor.from_pretrained(tmp_path)
    assert type(same) is PatchDecoderProcessor
    assert (same.max_tiles, same.thumbnail, same.patch_size) == (5, False, PATCH_SIZE)
    assert same.num_additional_image_tokens == 0
    assert same.vision_feature_select_strategy == 'full'


def test_a_conversation_with_tiles_is_encoded_and_answered():
    processor = make_processor(max_tiles=4)
    conversation = Conversation(
        [Turn('user', '<image>\nWhat?'), Turn('assistant', 'A board.')],
        [checkerboard(2, 2)],
    )
    sample = encode(processor, conversation)
    assert sample['pixel_values'].shape[0] == 5
    ids, labels = sample['input_ids'], sample['labels']
    assert (ids == IMAGE).sum() == 5 * PATCHES
    learned = processor.tokenizer.decode(labels[labels >= 0])
    assert learned == 'A board.</s>'
    assert torch.equal(labels[labels >= 0], ids[labels >= 0])
    model = tiny_patch_decoder('pure')
    batch = {k: sample[k][None] for k in ('input_ids', 'attention_mask')}
    batch['pixel_values'] = sample['pixel_values']
    how = dict(max_new_tokens=4, min_new_tokens=4, num_beams=2)
    fast = model.generate(**batch, **how)
    assert torch.equal(fast, model.generate(**batch, **how, use_cache=False))


@pytest.mark.parametrize('max_tiles', [1, 6])
def test_tiles_follow_the_upright_picture(tmp_path, max_tiles):
    """A phone's portrait lies on its side in the file."""
    upright = checkerboard(2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / 'phone.png'
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    processor = make_processor(max_tiles=max_tiles)
    wanted = processor(upright, '<image>', return_tensors='pt')
    for image in (Image.open(path), str(path)):
        found = processor(image, '<image>', return_tensors='pt')
        assert torch.equal(found['pixel_values'], wanted['pixel_values'])
        assert torch.equal(found['input_ids'], wanted['input_ids'])
    assert len(processor.tiles(Image.open(path))) == (7 if max_tiles == 6 else 1)


@pytest.mark.parametrize('max_tiles', [1, 6])
def test_pictures_of_16_bits_are_not_clipped(max_tiles):
    processor = make_processor(max_tiles=max_tiles)
    deep = Image.fromarray(np.full((IMAGE_SIZE, IMAGE_SIZE), 100 * 257, np.uint16))
    plain = Image.new('L', (IMAGE_SIZE, IMAGE_SIZE), 100)
    found, wanted = (
        processor(image, '<image>', return_tensors='pt')['pixel_values']
        for image in (deep, plain)
    )
    assert torch.equal(found, wanted)
