"""Folders of HoVLE and mmMamba, written from the published names and shapes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from published_folders import (
    BASE_FIELDS,
    prefixed,
    random_state,
    with_biases,
    write_folder,
)
from published_math import (
    attend,
    causal_conv,
    double,
    linear,
    llama_mlp,
    patches,
    rms_norm,
    rotate,
    ssd,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import mmtransmamba
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.transfer.convert import convert
from mmtransmamba.utils.processors import load_processor

C, H, KV, D, MLP, VOCAB = 32, 4, 2, 8, 48, 60
FIRST, THEN = 2, 3
SIDE, PATCH = 16, 4
TOKENS = 4  # 4 x 4 patches, four of which make a token
IMAGE, EPS = 50, 1e-5
THETAS = (1e4, 1e6)
SIZES = dict(
    hidden_size=C,
    intermediate_size=MLP,
    num_attention_heads=H,
    num_key_value_heads=KV,
    rms_norm_eps=EPS,
    rope_scaling=dict(type='dynamic', factor=2.0),
    max_position_embeddings=64,
)
HOVLE = dict(
    model_type='internvl_chat',
    architectures=['InternVLChatModel'],
    auto_map={'AutoModel': 'modeling.Evil'},
    select_layer=-1,
    force_image_size=SIDE,
    downsample_ratio=0.5,
    template='internlm2-chat',
    dynamic_image_size=True,
    use_thumbnail=True,
    max_dynamic_patch=6,
    normalize_encoder_output=False,
    embedding_config=dict(
        SIZES,
        num_hidden_layers=FIRST,
        rope_theta=THETAS[0],
        image_size=SIDE,
        patch_size=PATCH,
        num_channels=3,
        llm_vocab_size=VOCAB,
        llm_hidden_size=C,
        special_token_maps={},
        downsample_ratio=0.5,
        pixel_shuffle_loc='pre',
        use_pixel_shuffle_proj=True,
        img_context_token_id=IMAGE,
        use_ls=False,
    ),
    llm_config=dict(
        SIZES,
        architectures=['InternLM2ForCausalLM'],
        num_hidden_layers=THEN,
        rope_theta=THETAS[1],
        vocab_size=VOCAB,
        hidden_act='silu',
        bias=False,
    ),
)
KINDS = {
    'HoVLE': ['mha'] * 5,
    'mmMamba-linear': ['mamba2'] * 5,
    'mmMamba-hybrid': ['mha', 'mamba2', 'mamba2', 'mamba2', 'mha'],
}


def config_of(model):
    config = copy.deepcopy(HOVLE)
    if model != 'HoVLE':
        config |= dict(model_type='mmMamba_chat', architectures='mmMambaChatModel')
        config['embedding_config']['layers_block_type'] = KINDS[model][:FIRST]
        config['llm_config']['layers_block_type'] = KINDS[model][FIRST:]
    return config


def layer_name(i):
    if i < FIRST:
        return f'embedding_model.encoder.{i}.'
    return f'language_model.model.layers.{i - FIRST}.'


def shapes(kinds, special=0):
    table = {
        'vision_embeddings.class_embedding': (1, 1, C),
        'vision_embeddings.patch_embedding.weight': (C, 3, PATCH, PATCH),
        'vision_embeddings.patch_embedding.bias': (C,),
        'vision_embeddings.position_embedding': (1, (SIDE // PATCH) ** 2 + 1, C),
        'llm_text_embeddings.weight': (VOCAB, C),
        **with_biases(
            {'pixel_shuffle_proj.0': (C, 4 * C), 'pixel_shuffle_proj.2': (C, C)}
        ),
    }
    if special:
        table['special_text_embeddings.weight'] = (special, C)
    table = prefixed('embedding_model.', table) | {
        'language_model.model.tok_embeddings.weight': (VOCAB, C),
        'language_model.model.norm.weight': (C,),
        'language_model.output.weight': (VOCAB, C),
    }
    for i, kind in enumerate(kinds):
        layer = {
            'attention_norm.weight': (C,),
            'ffn_norm.weight': (C,),
            'feed_forward.w1.weight': (MLP, C),
            'feed_forward.w3.weight': (MLP, C),
            'feed_forward.w2.weight': (C, MLP),
        }
        if kind == 'mha':
            layer |= {
                'attention.wqkv.weight': ((H + 2 * KV) * D, C),
                'attention.wo.weight': (C, C),
            }
        else:
            layer |= {
                'attention.wvkqgdt.weight': (2 * KV * D + 2 * H * D + H, C),
                'attention.conv1d.weight': ((H + 2 * KV) * D, 1, 2),
                'attention.conv1d.bias': ((H + 2 * KV) * D,),
                'attention.A_log_bias': (H,),
                'attention.dt_bias': (H,),
                'attention.g_norm_swish_gate.weight': (D,),
                'attention.o_proj.weight': (C, H * D),
            }
        table |= prefixed(layer_name(i), layer)
    return table


def attention(u, state, at, theta):
    group = H // KV
    heads = linear(u, state, f'{at}wqkv').reshape(len(u), KV, group + 2, D)
    q = heads[:, :, :group].reshape(len(u), H, D)
    k, v = heads[:, :, -2], heads[:, :, -1]
    return linear(attend(rotate(q, theta), rotate(k, theta), v), state, f'{at}wo')


def mamba(u, state, at):
    sizes = (KV * D, KV * D, H * D, H * D, H)
    v, k, q, gate, dt = linear(u, state, f'{at}wvkqgdt').split(sizes, dim=-1)
    vkq = causal_conv(
        torch.cat((v, k, q), dim=-1),
        state[f'{at}conv1d.weight'],
        state[f'{at}conv1d.bias'],
    )
    v, k, q = (part.reshape(len(u), -1, D) for part in vkq.split(sizes[:3], dim=-1))
    served = [head // (H // KV) for head in range(H)]
    dt = F.softplus(dt + state[f'{at}dt_bias'])
    y = ssd(v[:, served], k[:, served], q, dt, state[f'{at}A_log_bias'])
    y = rms_norm(y, state[f'{at}g_norm_swish_gate.weight'], 1e-5)
    return linear(y.reshape(len(u), H * D) * F.silu(gate), state, f'{at}o_proj')


def tile_tokens(state, tile):
    at = 'embedding_model.vision_embeddings.'
    grid = SIDE // PATCH
    x = (
        patches(tile.double(), PATCH)
        @ state[f'{at}patch_embedding.weight'].flatten(1).T
    )
    x = x + state[f'{at}patch_embedding.bias'] + state[f'{at}position_embedding'][0, 1:]
    x = x.reshape(grid, grid, C)
    x = torch.stack(
        [
            torch.cat((x[i, j], x[i, j + 1], x[i + 1, j], x[i + 1, j + 1]))
            for i in range(0, grid, 2)
            for j in range(0, grid, 2)
        ]
    )
    x = F.gelu(linear(x, state, 'embedding_model.pixel_shuffle_proj.0'))
    return linear(x, state, 'embedding_model.pixel_shuffle_proj.2')


def forward(state, ids, tiles, kinds):
    state = double(state)
    words = state['embedding_model.llm_text_embeddings.weight']
    special = state.get('embedding_model.special_text_embeddings.weight', words[:0])
    x = torch.cat((words, special))[ids].clone()
    x[ids == IMAGE] = torch.cat([tile_tokens(state, tile) for tile in tiles])
    for i, kind in enumerate(kinds):
        at = layer_name(i)
        u = rms_norm(x, state[f'{at}attention_norm.weight'], EPS)
        if kind == 'mha':
            x = x + attention(u, state, f'{at}attention.', THETAS[i >= FIRST])
        else:
            x = x + mamba(u, state, f'{at}attention.')
        u = rms_norm(x, state[f'{at}ffn_norm.weight'], EPS)
        x = x + llama_mlp(u, state, *(f'{at}feed_forward.w{n}' for n in (1, 3, 2)))
    x = rms_norm(x, state['language_model.model.norm.weight'], EPS)
    return linear(x, state, 'language_model.output')


def write(folder, model='HoVLE', config=None, special=0):
    config = config or config_of(model)
    return write_folder(folder, config, random_state(shapes(KINDS[model], special)))


IDS = torch.tensor([1, 7, *[IMAGE] * TOKENS, 9, *[IMAGE] * TOKENS, 30, 2, 5])
TILES = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


SYSTEM = (
    '你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, '
    '是一个有用无害的人工智能助手。'
)
CONVERSATION = [
    dict(role='user', content=[dict(type='image'), dict(type='text', text='Why?')]),
    dict(role='assistant', content='So.'),
    dict(role='user', content='And?'),
]


def save_internlm2_tokenizer(folder, context=IMAGE):
    """As many words as HoVLE's special tokens need."""
    vocab = {f'w{i}': i for i in range(60)}
    names = ['<unk>', '<s>', '</s>', '<img>', '</img>', '<|im_start|>', '<|im_end|>']
    for number, name in enumerate(names):
        vocab.pop(f'w{number}')
        vocab[name] = number
    vocab.pop(f'w{context}')
    vocab['<IMG_CONTEXT>'] = context
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token='<unk>'))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token='<s>',
        eos_token='</s>',
        unk_token='<unk>',
        pad_token='</s>',
        extra_special_tokens=[*names[3:], '<IMG_CONTEXT>'],
    ).save_pretrained(folder)


