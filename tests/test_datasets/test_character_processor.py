"""A processor made on the spot, as transformers and the data sets use it."""

import string

import pytest
from PIL import Image
from transformers import AutoProcessor

from mmtransmamba.datasets.character_processor import character_processor
from mmtransmamba.datasets.conversations import (
    Conversation,
    Turn,
    encode,
    encode_prompt,
)


@pytest.fixture(params=['built', 'read'])
def processor(request, tmp_path):
    built = character_processor(32, 8)
    if request.param == 'built':
        return built
    built.save_pretrained(tmp_path)
    return AutoProcessor.from_pretrained(tmp_path)


def test_every_character_is_a_token(processor):
    tokenizer = processor.tokenizer
    text = string.printable.strip() + ' \n  <SUMMARY>'
    ids = tokenizer(text).input_ids
    assert len(ids) == len(text) and tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer('é').input_ids == [tokenizer.unk_token_id]
    assert len(tokenizer) == 101


def test_conversations(processor):
    image = Image.new('RGB', (50, 40))
    talk = Conversation(
        [Turn('user', '<image>\nWhat?'), Turn('assistant', ' Nothing.\n')], [image]
    )
    sample = encode(processor, talk)
    assert sample['pixel_values'].shape == (1, 3, 32, 32)
    decode = processor.tokenizer.decode
    patches = '<image>' * 16
    assert decode(sample['input_ids']) == (
        f'<s>Q: {patches}\nWhat?\nA:  Nothing.\n</s>'
    )
    learned = sample['labels'][sample['labels'] >= 0]
    assert decode(learned) == ' Nothing.\n</s>'
    prompt = encode_prompt(processor, talk)
    assert decode(prompt['input_ids']) == f'<s>Q: {patches}\nWhat?\nA: '


def test_content_in_parts(processor):
    parts = [dict(type='image'), dict(type='text', text='What?')]
    text = processor.apply_chat_template(
        [dict(role='user', content=parts)], add_generation_prompt=True
    )
    assert text == '<s>Q: <image>\nWhat?\nA: '
