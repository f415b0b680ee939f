"""Conversations as tokens, labels and pixels."""

import io
import json

import numpy as np
import pytest
import torch
from chat_templates import CASES, CHATML, GEMMA, MISTRAL, THINKING
from PIL import Image
from tiny_vlms import tiny_processor, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mmtransmamba.datasets.conversations import (
    TEMPLATES,
    BadSampleError,
    Conversation,
    Turn,
    encode,
    encode_prompt,
    load_image,
    templates,
)

PATCHES = 4
TURNS = [
    Turn('user', '<image>\nWhat?'),
    Turn('assistant', 'A cat.'),
    Turn('user', 'Old?'),
    Turn('assistant', 'No. '),
]


def picture(colour=(255, 0, 0)):
    return Image.new('RGB', (30, 20), colour)


def conversation(count=4, **kwargs):
    return Conversation(TURNS[:count], [picture()], **kwargs)


def processor_with(tokens):
    processor = tiny_processor()
    processor.tokenizer.add_tokens(tokens, special_tokens=True)
    return processor


def learned(processor, sample):
    """The runs of learned tokens, decoded."""
    labels = sample['labels'].tolist()
    runs, before = [], -100
    for label in labels:
        if label != -100:
            if before == -100:
                runs.append([])
            runs[-1].append(label)
        before = label
    return [processor.tokenizer.decode(run) for run in runs]


def text_of(processor, sample):
    return processor.tokenizer.decode(sample['input_ids'])


@pytest.mark.parametrize('name', CASES)
def test_answers_alone_are_learned(name):
    template, tokens, expected = CASES[name]
    processor = processor_with(tokens)
    sample = encode(processor, conversation(), template)
    if name == 'llava_plain':  # nothing is between the answers
        expected = [''.join(expected)]
    assert learned(processor, sample) == expected
    where = sample['labels'] != -100
    assert sample['labels'][where].tolist() == sample['input_ids'][where].tolist()
    image = processor.image_token_id
    assert (sample['input_ids'] == image).sum() == PATCHES
    assert sample['attention_mask'].all()
    assert sample['length'] == len(sample['input_ids']) == len(sample['labels'])
    assert sample['has_image'] is True
    assert sample['pixel_values'].shape == (1, 3, 16, 16)


@pytest.mark.parametrize('name', CASES)
def test_prompt_is_the_beginning(name):
    """The prompt ends where the learned answer starts."""
    template, tokens, _ = CASES[name]
    processor = processor_with(tokens)
    for count in (2, 4):
        whole = encode(processor, conversation(count), template)
        prompt = encode_prompt(processor, conversation(count), template)
        length = prompt['length']
        assert prompt['input_ids'].tolist() == whole['input_ids'][:length].tolist()
        assert 'labels' not in prompt
        assert torch.equal(prompt['pixel_values'], whole['pixel_values'])
        # After 'ASSISTANT:' there is a space, which most tokenizers put into the
        # answer's first token.
        assert (whole['labels'][length : length + 2] != -100).any()
        if count == 2:
            assert (whole['labels'][:length] == -100).all()


@pytest.mark.parametrize('name', ['llama_3', 'chatml', 'mistral', 'llava_v1', 'tag'])
def test_system_turn(name):
    template, tokens, expected = CASES[name]
    processor = processor_with(tokens)
    turns = [Turn('system', 'Be brief.'), *TURNS]
    sample = encode(processor, Conversation(turns, [picture()]), template)
    assert learned(processor, sample) == expected
    assert 'Be brief.' in text_of(processor, sample)


def test_text_alone_needs_no_processor():
    turns = [Turn('user', 'Hi'), Turn('assistant', 'Ho')]
    samples = [
        encode(processor, Conversation(turns), 'llava_v1')
        for processor in (tiny_processor(), tiny_tokenizer())
    ]
    for sample in samples:
        assert set(sample) == {
            'input_ids',
            'attention_mask',
            'labels',
            'length',
            'has_image',
        }
        assert sample['has_image'] is False
    assert samples[0]['input_ids'].tolist() == samples[1]['input_ids'].tolist()
    with pytest.raises(ValueError, match='is not a processor of images'):
        encode(tiny_tokenizer(), conversation())


