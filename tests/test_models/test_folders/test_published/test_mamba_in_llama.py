"""Folders of Mamba2InLlama, written from the published names and shapes."""

import json

import pytest
import torch
from published_folders import (
    mamba_in_llama_shapes,
    prefixed,
    random_state,
    write_folder,
)
from published_math import (
    attend,
    double,
    linear,
    llama_mlp,
    mamba1_in_llama_layer,
    mamba_in_llama_layer,
    rms_norm,
    rotate,
)
from safetensors.torch import load_file, save_file

import mmtransmamba
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.transfer import LanguageDistiller

C, H, KV, D, MLP, VOCAB, LAYERS = 32, 4, 2, 8, 48, 60, 3
EPS, THETA = 1e-6, 500.0
KEPT = [1]
CONFIG = dict(
    model_type='llama',
    architectures=['LlamaForCausalLM'],
    auto_map={'AutoModelForCausalLM': 'evil.Model'},
    _name_or_path='/somewhere/llama',
    hidden_size=C,
    num_attention_heads=H,
    num_key_value_heads=KV,
    intermediate_size=MLP,
    num_hidden_layers=LAYERS,
    vocab_size=VOCAB,
    hidden_act='silu',
    rms_norm_eps=EPS,
    rope_theta=THETA,
    max_position_embeddings=64,
    tie_word_embeddings=False,
    torch_dtype='float32',
)
MAMBA_CONFIG = dict(
    d_model=C,
    d_inner=C,
    d_xb=KV * D,
    ssm_cfg=dict(expand=1, ngroups=H, d_state=D),
    rms_norm_eps=EPS,
    intermediate_size=MLP,
    hidden_act='silu',
    n_layer=LAYERS,
    vocab_size=VOCAB,
    attn_layers=KEPT,
)


MAMBA1 = dict(
    in_proj_x=(KV * D, C),
    in_proj_z=(C, C),
    B_proj=(KV * D, C),
    C_proj=(C, C),
    dt_proj_down=(C // 16, C),
    dt_proj=(C, C // 16),
    conv1d=(C, 1, 4),
    out_proj=(C, C),
)


def mamba1_shapes():
    table = {f'{name}.weight': shape for name, shape in MAMBA1.items()}
    biases = {f'{name}.bias': (C,) for name in ('dt_proj', 'conv1d')}
    return table | biases | {'A_log': (C, 16), 'D': (C,)}


def shapes(tied=False, mamba1=False):
    table = {
        'model.embed_tokens.weight': (VOCAB, C),
        'model.norm.weight': (C,),
    }
    if not tied:
        table['lm_head.weight'] = (VOCAB, C)
    for i in range(LAYERS):
        at = f'model.layers.{i}.'
        table |= {
            f'{at}input_layernorm.weight': (C,),
            f'{at}post_attention_layernorm.weight': (C,),
            f'{at}mlp.gate_proj.weight': (MLP, C),
            f'{at}mlp.up_proj.weight': (MLP, C),
            f'{at}mlp.down_proj.weight': (C, MLP),
        }
        if i in KEPT:
            table |= {
                f'{at}self_attn.q_proj.weight': (H * D, C),
                f'{at}self_attn.k_proj.weight': (KV * D, C),
                f'{at}self_attn.v_proj.weight': (KV * D, C),
                f'{at}self_attn.o_proj.weight': (C, H * D),
            }
        else:
            mixer = mamba1_shapes() if mamba1 else mamba_in_llama_shapes(C, H, KV)
            table |= prefixed(f'{at}mamba.', mixer)
    return table


def forward(state, ids):
    state = double(state)
    x = state['model.embed_tokens.weight'][ids]
    for i in range(LAYERS):
        at = f'model.layers.{i}.'
        u = rms_norm(x, state[f'{at}input_layernorm.weight'], EPS)
        if i in KEPT:
            q, k, v = (
                linear(u, state, f'{at}self_attn.{name}_proj').reshape(len(ids), -1, D)
                for name in 'qkv'
            )
            mixed = attend(rotate(q, THETA), rotate(k, THETA), v)
            x = x + linear(mixed, state, f'{at}self_attn.o_proj')
        else:
            if f'{at}mamba.in_proj_x.weight' in state:
                x = x + mamba1_in_llama_layer(u, state, f'{at}mamba.')
            else:
                x = x + mamba_in_llama_layer(u, state, f'{at}mamba.', H, KV)
        u = rms_norm(x, state[f'{at}post_attention_layernorm.weight'], EPS)
        names = (f'{at}mlp.{name}_proj' for name in ('gate', 'up', 'down'))
        x = x + llama_mlp(u, state, *names)
    x = rms_norm(x, state['model.norm.weight'], EPS)
    head = state.get('lm_head.weight', state['model.embed_tokens.weight'])
    return x @ head.T


@pytest.fixture
def folder(tmp_path):
    return write_folder(
        tmp_path / 'published',
        CONFIG,
        random_state(shapes()),
        mamba_config=MAMBA_CONFIG,
    )


def rewrite(folder, file, **fields):
    path = folder / f'{file}.json'
    path.write_text(json.dumps(json.loads(path.read_text('utf-8')) | fields), 'utf-8')


@pytest.fixture
def mamba1_folder(tmp_path):
    state = random_state(shapes(mamba1=True))
    config = MAMBA_CONFIG | dict(ssm_cfg=dict(expand=1))
    return write_folder(tmp_path / 'mamba1', CONFIG, state, mamba_config=config)


IDS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 35, 8])