@pytest.mark.parametrize('kind', KINDS)
def test_the_logits_are_those_of_the_published_forward(tmp_path, kind):
    folder = write(tmp_path / 'published', kind)
    model = mmtransmamba.load(folder)
    inputs = dict(input_ids=IDS[None], pixel_values=TILES)
    with torch.no_grad():
        logits = model(**inputs).logits[0]
        answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)[0]
    state = load_file(folder / 'model.safetensors')
    expected = forward(state, IDS, TILES, KINDS[kind])
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=1e-4)
    ids = IDS
    for _ in range(3):
        last = forward(state, ids, TILES, KINDS[kind])[-1]
        last[IMAGE] = -torch.inf
        ids = torch.cat((ids, last.argmax()[None]))
    assert answer.tolist() == ids.tolist()
    # As an ordinary folder of this package, with the positions of both parts.
    model.save_pretrained(tmp_path / 'ours')
    again = mmtransmamba.load(tmp_path / 'ours')
    assert torch.equal(again(**inputs).logits[0], logits)
    assert torch.equal(copy.deepcopy(again)(**inputs).logits[0], logits)


@pytest.mark.parametrize('kind', KINDS)
def test_a_config_with_every_field_is_read(tmp_path, kind):
    """As the published code writes it: the holistic part has no head to be tied."""
    config = config_of(kind)
    parts = {
        'embedding_config': dict(
            attention_bias=False,
            mlp_bias=False,
            hidden_act='silu',
            initializer_factor=1e-5,
            use_autoregressive_loss=False,
            attn_implementation='flash_attention_2',
        ),
        'llm_config': dict(
            tie_word_embeddings=False, model_type='internlm2', use_cache=False
        ),
    }
    for name, fields in parts.items():
        config[name] = BASE_FIELDS | config[name] | fields
    config |= dict.fromkeys(('_commit_hash', 'pad2square', 'force_image_size'))
    if kind != 'HoVLE':
        config['llm_config']['architectures'] = 'mmMambaForCausalLM'
    folder = write(tmp_path / 'published', kind, config)
    with torch.no_grad():
        logits = mmtransmamba.load(folder)(
            input_ids=IDS[None], pixel_values=TILES
        ).logits[0]
    state = load_file(folder / 'model.safetensors')
    expected = forward(state, IDS, TILES, KINDS[kind])
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=1e-4)


