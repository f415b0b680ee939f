"""Folders in LLaVA's original layout, written from the published names and shapes."""

import json

import pytest
import torch
from published_folders import random_state, tower_shapes, write_folder
from published_llava import (
    CONFIG,
    KV,
    LAYERS,
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
    write,
)
from published_math import double, tower_features
from published_prompts import check_prompt
from safetensors.torch import load_file, save_file
from tiny_vlms import save_tiny_llava, tiny_tokenizer

import mmtransmamba
from mmtransmamba.datasets.conversations import Turn, chat_template
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders import is_vision_language
from mmtransmamba.transfer.convert import convert
from mmtransmamba.utils.processors import load_processor

TOKENS = 9


def forward(state, before, image, after, feature='patch'):
    state = double(state)
    tokens = tower_features(
        image.double(), state, TOWER, TOWER_LAYERS, 2, PATCH, clip=True
    )
    tokens = tokens[1:] if feature == 'patch' else tokens
    words = state['model.embed_tokens.weight']
    x = torch.cat((words[before], project(state, tokens), words[after]))
    return decode(state, x)


BEFORE, AFTER = torch.tensor([1, 7, 9]), torch.tensor([11, 14, 30, 2])
PIXELS = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def logits_of(model, tokens=TOKENS):
    image = torch.full((tokens,), model.config.image_token_id)
    ids = torch.cat((BEFORE, image, AFTER))[None]
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=PIXELS).logits
    return logits[0, :, :VOCAB].double()


@pytest.mark.parametrize(
    ('where', 'fields', 'tokens'),
    [
        ('outside', {}, TOKENS),
        (
            'inside',
            dict(model_type='llava_llama', unfreeze_mm_vision_tower=True),
            TOKENS,
        ),
        ('inside', dict(mm_vision_select_feature='cls_patch'), TOKENS + 1),
    ],
    ids=['v1.5', 'tower in the shards', 'class token'],
)
def test_the_logits_are_those_of_the_published_forward(tmp_path, where, fields, tokens):
    folder, state = write(tmp_path / 'published', where, **fields)
    model = mmtransmamba.load(folder)
    feature = fields.get('mm_vision_select_feature', 'patch')
    expected = forward(state, BEFORE, PIXELS[0], AFTER, feature)
    torch.testing.assert_close(logits_of(model, tokens), expected, atol=1e-4, rtol=1e-4)
    assert type(model).__name__ == 'LlavaForConditionalGeneration'
    model.save_pretrained(tmp_path / 'ours')
    again = mmtransmamba.load(tmp_path / 'ours')
    assert torch.equal(logits_of(again, tokens), logits_of(model, tokens))