@pytest.mark.parametrize('fixture', ['folder', 'mamba1_folder'])
def test_the_logits_are_those_of_the_published_forward(request, fixture):
    folder = request.getfixturevalue(fixture)
    model = mmtransmamba.load(folder)
    expected = forward(load_file(folder / 'model.safetensors'), IDS)
    with torch.no_grad():
        logits = model(IDS[None]).logits[0]
        split = model.generate(IDS[None, :4], max_new_tokens=5, do_sample=False)
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=1e-4)
    greedy = IDS[:4].tolist()
    for _ in range(5):
        state = load_file(folder / 'model.safetensors')
        greedy.append(int(forward(state, torch.tensor(greedy))[-1].argmax()))
    assert split[0].tolist() == greedy
    assert model.config.mamba_layers == [0, 2]


def test_a_tied_head_may_be_missing_or_there(tmp_path):
    config = CONFIG | dict(tie_word_embeddings=True)
    state = random_state(shapes(tied=True))
    for name, extra in (
        ('without', {}),
        ('with', {'lm_head.weight': state['model.embed_tokens.weight'].clone()}),
    ):
        folder = write_folder(
            tmp_path / name, config, state | extra, mamba_config=MAMBA_CONFIG
        )
        logits = mmtransmamba.load(folder)(IDS[None]).logits[0].detach()
        torch.testing.assert_close(
            logits.double(), forward(state, IDS), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize('mamba1', [False, True], ids=['Mamba-2', 'Mamba-1'])
def test_fields_without_a_value_are_the_defaults(tmp_path, mamba1):
    """The published code gives no vocab_size, and so writes null."""
    state = random_state(shapes(mamba1=mamba1))
    fields = dict.fromkeys(
        ('vocab_size', 'd_inner', 'rms_norm_eps', 'hidden_act', 'bidirectional')
    )
    ssm = dict(expand=1, d_conv=None) if mamba1 else MAMBA_CONFIG['ssm_cfg']
    folder = write_folder(
        tmp_path / 'published',
        CONFIG,
        state,
        mamba_config=MAMBA_CONFIG | fields | dict(ssm_cfg=ssm),
    )
    with torch.no_grad():
        logits = mmtransmamba.load(folder)(input_ids=IDS[None]).logits[0]
    expected = forward(state, IDS)
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=1e-4)


def test_half_precision_keeps_the_parameters_of_the_recurrence_in_float32(tmp_path):
    state = {k: v.bfloat16() for k, v in random_state(shapes()).items()}
    model = mmtransmamba.load(
        write_folder(tmp_path / 'bf16', CONFIG, state, mamba_config=MAMBA_CONFIG)
    )
    mixer = model.model.layers[0].self_attn
    assert mixer.A_log.dtype == mixer.dt_bias.dtype == mixer.D.dtype == torch.float32
    assert mixer.x_proj.weight.dtype == model.lm_head.weight.dtype == torch.bfloat16
    # It can be saved and is then an ordinary folder of this package.
    model.save_pretrained(tmp_path / 'saved')
    again = mmtransmamba.load(tmp_path / 'saved')
    assert torch.equal(again(IDS[None]).logits, model(IDS[None]).logits)