def test_tokens_after_the_vocabulary_have_embeddings_of_their_own(tmp_path):
    config = config_of('HoVLE')
    config['embedding_config']['special_token_maps'] = {'<a>': VOCAB, '<b>': VOCAB + 1}
    folder = write(tmp_path / 'published', config=config, special=2)
    ids = torch.tensor([1, VOCAB + 1, *[IMAGE] * TOKENS, VOCAB, 3])
    with torch.no_grad():
        logits = mmtransmamba.load(folder)(
            input_ids=ids[None], pixel_values=TILES[:1]
        ).logits[0, :, :VOCAB]
    state = load_file(folder / 'model.safetensors')
    expected = forward(state, ids, TILES[:1], KINDS['HoVLE'])
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=1e-4)


def test_hovle_is_converted_as_the_recipes_of_mmmamba_do(tmp_path):
    folder = write(tmp_path / 'published')
    student, report = convert(folder, ratio=1.0, init='mimic')
    assert student.config.text_config.mamba_layers == [0, 1, 2, 3, 4]
    teacher = mmtransmamba.load(folder)
    inputs = dict(input_ids=IDS[None], pixel_values=TILES)
    assert torch.isfinite(student(**inputs).logits).all()
    ours, theirs = (
        m.model.language_model.layers[3].self_attn for m in (student, teacher)
    )
    assert torch.equal(ours.x_proj.weight, theirs.v_proj.weight)
    hybrid, _ = convert(folder, layers=[1, 2], init='mimic')
    assert hybrid.config.holistic_rope == teacher.config.holistic_rope is not None