@pytest.mark.parametrize('where', ['outside', 'inside'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_the_tower_gets_the_dtype_of_the_decoder(tmp_path, where, dtype):
    """LLaVA-1.5 is published in float16, and its tower elsewhere in float32."""
    folder, _ = write(tmp_path / 'published', where)
    state = load_file(folder / 'model.safetensors')
    half = {k: v if 'tower' in k else v.to(dtype) for k, v in state.items()}
    save_file(half, folder / 'model.safetensors')
    model = mmtransmamba.load(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    ids = torch.tensor([[1, *[model.config.image_token_id] * TOKENS, 4]])
    assert model(input_ids=ids, pixel_values=PIXELS.to(dtype)).logits.dtype == dtype


QWEN_BIASES = {
    f'model.layers.{i}.self_attn.{name}_proj.bias': (rows,)
    for i in range(LAYERS)
    for name, rows in (('q', H * D), ('k', KV * D), ('v', KV * D))
}


@pytest.mark.parametrize(
    ('kind', 'name', 'family'),
    [
        ('llava', 'LlavaLlamaForCausalLM', 'llama'),
        ('llava', None, 'llama'),
        ('llava', 'LlavaQwenForCausalLM', 'qwen2'),
        ('qwen2', 'LlavaQwenForCausalLM', 'qwen2'),
        ('llava_qwen', None, 'qwen2'),
        ('llava', 'LlavaMistralForCausalLM', 'mistral'),
        ('mistral', 'LlavaMistralForCausalLM', 'mistral'),
        ('llama', 'LlavaLlamaForCausalLM', 'llama'),
    ],
)
def test_the_class_gives_the_family_where_the_type_does_not(
    tmp_path, kind, name, family
):
    folder, _ = write(
        tmp_path / 'published',
        'inside',
        QWEN_BIASES if family == 'qwen2' else {},
        model_type=kind,
        architectures=name and [name],
    )
    model = mmtransmamba.load(folder)
    assert model.config.text_config.model_type == family
    assert torch.isfinite(logits_of(model)).all()


def test_the_tower_is_the_one_inside_a_whole_clip(tmp_path):
    folder, state = write(tmp_path / 'published')
    tower = folder / 'the-tower'
    weights = load_file(tower / 'model.safetensors')
    weights |= {
        'text_model.embeddings.token_embedding.weight': torch.ones(3, 3),
        'visual_projection.weight': torch.ones(2, WIDTH),
        'logit_scale': torch.ones(()),
        'vision_model.embeddings.position_ids': torch.arange(10)[None],
    }
    write_folder(tower, dict(model_type='clip', vision_config=VISION), weights)
    expected = forward(state, BEFORE, PIXELS[0], AFTER)
    logits = logits_of(mmtransmamba.load(folder))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('where', ['outside', 'inside'])
def test_a_siglip_gives_all_tokens_of_its_last_layer_but_one(tmp_path, where):
    """The published code removes the last layer and the head, and cuts no token."""
    folder, state = write(tmp_path / 'published', where)
    rest = {k: v for k, v in state.items() if not k.startswith(TOWER)}
    tower = random_state(
        tower_shapes(WIDTH, 24, TOWER_LAYERS, SIDE, PATCH, clip=False), seed=3
    )
    vision = VISION | dict(model_type='siglip_vision_model')
    whole = {f'vision_model.{name}': tensor for name, tensor in tower.items()}
    write_folder(folder / 'the-tower', vision, whole)
    left = {
        TOWER + name: tensor
        for name, tensor in tower.items()
        if not name.startswith(('head.', f'encoder.layers.{TOWER_LAYERS - 1}.'))
    }
    write_folder(folder, CONFIG, rest | (left if where == 'inside' else {}))
    state = double(rest | left)
    image = PIXELS[0].double()
    tokens = tower_features(image, state, TOWER, TOWER_LAYERS, 2, PATCH, clip=False)
    words = state['model.embed_tokens.weight']
    expected = decode(
        state, torch.cat((words[BEFORE], project(state, tokens), words[AFTER]))
    )
    logits = logits_of(mmtransmamba.load(folder))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    check_prompt(folder, TOKENS, corner=0.0)  # the mean colour, here grey


LLAMA_3 = (
    '<|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>'
    '<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhy?<|eot_id|>'
    '<|start_header_id|>assistant<|end_header_id|>\n\n'
)
HEADERS = ['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>']
CHATML = ['<|im_start|>', '<|im_end|>']
NEXT = dict(
    image_aspect_ratio='anyres',
    mm_patch_merge_type='spatial_unpad',
    image_grid_pinpoints=[[SIDE, SIDE]],
)
VICUNA = (
    'A chat between a curious user and an artificial intelligence assistant. The '
    "assistant gives helpful, detailed, and polite answers to the user's questions."
)


@pytest.mark.parametrize(
    ('fields', 'added', 'prompt', 'answer'),
    [
        ({}, [], f'{VICUNA} USER: <image>\nWhy? ASSISTANT:', ' So.</s>'),
        (
            dict(model_type='llava_llama'),
            HEADERS,
            '<s>' + LLAMA_3.format(VICUNA),
            'So.<|eot_id|>',
        ),
        (
            dict(model_type='llava_llama') | NEXT,
            HEADERS,
            '<s>'
            + LLAMA_3.format(
                'You are a helpful language and vision assistant. You are able to '
                'understand the visual content that the user provides, and assist the '
                'user with a variety of tasks using natural language.'
            ),
            'So.<|eot_id|>',
        ),
        (
            dict(model_type='llava_mistral'),
            [],
            '[INST] <image>\nWhy? [/INST]',
            ' So. </s>',
        ),
        (
            dict(model_type='llava_llama'),
            CHATML,
            '<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n'
            '<image>\nWhy?<|im_end|><|im_start|>assistant\n',
            'So.<|im_end|>',
        ),
        (
            dict(model_type='llava_qwen'),
            CHATML,
            '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n'
            '<|im_start|>user\n<image>\nWhy?<|im_end|>\n<|im_start|>assistant\n',
            'So.<|im_end|>',
        ),
    ],
    ids=['v1.5', 'LLaVA-pp', 'NeXT', 'v1.6-mistral', 'v1.6-34b', 'NeXT-Qwen'],
)
def test_the_conversation_is_the_published_one(tmp_path, fields, added, prompt, answer):
    extra = {'model.image_newline': (C,)} if 'image_grid_pinpoints' in fields else {}
    if fields.get('model_type') == 'llava_qwen':
        extra |= QWEN_BIASES
    folder, _ = write(tmp_path / 'published', 'inside', extra, **fields)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    if added:
        tokenizer.add_special_tokens({'extra_special_tokens': added})
    tokenizer.save_pretrained(folder)
    processor = load_processor(folder)
    chat = chat_template(processor)
    turns = [Turn('user', '<image>\nWhy?'), Turn('assistant', 'So.')]
    assert chat.prompt(turns[:1]) == prompt
    text, ((begin, end),) = chat.conversation(turns)
    assert text[begin:end].strip(' ') == answer.strip(' ')
    assert text.startswith(prompt + answer)
    ends = mmtransmamba.load(folder).generation_config.eos_token_id
    marks = [tokenizer.convert_tokens_to_ids(mark) for mark in added[-1:]]
    assert set(marks) <= set(ends if isinstance(ends, list) else [ends])


def test_the_image_token_is_that_of_the_tokenizer(tmp_path):
    folder, state = write(tmp_path / 'published')
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    model = mmtransmamba.load(folder)
    token = tokenizer.convert_tokens_to_ids('<image>')
    assert model.config.image_token_id == token
    expected = forward(state, BEFORE, PIXELS[0], AFTER)
    torch.testing.assert_close(logits_of(model), expected, atol=1e-4, rtol=1e-4)


def test_transformers_own_llava_is_not_taken_for_the_original(tmp_path):
    folder = save_tiny_llava(tmp_path / 'own')
    config = json.loads((tmp_path / 'own' / 'config.json').read_text('utf-8'))
    assert config['model_type'] == CONFIG['model_type'] == 'llava'
    assert mmtransmamba.load(folder).config.text_config.num_hidden_layers == 4
    assert is_vision_language(write(tmp_path / 'published')[0])


def test_an_original_llava_is_converted_like_any_other(tmp_path):
    folder, _ = write(tmp_path / 'published')
    student, _ = convert(folder, layers=[1], init='vkq')
    assert torch.isfinite(logits_of(student)).all()


@pytest.mark.parametrize(
    ('fields', 'error', 'message'),
    [
        (dict(mm_projector_type='linear'), ValueError, "mm_projector_type='linear'"),
        (dict(s2=True), ValueError, 's2=True'),
        (
            dict(architectures=['LlavaMptForCausalLM']),
            ValueError,
            "architectures='LlavaMptForCausalLM'",
        ),
        (
            dict(model_type='qwen2', architectures=['LlavaMistralForCausalLM']),
            ValueError,
            "model_type='qwen2' cannot be read; it must be 'mistral'",
        ),
        (
            dict(model_type='gemma', architectures=['LlavaGemmaForCausalLM']),
            ValueError,
            "model_type='gemma'",
        ),
        (dict(mm_projector_type=None), ValueError, 'mm_projector_type=None'),
        (dict(mm_use_im_start_end=True), ValueError, 'mm_use_im_start_end=True'),
        (dict(image_aspect_ratio='anyres'), ValueError, "aspect_ratio='anyres'"),
        (dict(mm_patch_merge_type='spatial_unpad'), ValueError, 'mm_patch_merge_type'),
        (dict(mm_hidden_size=1024), ValueError, 'mm_hidden_size=1024'),
        (dict(mm_vision_select_layer=-7), ValueError, 'layer -7'),
        (dict(model_type='llava_mpt'), ValueError, "model_type='llava_mpt'"),
        (dict(mm_vision_tower='nobody/has-it'), FileNotFoundError, 'nobody/has-it'),
    ],
)
def test_a_field_that_contradicts_is_refused_by_name(tmp_path, fields, error, message):
    folder, _ = write(tmp_path / 'published', **fields)
    with pytest.raises(error, match=message) as caught:
        mmtransmamba.load(folder)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'shape', 'message'),
    [
        ('model.mm_projector.0.weight', (C, 8), 'another shape'),
        ('model.mm_projector.2.bias', None, 'missing'),
        ('model.image_newline', (C,), 'unexpected'),
        ('model.layers.1.self_attn.q_proj.bias', (C,), 'unexpected'),
        ('model.layers.1.self_attn.rotary_emb.inv_freq', (4,), None),
        ('model.vision_resampler.x', (4,), None),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(tmp_path, name, shape, message):
    folder, _ = write(tmp_path / 'published')
    state = load_file(folder / 'model.safetensors')
    state.pop(name, None)
    if shape is not None:
        state[name] = torch.ones(shape)
    save_file(state, folder / 'model.safetensors')
    if message is None:
        mmtransmamba.load(folder)
        return
    with pytest.raises(CheckpointError, match=f'{message}.*{name}') as caught:
        mmtransmamba.load(folder)
    assert '\n' not in str(caught.value)


def test_a_prompt_has_the_tokens_of_an_image_that_is_padded_to_a_square(tmp_path):
    folder, _ = write(tmp_path / 'published')
    check_prompt(folder, TOKENS, corner=0.0)  # the mean colour