def test_a_published_hybrid_can_be_a_teacher_in_a_config(folder):
    part = dict(type='mmtransmamba.CausalLM', path=str(folder))
    distiller = LanguageDistiller(
        student=dict(part),
        teacher=dict(part),
        terms=dict(kl=dict(type='mmtransmamba.TokenKLTerm')),
    )
    losses = distiller(input_ids=IDS[None], labels=IDS[None], mode='loss')
    assert sum(losses.values()).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ('file', 'fields', 'message'),
    [
        ('config', dict(model_type='gemma'), "model_type='gemma'"),
        ('mamba_config', dict(d_xb=32), 'd_xb=32 cannot be read; it must be 16'),
        ('mamba_config', dict(d_inner=64), 'd_inner=64'),
        ('mamba_config', dict(n_layer=4), 'n_layer=4'),
        ('mamba_config', dict(rms_norm_eps=1e-5), 'rms_norm_eps=1e-05'),
        ('mamba_config', dict(is_bias=True), 'is_bias=True'),
        ('mamba_config', dict(attn_layers=[1, 3]), 'attn_layers'),
        ('mamba_config', dict(attn_layers=None), 'attn_layers'),
        (
            'mamba_config',
            dict(ssm_cfg=dict(expand=1, ngroups=2, d_state=8)),
            'ngroups=2',
        ),
    ],
)
def test_a_field_that_contradicts_is_refused_by_name(folder, file, fields, message):
    rewrite(folder, file, **fields)
    with pytest.raises(ValueError, match=message) as caught:
        mmtransmamba.load(folder)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('model.layers.2.mamba.D'), 'missing: model.layers.2.mamba.D'),
        (
            lambda s: s.update({'model.layers.0.mamba.in_proj.bias': torch.ones(100)}),
            'unexpected: model.layers.0.mamba.in_proj.bias',
        ),
        (
            lambda s: s.update(
                {'model.layers.0.mamba.conv1d.weight': torch.ones(64, 1, 2)}
            ),
            r'conv1d.weight \(file \[64, 1, 2\], config \[64, 1, 4\]\)',
        ),
        (
            lambda s: s.update({'model.norm.weight': torch.ones(C).int()}),
            'model.norm.weight has integers',
        ),
        (
            lambda s: s.update({'lm_head.weight': torch.full((VOCAB, C), torch.nan)}),
            'lm_head.weight',
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(folder, change, message):
    state = load_file(folder / 'model.safetensors')
    change(state)
    save_file(state, folder / 'model.safetensors')
    with pytest.raises(CheckpointError, match=message) as caught:
        mmtransmamba.load(folder)
    assert '\n' not in str(caught.value)


def test_mamba1_layers_in_half_precision_keep_steps_in_float32(mamba1_folder):
    state = load_file(mamba1_folder / 'model.safetensors')
    half = {name: tensor.bfloat16() for name, tensor in state.items()}
    save_file(half, mamba1_folder / 'model.safetensors')
    mixer = mmtransmamba.load(mamba1_folder).model.layers[0].self_attn
    bias = half['model.layers.0.mamba.dt_proj.bias'].float()
    assert torch.equal(mixer.dt_proj.bias, 2 * bias)
    assert mixer.A_log.dtype == mixer.D.dtype == mixer.dt_proj.bias.dtype


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(d_conv=2), 'd_conv=2'),
        (dict(repeat_kv_before_conv=False), 'repeat_kv_before_conv=False'),
        (dict(dt_rank=5), 'dt_rank=5 cannot be read; it must be .auto. or 2'),
        (dict(proj_x_bias=True), 'proj_x_bias=True'),
        (dict(d_state=5), 'd_state=5 of MambaInLlama must divide'),
    ],
)
def test_a_field_of_mamba1_that_contradicts_is_refused(mamba1_folder, fields, message):
    rewrite(mamba1_folder, 'mamba_config', ssm_cfg=dict(expand=1) | fields)
    with pytest.raises(ValueError, match=message) as caught:
        mmtransmamba.load(mamba1_folder)
    assert '\n' not in str(caught.value)


def test_one_file_of_mamba1_without_its_bias_is_refused(mamba1_folder):
    state = load_file(mamba1_folder / 'model.safetensors')
    del state['model.layers.2.mamba.dt_proj.bias']
    save_file(state, mamba1_folder / 'model.safetensors')
    with pytest.raises(CheckpointError, match=r'missing: .*2.mamba.dt_proj.bias'):
        mmtransmamba.load(mamba1_folder)
