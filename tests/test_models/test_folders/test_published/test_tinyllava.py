"""Folders of TinyLLaVA and MaTVLM, written from the published names and shapes."""

import json

import pytest
import torch
import torch.nn.functional as F
from published_folders import (
    BASE_FIELDS,
    mamba_in_llama_shapes,
    prefixed,
    random_state,
    tower_shapes,
    with_biases,
    write_folder,
)
from published_math import (
    attend,
    double,
    layer_norm,
    linear,
    mamba_in_llama_layer,
    rotate,
    tower_features,
)
from published_prompts import check_prompt
from safetensors.torch import load_file, save_file

import mmtransmamba
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders import load_lm
from mmtransmamba.models.trainable import VisionLanguageModel
from mmtransmamba.transfer.convert import convert

C, H, D, MLP, VOCAB, LAYERS = 32, 4, 8, 48, 110, 3
VISION = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=12,
    patch_size=4,
)
TOKENS = 3 * 3 - 1  # the first patch is cut
KEPT = [1]
CONFIG = dict(
    model_type='tinyllava',
    architectures=['TinyLlavaForConditionalGeneration'],
    auto_map={'AutoModelForCausalLM': 'modeling.Evil'},
    llm_model_name_or_path='microsoft/phi-2',
    vision_model_name_or_path='google/siglip-so400m-patch14-384',
    vision_model_name_or_path2='',
    connector_type='mlp2x_gelu',
    hidden_size=C,
    vision_hidden_size=16,
    vocab_size=VOCAB,
    image_token_index=-200,
    ignore_index=-100,
    vision_feature_layer=-2,
    vision_feature_select_strategy='patch',
    image_aspect_ratio='square',
    text_config=dict(
        model_type='phi',
        hidden_size=C,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=H,
        vocab_size=VOCAB,
        partial_rotary_factor=0.5,
        rope_theta=10000.0,
        hidden_act='gelu_new',
        layer_norm_eps=1e-5,
        max_position_embeddings=64,
        resid_pdrop=0.1,
        bos_token_id=1,
        eos_token_id=1,
        torch_dtype='float16',
    ),
    vision_config=dict(
        model_type='siglip_vision_model', model_name_or_path='google/x', **VISION
    ),
)
TEXT = CONFIG['text_config']
MAMBA_CONFIG = dict(
    d_model=C,
    d_inner=C,
    d_xb=C,
    ssm_cfg=dict(expand=1, ngroups=H, d_state=D),
    n_layer=LAYERS,
    intermediate_size=MLP,
    vocab_size=VOCAB,
    hidden_act='gelu_new',
    attn_layers=KEPT,
    layer_norm_eps=1e-5,
    resid_pdrop=0.1,
    bidirectional=False,
    is_bias=False,
)


def shapes(mamba):
    linears = {'lm_head': (VOCAB, C)}
    table = {
        'model.embed_tokens.weight': (VOCAB, C),
        'model.final_layernorm.weight': (C,),
        'model.final_layernorm.bias': (C,),
    }
    for i in range(LAYERS):
        at = f'model.layers.{i}.'
        table |= {
            f'{at}input_layernorm.weight': (C,),
            f'{at}input_layernorm.bias': (C,),
        }
        linears |= {f'{at}mlp.fc1': (MLP, C), f'{at}mlp.fc2': (C, MLP)}
        if mamba and i not in KEPT:
            table |= prefixed(f'{at}mamba.', mamba_in_llama_shapes(C, H, H))
        else:
            names = ('q_proj', 'k_proj', 'v_proj', 'dense')
            linears |= {f'{at}self_attn.{name}': (C, C) for name in names}
    return {
        **prefixed('language_model.', table | with_biases(linears)),
        **prefixed(
            'vision_tower._vision_tower.vision_model.',
            tower_shapes(16, 24, 3, 12, 4, clip=False),
        ),
        **with_biases(
            {'connector._connector.0': (C, 16), 'connector._connector.2': (C, C)}
        ),
    }


def image_features(state, image):
    tower = 'vision_tower._vision_tower.vision_model.'
    tokens = tower_features(image.double(), state, tower, 3, 2, 4, clip=False)[1:]
    hidden = F.gelu(linear(tokens, state, 'connector._connector.0'))
    return linear(hidden, state, 'connector._connector.2')