@pytest.mark.parametrize(
    ('part', 'fields', 'message'),
    [
        (None, dict(downsample_ratio=0.25), 'downsample_ratio=0.25'),
        (None, dict(normalize_encoder_output=True), 'normalize_encoder_output=True'),
        (None, dict(force_image_size=448), 'force_image_size=448'),
        (None, dict(llm_config=None), 'llm_config=None must be a dict'),
        ('embedding_config', dict(pixel_shuffle_loc='post'), "loc='post'"),
        ('embedding_config', dict(use_ls=True), 'use_ls=True'),
        ('embedding_config', dict(rms_norm_eps=1e-6), 'rms_norm_eps=1e-06'),
        ('embedding_config', dict(hidden_size=64), 'hidden_size=64'),
        ('embedding_config', dict(llm_vocab_size=61), 'llm_vocab_size=61'),
        ('embedding_config', dict(special_token_maps={'<a>': 3}), 'special_token_maps'),
        (
            'embedding_config',
            dict(img_context_token_id=92546),
            r'embedding_config: img_context_token_id=92546 must lie in \[0, 59\]',
        ),
        ('llm_config', dict(bias=True), 'llm_config: bias=True'),
        ('llm_config', dict(tie_word_embeddings=True), 'llm_config: tie_word_emb'),
        ('llm_config', dict(architectures=['Phi3ForCausalLM']), "='Phi3ForCausalLM'"),
        ('llm_config', dict(architectures='Qwen2ForCausalLM'), "='Qwen2ForCausalLM'"),
        (
            'llm_config',
            dict(layers_block_type=['mha'] * 3),
            'layers_block_type=None must be a list',
        ),
        ('llm_config', dict(rope_scaling=dict(type='yarn')), 'rope_scaling'),
        ('llm_config', dict(num_hidden_layers='3'), "num_hidden_layers='3'"),
    ],
)
def test_a_field_that_contradicts_is_refused_by_name(tmp_path, part, fields, message):
    config = config_of('HoVLE')
    (config if part is None else config[part]).update(fields)
    folder = write(tmp_path / 'published', config=config)
    with pytest.raises(ValueError, match=message) as caught:
        mmtransmamba.load(folder)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('kinds', [['mamba2', 'mha'], ['mamba2'] * 2 + ['gla'], None])
def test_kinds_of_layers_are_checked(tmp_path, kinds):
    config = config_of('mmMamba-linear')
    config['llm_config']['layers_block_type'] = kinds
    with pytest.raises(ValueError, match='layers_block_type'):
        mmtransmamba.load(write(tmp_path / 'published', 'mmMamba-linear', config))