def test_images_stay_where_they_are_written():
    turns = [
        Turn('user', 'First <image> then\n<image>'),
        Turn('assistant', 'Yes'),
        Turn('user', '<image>?'),
        Turn('assistant', 'Yes'),
    ]
    processor = tiny_processor()
    pictures = [picture((shade, 0, 0)) for shade in (0, 100, 200)]
    sample = encode(processor, Conversation(turns, pictures))
    image = '<image>' * PATCHES
    assert text_of(processor, sample) == (
        f'<s>USER: First {image} then\n{image} ASSISTANT: Yes</s>'
        f'USER: {image}? ASSISTANT: Yes</s>'
    )
    red = sample['pixel_values'][:, 0].mean((1, 2))
    assert len(red) == 3
    assert (red.diff() > 0).all()


def test_image_token_of_another_name():
    """The placeholder in the data is LLaVA's, whatever the tokenizer calls it."""
    processor = processor_with(['<|patch|>'])
    processor.image_token = '<|patch|>'
    token = processor.tokenizer.convert_tokens_to_ids('<|patch|>')
    processor.image_token_id = token
    processor.image_ids = [token]
    for template in (None, 'llava_v1', 'llava_plain'):
        sample = encode(processor, conversation(2), template)
        assert (sample['input_ids'] == token).sum() == PATCHES
        assert '<image>' not in text_of(processor, sample)


