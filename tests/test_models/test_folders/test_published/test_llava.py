"""Folders in LLaVA's original layout, written from the published names and shapes."""

import json

import pytest
import torch
import torch.nn.functional as F
from published_folders import (
    prefixed,
    random_state,
    tower_shapes,
    with_biases,
    write_folder,
)
from published_math import (
    attend,
    double,
    linear,
    llama_mlp,
    rms_norm,
    rotate,
    tower_features,
)
from published_prompts import check_prompt
from safetensors.torch import load_file, save_file
from tiny_vlms import save_tiny_llava, tiny_tokenizer

import mmtransmamba
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders import is_vision_language
from mmtransmamba.transfer.convert import convert

C, H, KV, D, MLP, VOCAB, LAYERS = 32, 4, 2, 8, 48, 110, 2
WIDTH, TOWER_LAYERS, SIDE, PATCH = 16, 3, 12, 4
TOKENS, EPS, THETA = 9, 1e-5, 1e4
TOWER = 'model.vision_tower.vision_tower.vision_model.'
VISION = dict(
    model_type='clip_vision_model',
    hidden_size=WIDTH,
    intermediate_size=24,
    num_hidden_layers=TOWER_LAYERS,
    num_attention_heads=2,
    image_size=SIDE,
    patch_size=PATCH,
)
CONFIG = dict(
    model_type='llava',
    architectures=['LlavaLlamaForCausalLM'],
    auto_map={'AutoModel': 'llava.Evil'},
    hidden_size=C,
    intermediate_size=MLP,
    num_hidden_layers=LAYERS,
    num_attention_heads=H,
    num_key_value_heads=KV,
    vocab_size=VOCAB,
    hidden_act='silu',
    rms_norm_eps=EPS,
    max_position_embeddings=64,
    tie_word_embeddings=False,
    torch_dtype='float16',
    mm_vision_tower='the-tower',
    mm_hidden_size=WIDTH,
    mm_projector_type='mlp2x_gelu',
    mm_vision_select_layer=-2,
    mm_vision_select_feature='patch',
    mm_use_im_start_end=False,
    mm_use_im_patch_token=False,
    image_aspect_ratio='pad',
    freeze_mm_mlp_adapter=False,
    use_mm_proj=True,
)


def shapes():
    table = {
        'model.embed_tokens.weight': (VOCAB, C),
        'model.norm.weight': (C,),
        'lm_head.weight': (VOCAB, C),
        **with_biases(
            {'model.mm_projector.0': (C, WIDTH), 'model.mm_projector.2': (C, C)}
        ),
    }
    for i in range(LAYERS):
        at = f'model.layers.{i}.'
        table |= {
            f'{at}input_layernorm.weight': (C,),
            f'{at}post_attention_layernorm.weight': (C,),
            f'{at}mlp.gate_proj.weight': (MLP, C),
            f'{at}mlp.up_proj.weight': (MLP, C),
            f'{at}mlp.down_proj.weight': (C, MLP),
            f'{at}self_attn.q_proj.weight': (H * D, C),
            f'{at}self_attn.k_proj.weight': (KV * D, C),
            f'{at}self_attn.v_proj.weight': (KV * D, C),
            f'{at}self_attn.o_proj.weight': (C, H * D),
        }
    tower = tower_shapes(WIDTH, 24, TOWER_LAYERS, SIDE, PATCH, clip=True)
    return table | prefixed(TOWER, tower)


def forward(state, before, image, after, feature='patch'):
    state = double(state)
    tokens = tower_features(
        image.double(), state, TOWER, TOWER_LAYERS, 2, PATCH, clip=True
    )
    tokens = tokens[1:] if feature == 'patch' else tokens
    tokens = F.gelu(linear(tokens, state, 'model.mm_projector.0'))
    tokens = linear(tokens, state, 'model.mm_projector.2')
    words = state['model.embed_tokens.weight']
    x = torch.cat((words[before], tokens, words[after]))
    for i in range(LAYERS):
        at = f'model.layers.{i}.'
        u = rms_norm(x, state[f'{at}input_layernorm.weight'], EPS)
        q, k, v = (
            linear(u, state, f'{at}self_attn.{name}_proj').reshape(len(u), -1, D)
            for name in 'qkv'
        )
        mixed = attend(rotate(q, THETA), rotate(k, THETA), v)
        x = x + linear(mixed, state, f'{at}self_attn.o_proj')
        u = rms_norm(x, state[f'{at}post_attention_layernorm.weight'], EPS)
        names = (f'{at}mlp.{name}_proj' for name in ('gate', 'up', 'down'))
        x = x + llama_mlp(u, state, *names)
    return linear(rms_norm(x, state['model.norm.weight'], EPS), state, 'lm_head')


BEFORE, AFTER = torch.tensor([1, 7, 9]), torch.tensor([11, 14, 30, 2])
PIXELS = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def logits_of(model, tokens=TOKENS):
    image = torch.full((tokens,), model.config.image_token_id)
    ids = torch.cat((BEFORE, image, AFTER))[None]
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=PIXELS).logits
    return logits[0, :, :VOCAB].double()


def write(folder, where='outside', **fields):
    """A folder whose vision tower lies in its shards, or in a folder of its own."""
    state = random_state(shapes())
    tower = {k: v for k, v in state.items() if k.startswith(TOWER)}
    rest = {k: v for k, v in state.items() if k not in tower}
    prefix = TOWER.removesuffix('vision_model.')
    write_folder(
        folder / 'the-tower', VISION, {k.removeprefix(prefix): tower[k] for k in tower}
    )
    write_folder(folder, CONFIG | fields, rest if where == 'outside' else state)
    return folder, state


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