def forward(state, before, image, after, mamba):
    """Logits ``[L, V]`` of words, an image and words."""
    state = double(state)
    words = state['language_model.model.embed_tokens.weight']
    x = torch.cat((words[before], image_features(state, image), words[after]))
    for i in range(LAYERS):
        at = f'language_model.model.layers.{i}.'
        u = layer_norm(x, state, f'{at}input_layernorm', 1e-5)
        hidden = linear(u, state, f'{at}mlp.fc1')
        hidden = F.gelu(hidden, approximate='tanh')
        x = x + linear(hidden, state, f'{at}mlp.fc2')
        if mamba and i not in KEPT:
            x = x + mamba_in_llama_layer(u, state, f'{at}mamba.', H, H)
            continue
        q, k, v = (
            linear(u, state, f'{at}self_attn.{name}_proj').reshape(len(u), H, D)
            for name in 'qkv'
        )
        mixed = attend(rotate(q, 1e4, D // 2), rotate(k, 1e4, D // 2), v)
        x = x + linear(mixed, state, f'{at}self_attn.dense')
    x = layer_norm(x, state, 'language_model.model.final_layernorm', 1e-5)
    return linear(x, state, 'language_model.lm_head')


def write(folder, mamba, seed=0, config=CONFIG, **fields):
    files = dict(mamba_config=MAMBA_CONFIG | fields) if mamba else {}
    return write_folder(folder, config, random_state(shapes(mamba), seed), **files)


BEFORE, AFTER = torch.tensor([1, 7, 9]), torch.tensor([11, 4, 30, 2])


def inputs_of(model):
    image = torch.full((TOKENS,), model.config.image_token_id)
    pixels = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(5))
    ids = torch.cat((BEFORE, image, AFTER))[None]
    return dict(input_ids=ids, pixel_values=pixels)


@pytest.mark.parametrize('mamba', [False, True], ids=['TinyLLaVA', 'MaTVLM'])
def test_the_logits_are_those_of_the_published_forward(tmp_path, mamba):
    folder = write(tmp_path / 'published', mamba)
    model = mmtransmamba.load(folder)
    inputs = inputs_of(model)
    with torch.no_grad():
        logits = model(**inputs).logits[0, :, :VOCAB].double()
    expected = forward(
        load_file(folder / 'model.safetensors'),
        BEFORE,
        inputs['pixel_values'][0],
        AFTER,
        mamba,
    )
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert model.config.image_seq_length == TOKENS
    model.save_pretrained(tmp_path / 'ours')
    again = mmtransmamba.load(tmp_path / 'ours')
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize('mamba', [False, True], ids=['TinyLLaVA', 'MaTVLM'])
def test_a_config_with_every_field_is_read(tmp_path, mamba):
    """As the published code writes it, with null for most defaults."""
    config = CONFIG | dict(
        text_config=BASE_FIELDS | dict(tie_word_embeddings=False) | TEXT,
        vision_config=BASE_FIELDS | CONFIG['vision_config'],
        cache_dir=None,
        hybrid_model_name_or_path=None,
        vision_model_name_or_path2=None,
        pad_token='<|endoftext|>',
        tune_type_llm='full',
        vision_feature_select_strategy=None,
        image_aspect_ratio=None,
    )
    nulls = dict.fromkeys(('vocab_size', 'bidirectional', 'is_bias'))
    folder = write(tmp_path / 'published', mamba, config=config, **nulls)
    model = mmtransmamba.load(folder)
    inputs = inputs_of(model)
    with torch.no_grad():
        logits = model(**inputs).logits[0, :, :VOCAB].double()
    state = load_file(folder / 'model.safetensors')
    expected = forward(state, BEFORE, inputs['pixel_values'][0], AFTER, mamba)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_parts_of_different_dtypes_get_that_of_the_words(tmp_path, dtype):
    folder = write(tmp_path / 'published', mamba=True)
    state = load_file(folder / 'model.safetensors')
    for name in state:
        if name.startswith('language_model.'):
            state[name] = state[name].to(dtype)
    save_file(state, folder / 'model.safetensors')
    model = mmtransmamba.load(folder)
    exact = ('A_log', 'D', 'dt_bias')
    for name, parameter in model.named_parameters():
        wanted = torch.float32 if name.rpartition('.')[2] in exact else dtype
        assert parameter.dtype == wanted, name
    assert model(**inputs_of(model)).logits.dtype == dtype


def test_a_folder_from_before_the_fine_tuning_has_its_parts_apart(tmp_path):
    whole = write(tmp_path / 'whole', mamba=False)
    state = load_file(whole / 'model.safetensors')
    parts = tmp_path / 'parts'
    write_folder(parts, CONFIG, {})
    (parts / 'model.safetensors').unlink()
    for name, prefix in (
        ('language_model', 'language_model.'),
        ('vision_tower', 'vision_tower._vision_tower.'),
        ('connector', 'connector.'),
    ):
        (parts / name).mkdir()
        part = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        torch.save(part, parts / name / 'pytorch_model.bin')
    model, other = mmtransmamba.load(whole), mmtransmamba.load(parts)
    inputs = inputs_of(model)
    assert torch.equal(model(**inputs).logits, other(**inputs).logits)


def test_a_published_teacher_is_converted_and_trained_like_any_other(tmp_path):
    folder = write(tmp_path / 'published', mamba=False)
    teacher = VisionLanguageModel(path=str(folder))
    student, _ = convert(folder, layers=[0, 2], init='vkq')
    assert student.config.text_config.mamba_layers == [0, 2]
    inputs = inputs_of(student)
    loss = student(**inputs, labels=inputs['input_ids']).loss
    assert torch.isfinite(loss)
    assert teacher.lm(**inputs).logits.shape == (1, 15, VOCAB + 1)
    projector = 'model.multi_modal_projector.linear_2.weight'
    assert torch.equal(
        student.state_dict()[projector], teacher.lm.state_dict()[projector]
    )


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(connector_type='qformer'), "connector_type='qformer'"),
        (dict(image_aspect_ratio='anyres'), "image_aspect_ratio='anyres'"),
        (dict(hidden_size=64), 'hidden_size=64 cannot be read; it must be 32'),
        (dict(vision_hidden_size=64), 'vision_hidden_size=64'),
        (dict(vocab_size=61), 'vocab_size=61'),
        (dict(vision_model_name_or_path2='dino'), 'vision_model_name_or_path2'),
        (dict(vision_feature_select_strategy='mean'), "strategy='mean'"),
        (dict(vision_feature_layer=-9), 'layer -9'),
        (dict(text_config=None), 'text_config=None must be a dict'),
        (
            dict(vision_config=dict(CONFIG['vision_config'], model_type='dinov2')),
            "vision_config: model_type='dinov2'",
        ),
        (
            dict(text_config=dict(CONFIG['text_config'], model_type='gemma')),
            "text_config: model_type='gemma'",
        ),
    ],
)
def test_a_field_that_contradicts_is_refused_by_name(tmp_path, fields, message):
    folder = write(tmp_path / 'published', mamba=False, config=CONFIG | fields)
    with pytest.raises(ValueError, match=message) as caught:
        mmtransmamba.load(folder)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'shape', 'message'),
    [
        ('connector._connector.0.weight', (C, 8), 'another shape: connector'),
        ('connector._connector.4.weight', (C, C), 'unexpected: connector'),
        ('language_model.lm_head.bias', None, 'missing: language_model.lm_head'),
        ('language_model.model.layers.0.mamba.in_proj.bias', (4 * C + H,), 'in_proj'),
        ('vision_tower._vision_tower.vision_model.post_layernorm.bias', None, 'miss'),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(tmp_path, name, shape, message):
    folder = write(tmp_path / 'published', mamba=True)
    state = load_file(folder / 'model.safetensors')
    state.pop(name, None)
    if shape is not None:
        state[name] = torch.ones(shape)
    save_file(state, folder / 'model.safetensors')
    with pytest.raises(CheckpointError, match=message) as caught:
        mmtransmamba.load(folder)
    assert '\n' not in str(caught.value)


def test_a_vision_language_folder_is_not_taken_for_a_language_model(tmp_path):
    folder = write(tmp_path / 'published', mamba=True)
    with pytest.raises(ValueError, match='must be a causal language model'):
        load_lm(folder)
    config = json.loads((folder / 'config.json').read_text('utf-8'))
    assert config['model_type'] == 'tinyllava'


def test_a_prompt_has_the_tokens_of_an_image_without_its_first_patch(tmp_path):
    folder = write(tmp_path / 'published', mamba=True)
    check_prompt(folder, TOKENS, corner=1.0)  # resized to a square