def byte_pair_tokenizer():
    """A tokenizer in the manner of GPT-2: words with the space before them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        ['USER: what is it ASSISTANT: a grey cat'] * 9,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=['<|endoftext|>'],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token='<|endoftext|>'
    )


def test_space_before_an_answer_belongs_to_it():
    tokenizer = byte_pair_tokenizer()
    turns = [Turn('user', 'what is it'), Turn('assistant', 'a grey cat')]
    sample = encode(tokenizer, Conversation(turns), 'llava_v1')
    prompt = encode_prompt(tokenizer, Conversation(turns), 'llava_v1')
    answer = sample['labels'][sample['labels'] != -100]
    assert tokenizer.decode(answer) == ' a grey cat<|endoftext|>'
    assert len(answer) < len('a grey cat')  # words, not characters
    assert prompt['input_ids'].tolist() + answer.tolist() == (
        sample['input_ids'].tolist()
    )


def adds_around(tokenizer, before=False, after=False):
    """Let a tokenizer add BOS before every text, EOS after it."""

    def special(name, wanted):
        return [dict(SpecialToken=dict(id=name, type_id=0))] if wanted else []

    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend['post_processor'] = dict(
        type='TemplateProcessing',
        single=[
            *special('<s>', before),
            dict(Sequence=dict(id='A', type_id=0)),
            *special('</s>', after),
        ],
        pair=[
            dict(Sequence=dict(id='A', type_id=0)),
            dict(Sequence=dict(id='B', type_id=0)),
        ],
        special_tokens={
            token: dict(
                id=token, ids=[tokenizer.convert_tokens_to_ids(token)], tokens=[token]
            )
            for token in ('<s>', '</s>')
        },
    )
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(backend))


@pytest.mark.parametrize('before', [True, False])
@pytest.mark.parametrize('images', [True, False])
def test_a_tokenizer_that_adds_its_last_token_ends_no_prompt(images, before):
    processor = tiny_processor()
    talk = conversation()
    if not images:
        turns = [Turn(t.role, t.text.replace('<image>', '')) for t in TURNS]
        talk = Conversation(turns)
    wanted = [
        encode(processor, talk, 'llava_v1'),
        encode_prompt(processor, talk, 'llava_v1'),
    ]
    bos = torch.tensor([processor.tokenizer.bos_token_id])
    adds_around(processor.tokenizer, before, after=True)
    found = [
        encode(processor, talk, 'llava_v1'),
        encode_prompt(processor, talk, 'llava_v1'),
    ]
    for own, other in zip(found, wanted, strict=True):
        ids = torch.cat([bos, other['input_ids']]) if before else other['input_ids']
        assert own['input_ids'].tolist() == ids.tolist()
        assert own['length'] == len(ids)
    assert learned(processor, found[0]) == learned(processor, wanted[0])


def test_tokenizer_adds_its_first_token_once():
    processor = tiny_processor()
    bos = processor.tokenizer.bos_token_id
    # The template writes it.
    assert (encode(processor, conversation())['input_ids'] == bos).sum() == 1
    adds_around(processor.tokenizer, before=True)
    for template in (None, 'llava_v1'):
        sample = encode(processor, conversation(), template)
        assert (sample['input_ids'] == bos).nonzero().tolist() == [[0]]
        assert learned(processor, sample) == ['A cat.</s>', 'No. </s>']


# --------------------------------------------------------------------- max_length


def test_cut_at_the_end():
    processor = tiny_processor()
    whole = encode(processor, conversation())
    length = whole['length'] - 2
    cut = encode(processor, conversation(), max_length=length)
    assert cut['length'] == length
    for key in ('input_ids', 'labels', 'attention_mask'):
        assert cut[key].tolist() == whole[key][:length].tolist()
    assert encode(processor, conversation(), max_length=length + 2)['length'] == (
        length + 2
    )


@pytest.mark.parametrize(
    'max_length, too_long, message',
    [
        (9, 'cut', "an image's tokens after max_length=9"),
        (20, 'cut', 'no answer within max_length=20'),
        (50, 'skip', 'more than max_length=50'),
    ],
)
def test_too_long(max_length, too_long, message):
    with pytest.raises(BadSampleError, match=message) as caught:
        encode(
            tiny_processor(), conversation(), max_length=max_length, too_long=too_long
        )
    assert caught.value.reason == 'too long'


def test_prompt_is_never_cut():
    with pytest.raises(BadSampleError, match='more than max_length=20'):
        encode_prompt(tiny_processor(), conversation(), max_length=20)


def test_too_long_is_one_of_two():
    with pytest.raises(ValueError, match="'cut' or 'skip', got 'drop'"):
        encode(tiny_processor(), conversation(), too_long='drop')


# ------------------------------------------------------------------- bad samples


@pytest.mark.parametrize(
    'turns, images, reason, message',
    [
        ([], 0, 'malformed turns', r'has the roles \[\]'),
        ([('user', 'a')], 0, 'malformed turns', "the assistant's turn at the end"),
        ([('assistant', 'a')], 0, 'malformed turns', 'in turn'),
        ([('user', 'a'), ('user', 'b')], 0, 'malformed turns', 'in turn'),
        (
            [('user', 'a'), ('system', 'b'), ('assistant', 'c')],
            0,
            'malformed turns',
            'a system turn before',
        ),
        ([('user', 'a'), ('assistant', ' \n')], 0, 'empty answer', 'empty answer'),
        ([('user', '<image>'), ('assistant', 'b')], 0, 'image count', 'has 0 images'),
        (
            [('user', '<image><image>'), ('assistant', 'b')],
            1,
            'image count',
            'has 1 images, but 2 times <image>',
        ),
        ([('user', 'a'), ('assistant', 'b')], 1, 'image count', '0 times <image>'),
        (
            [('user', '<image>'), ('assistant', 'an <image>')],
            1,
            'image count',
            "1 times in the assistant's",
        ),
    ],
)
def test_bad_turns(turns, images, reason, message):
    said = Conversation([Turn(*t) for t in turns], [picture()] * images, id='x7')
    with pytest.raises(BadSampleError, match=message) as caught:
        encode(tiny_processor(), said)
    assert caught.value.reason == reason
    assert "'x7'" in str(caught.value)


def test_images_from_anywhere(tmp_path):
    path = tmp_path / 'images' / 'a.png'
    path.parent.mkdir()
    picture().save(path)
    root = str(tmp_path / 'images')
    grey = picture().convert('L')
    for image in ('a.png', path.read_bytes(), picture(), path, grey):
        loaded = load_image(image, None if image is path else root)
        assert loaded.mode == 'RGB'
        assert loaded.size == (30, 20)
    for image in ('b.png', '../images/../images.png', str(tmp_path / 'c.png')):
        with pytest.raises(BadSampleError) as caught:
            load_image(image, root)
        assert caught.value.reason == 'missing image'
    (tmp_path / 'outside.png').write_bytes(path.read_bytes())
    with pytest.raises(BadSampleError, match='is not below image_root'):
        load_image('../outside.png', root)


def test_images_are_read_as_one_sees_them(tmp_path):
    """Images are rotated by their EXIF tag, and 16 bits are not clipped to 8."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / 'phone.jpg'
    Image.new('RGB', (40, 20)).save(path, exif=exif)
    deep = Image.fromarray(np.full((4, 4), 32896, np.uint16))
    deep.save(tmp_path / 'deep.png')
    for image in (path, path.read_bytes(), Image.open(path)):
        assert load_image(image).size == (20, 40)
    for image in (tmp_path / 'deep.png', deep):
        assert load_image(image).getpixel((0, 0)) == (128, 128, 128)