@pytest.mark.parametrize(
    ('name', 'shape', 'message'),
    [
        ('language_model.model.layers.0.attention.wqkv.weight', (64, C), 'unexpected'),
        ('language_model.model.layers.0.attention.dt_bias', (C,), 'another shape'),
        ('embedding_model.pixel_shuffle_proj.0.weight', (C, C), 'another shape'),
        ('embedding_model.vision_embeddings.position_embedding', (1, 16, C), 'shape'),
        ('embedding_model.encoder.0.ls1', (C,), 'unexpected'),
        ('language_model.output.weight', None, 'missing'),
        ('language_model.model.tok_embeddings.weight', (3, C), 'another shape'),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(tmp_path, name, shape, message):
    folder = write(tmp_path / 'published', 'mmMamba-linear')
    state = load_file(folder / 'model.safetensors')
    state.pop(name, None)
    if shape is not None:
        state[name] = torch.ones(shape)
    save_file(state, folder / 'model.safetensors')
    with pytest.raises(CheckpointError, match=f'{message}.*{name}') as caught:
        mmtransmamba.load(folder)
    assert '\n' not in str(caught.value)


def test_hovle_writes_internlm2s_conversation_and_cuts_images_into_tiles(tmp_path):
    folder = write(tmp_path / 'published')
    save_internlm2_tokenizer(folder)
    processor = load_processor(folder)
    text = processor.apply_chat_template(CONVERSATION, add_generation_prompt=True)
    assert text == (
        f'<s><|im_start|>system\n{SYSTEM}<|im_end|><|im_start|>user\n<img><IMG_CONTEXT>'
        '</img>\nWhy?<|im_end|><|im_start|>assistant\nSo.<|im_end|><|im_start|>user\n'
        'And?<|im_end|><|im_start|>assistant\n'
    )
    assert processor.max_tiles == 6 and processor.thumbnail
    # Two tiles side by side and the small version of the whole.
    inputs = processor(
        images=Image.new('RGB', (2 * SIDE, SIDE), (255, 0, 0)),
        text=text,
        add_special_tokens=False,
        return_tensors='pt',
    )
    assert inputs['pixel_values'].shape == (3, 3, SIDE, SIDE)
    colour = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(
        inputs['pixel_values'][0, :, 3, 3], colour, atol=1e-5, rtol=1e-5
    )
    ids = inputs['input_ids'][0].tolist()
    first = ids.index(3)
    assert ids[first : first + 3 * TOKENS + 2] == [3, *[IMAGE] * 3 * TOKENS, 4]
    assert ids.count(IMAGE) == 3 * TOKENS
    model = mmtransmamba.load(folder)
    assert torch.isfinite(model(**inputs).logits).all()
    assert model.generation_config.suppress_tokens == [IMAGE]


def test_answers_end_at_the_published_numbers_of_tokens(tmp_path, monkeypatch):
    """As many words as published: ``</s>`` and ``<|im_end|>`` end an answer."""
    monkeypatch.setitem(globals(), 'VOCAB', 92553)
    config = config_of('HoVLE')
    config['llm_config']['vocab_size'] = 92553
    config['embedding_config'] |= dict(llm_vocab_size=92553, img_context_token_id=92546)
    settings = mmtransmamba.load(write(tmp_path, config=config)).generation_config
    assert settings.eos_token_id == [2, 92542]
    assert settings.suppress_tokens == [92546]


def test_hovle_needs_a_tokenizer_that_is_not_code(tmp_path):
    folder = write(tmp_path / 'published')
    with pytest.raises(ValueError, match=r'no tokenizer\.json'):
        load_processor(folder)
    save_internlm2_tokenizer(folder, context=51)
    with pytest.raises(ValueError, match='img_context_token_id=50.*51'):
        load_processor(folder)
    config = config_of('HoVLE') | dict(template='Hermes-2')
    write(folder, config=config)
    with pytest.raises(ValueError, match="template='Hermes-2'"):
        load_processor(folder)