def test_an_opened_image_whose_file_breaks_off(tmp_path):
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(whole, 'PNG')
    opened = Image.open(io.BytesIO(whole.getvalue()[:900]))
    for image in (opened, Image.new('RGB', (0, 4))):
        with pytest.raises(BadSampleError) as caught:
            load_image(image)
        assert caught.value.reason == 'corrupt image'


def test_corrupt_images(tmp_path):
    path = tmp_path / 'noise.jpg'
    Image.effect_noise((64, 64), 90).save(path)
    whole = path.read_bytes()
    for content in (b'', b'no image', whole[: len(whole) // 2]):
        path.write_bytes(content)
        for image in (path, content):
            with pytest.raises(BadSampleError) as caught:
                load_image(image)
            assert caught.value.reason == 'corrupt image'


# --------------------------------------------------------------------- templates


def test_tokenizer_without_template():
    tokenizer = byte_pair_tokenizer()
    said = Conversation([Turn('user', 'a'), Turn('assistant', 'b')])
    with pytest.raises(ValueError, match='has no chat template.*llava_plain'):
        encode(tokenizer, said)
    with pytest.raises(ValueError, match="no chat template 'vicuna'"):
        encode(tokenizer, said, 'vicuna')


def test_processor_template_comes_first():
    processor = tiny_processor()
    processor.tokenizer.chat_template = CHATML
    assert text_of(processor, encode(processor, conversation(2))).startswith('<s>USER')
    processor.chat_template = None
    assert '<|im_start|>' in text_of(processor, encode(processor, conversation(2)))


def test_prompt_that_is_not_the_beginning():
    template = CHATML.replace(
        "{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>bot\n' }}"
    )
    with pytest.raises(ValueError, match='is not how the whole conversation begins'):
        encode(processor_with(['<|im_start|>', '<|im_end|>']), conversation(), template)


def test_thoughts_in_the_prompt():
    """The variables of a template reach it."""
    processor = processor_with(CASES['thinking'][1])
    kwargs = dict(template=THINKING, template_variables=dict(enable_thinking=False))
    sample = encode(processor, conversation(2), **kwargs)
    assert learned(processor, sample) == ['A cat.<|im_end|>']
    prompt = encode_prompt(processor, conversation(2), **kwargs)
    assert text_of(processor, prompt).endswith('<think>\n\n</think>\n\n')


def test_template_that_changes_the_words():
    template = CHATML.replace("message['content']", "message['content'] | lower")
    with pytest.raises(BadSampleError, match='changes what is said') as caught:
        encode(tiny_processor(), conversation(), template)
    assert caught.value.reason == 'template'


@pytest.mark.parametrize(
    'template, message',
    [
        (GEMMA, 'cannot render the roles.*System role not supported'),
        ("{{ 'no words' }}", "does not write the user's text"),
        ('{% for %}', "does not write the user's text"),
        (
            "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}"
            '{% endif %}{% endfor %}',
            'does not write all of the turns',
        ),
        (
            "{% for m in messages %}{{ m['content'] }}{% endfor %}"
            '{% generation %}{{ eos_token }}{% endgeneration %}',
            'marks 1 turns of the assistant',
        ),
    ],
)
def test_unusable_template(template, message):
    turns = [Turn('system', 'Be brief.'), *TURNS]
    with pytest.raises(ValueError, match=message):
        encode(tiny_processor(), Conversation(turns, [picture()]), template)


def test_a_template_that_refuses_all_roles_is_no_bad_sample():
    """The template's own message is kept."""
    turns = [Turn('user', 'a'), Turn('assistant', 'b')]
    broken = MISTRAL.replace("== 'user') !=", "== 'assistant') !=")
    with pytest.raises(ValueError, match='roles must alternate') as caught:
        encode(tiny_processor(), Conversation(turns), broken)
    assert not isinstance(caught.value, BadSampleError)


def test_roles_that_a_template_refuses_are_a_bad_sample():
    turns = [Turn(role, 'a') for role in ('system', 'user', 'assistant')]
    for encode_ in (encode, encode_prompt):
        with pytest.raises(BadSampleError, match='System role not supp') as caught:
            encode_(tiny_processor(), Conversation(turns), template=GEMMA)
        assert caught.value.reason == 'template'
    assert encode(tiny_processor(), Conversation(turns[1:]), template=GEMMA)


def test_same_every_day():
    """Llama 3's template would write the day."""
    template, tokens, _ = CASES['llama_3']
    sample = encode(processor_with(tokens), conversation(), template)
    assert 'Today Date: 26 Jul 2024' in text_of(processor_with(tokens), sample)
    # So would those that ask for the time themselves.
    asks = (
        "{%- macro day() %}{{ strftime_now('%A, %d %B %Y') }}{% endmacro -%}"
        "{% if strftime_now is defined %}{{ strftime_now('%Y-%m-%d') }} {% endif %}"
        '{{ day() }} '
    )
    sample = encode(processor_with([]), conversation(), asks + CHATML)
    text = text_of(processor_with([]), sample)
    assert text.startswith('2024-07-26 Friday, 26 July 2024 ')
    assert learned(processor_with([]), sample) == [
        'A cat.<|im_end|>',
        'No. <|im_end|>',
    ]


@pytest.mark.parametrize('name', CASES)
def test_warns_that_nothing_ends_an_answer(name, monkeypatch):
    template, tokens, _ = CASES[name]
    warnings = []
    monkeypatch.setattr(
        templates, 'print_log', lambda text, *args, **kwargs: warnings.append(text)
    )
    processor = processor_with(tokens)
    for _ in range(2):
        encode(processor, conversation(), template)
    expected = name in ('llava_hf', 'chatml_as_text', 'llava_plain')
    assert len(warnings) == expected
    assert not expected or 'does not learn to stop' in warnings[0]


def test_named_templates_take_parts_as_well():
    """So that a processor's own ``apply_chat_template`` can use them."""
    processor = tiny_processor()
    parts = [dict(type='image'), dict(type='text', text='What?')]
    text = processor.apply_chat_template(
        [dict(role='user', content=parts)],
        chat_template=TEMPLATES['llava_v1'],
        add_generation_prompt=True,
        image_token='<image>',
    )
    assert text.endswith('USER: <image>\nWhat? ASSISTANT:')
    prompt = encode_prompt(processor, conversation(2), 'llava_v1')
    assert text.replace('<image>', '<image>' * PATCHES) == text_of(processor, prompt)


def test_encoding_is_deterministic():
    one, other = (encode(tiny_processor(), conversation()) for _ in range(2))
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key]))
