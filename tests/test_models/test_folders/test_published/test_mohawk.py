"""Folders of Phi-Mamba and Llamba, written from the published names and shapes."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from published_folders import random_state, with_biases, write_folder
from published_math import (
    discrete_mamba2_layer,
    double,
    layer_norm,
    linear,
    llama_mlp,
    rms_norm,
)
from safetensors.torch import load_file, save_file
from tiny_vlms import tiny_tokenizer

import mmtransmamba
from mmtransmamba.apis.lm_benchmarks import evaluate_lm
from mmtransmamba.models.checkpoint import CheckpointError

C, H, N, MLP, WORDS, LAYERS = 32, 4, 6, 48, 101, 3
VOCAB = 104  # padded to a multiple of 8
SSM = dict(
    d_state=N,
    n_v_heads=H,
    n_qk_heads=H,
    expand=1,
    chunk_size=128,
    activation='identity',
    bias=False,
)
LLAMBA = dict(
    model_type='llamba',
    auto_map={'AutoModel': 'modeling_llamba.Evil'},
    vocab_size=WORDS,
    pad_vocab_size_multiple=8,
    tie_embeddings=False,
    lm_head_bias=False,
    d_model=C,
    n_layer=LAYERS,
    resid_dropout=0.0,
    norm_epsilon=1e-5,
    mlp_cfg=dict(intermediate_size=MLP, bias=False, act_fn='silu'),
    ssm_cfg=SSM,
)
PHI = dict(
    LanguageModel=dict(input=dict(vocab_size=WORDS, pad_vocab_size_multiple=8)),
    MixerModel=dict(input=dict(d_model=C, n_layer=LAYERS, lm_head_prenorm='layer')),
    Block1=dict(
        n_layers=LAYERS,
        BlockType='modules.phi_block',
        block_input=dict(resid_dropout=0.0),
        CoreType='modules.mixers.discrete_mamba2',
        core_input=SSM | dict(d_conv=4, conv_bias=True),
    ),
)


def mixer_shapes(at):
    keys = H * N
    return {
        f'{at}in_proj.weight': (2 * C + 2 * keys + H, C),
        f'{at}z_bias': (C,),
        f'{at}conv1d.weight': (C + 2 * keys, 1, 4),
        f'{at}conv1d.bias': (C + 2 * keys,),
        f'{at}D': (H,),
        f'{at}out_proj.weight': (C, C),
    }


def llamba_shapes(tied=False):
    table = {
        'backbone.embedding.weight': (VOCAB, C),
        'backbone.final_layernorm.weight': (C,),
    }
    if not tied:
        table['lm_head.weight'] = (VOCAB, C)
    for i in range(LAYERS):
        at = f'backbone.layers.{i}.'
        table |= mixer_shapes(f'{at}mixer.') | {
            f'{at}input_layernorm.weight': (C,),
            f'{at}post_attention_layernorm.weight': (C,),
            f'{at}mlp.gate_proj.weight': (MLP, C),
            f'{at}mlp.up_proj.weight': (MLP, C),
            f'{at}mlp.down_proj.weight': (C, MLP),
        }
    return table


def phi_shapes():
    linears = {'lm_head': (VOCAB, C)}
    table = {'backbone.embedding.weight': (VOCAB, C)}
    norms = ['backbone.final_layernorm']
    for i in range(LAYERS):
        at = f'backbone.layers.{i}.'
        table |= mixer_shapes(f'{at}mixer.')
        norms.append(f'{at}input_layernorm')
        linears |= {f'{at}mlp.fc1': (4 * C, C), f'{at}mlp.fc2': (C, 4 * C)}
    return table | with_biases(linears) | with_biases(dict.fromkeys(norms, (C,)))


def llamba_forward(state, ids):
    state = double(state)
    x = state['backbone.embedding.weight'][ids]
    for i in range(LAYERS):
        at = f'backbone.layers.{i}.'
        u = rms_norm(x, state[f'{at}input_layernorm.weight'], 1e-5)
        x = x + discrete_mamba2_layer(u, state, f'{at}mixer.', H, N)
        u = rms_norm(x, state[f'{at}post_attention_layernorm.weight'], 1e-5)
        names = (f'{at}mlp.{name}_proj' for name in ('gate', 'up', 'down'))
        x = x + llama_mlp(u, state, *names)
    x = rms_norm(x, state['backbone.final_layernorm.weight'], 1e-5)
    return x @ state.get('lm_head.weight', state['backbone.embedding.weight']).T


def phi_forward(state, ids):
    state = double(state)
    x = state['backbone.embedding.weight'][ids]
    for i in range(LAYERS):
        at = f'backbone.layers.{i}.'
        u = layer_norm(x, state, f'{at}input_layernorm', 1e-5)
        mixed = discrete_mamba2_layer(u, state, f'{at}mixer.', H, N)
        hidden = F.gelu(linear(u, state, f'{at}mlp.fc1'), approximate='tanh')
        x = x + mixed + linear(hidden, state, f'{at}mlp.fc2')
    x = layer_norm(x, state, 'backbone.final_layernorm', 1e-5)
    return linear(x, state, 'lm_head')


KINDS = {
    'Llamba': (LLAMBA, llamba_shapes, llamba_forward, 'HybridLlamaForCausalLM'),
    'Phi-Mamba': (PHI, phi_shapes, phi_forward, 'HybridPhiForCausalLM'),
}
IDS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 35, 8])


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def folder(tmp_path, kind):
    config, shapes, *_ = KINDS[kind]
    return write_folder(tmp_path / 'published', config, random_state(shapes()))


@pytest.mark.parametrize('container', ['safetensors', 'bin'])
def test_the_logits_are_those_of_the_published_forward(folder, kind, container):
    *_, forward, name = KINDS[kind]
    state = load_file(folder / 'model.safetensors')
    if container == 'bin':
        (folder / 'model.safetensors').unlink()
        torch.save(state, folder / 'pytorch_model.bin')
    model = mmtransmamba.load(folder)
    assert type(model).__name__ == name
    with torch.no_grad():
        logits = model(IDS[None]).logits[0]
        split = model.generate(IDS[None, :4], max_new_tokens=5, do_sample=False)
    expected = forward(state, IDS)
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=1e-4)
    greedy = IDS[:4].tolist()
    for _ in range(5):
        greedy.append(int(forward(state, torch.tensor(greedy))[-1].argmax()))
    assert split[0].tolist() == greedy
    model.save_pretrained(folder.parent / 'ours')
    again = mmtransmamba.load(folder.parent / 'ours')
    assert torch.equal(again(IDS[None]).logits, model(IDS[None]).logits)


@pytest.mark.parametrize('present', [False, True])
def test_a_tied_head_may_be_missing_or_there(tmp_path, present):
    config = LLAMBA | dict(tie_embeddings=True)
    state = random_state(llamba_shapes(tied=not present))
    model = mmtransmamba.load(write_folder(tmp_path / 'tied', config, state))
    state.pop('lm_head.weight', None)
    logits = model(IDS[None]).logits[0].detach()
    torch.testing.assert_close(
        logits.double(), llamba_forward(state, IDS), atol=1e-4, rtol=1e-4
    )


def test_fields_without_a_value_are_the_defaults(tmp_path, kind):
    config, shapes, forward, _ = KINDS[kind]
    for path in {
        'Llamba': ('lm_head_bias', 'norm_epsilon', 'mlp_cfg.bias', 'ssm_cfg.d_conv'),
        'Phi-Mamba': (
            'LanguageModel.input.pad_vocab_size_multiple',
            'MixerModel.input.lm_head_prenorm',
            'Block1.BlockType',
            'Block1.core_input.conv_bias',
        ),
    }[kind]:
        config = changed(config, path, None)
    state = random_state(shapes())
    model = mmtransmamba.load(write_folder(tmp_path / 'published', config, state))
    with torch.no_grad():
        logits = model(input_ids=IDS[None]).logits[0].double()
    torch.testing.assert_close(logits, forward(state, IDS), atol=1e-4, rtol=1e-4)


def test_strong_and_weak_decays_are_exact(tmp_path):
    """The scan divides by softplus(a), which is tiny for a state that is kept."""
    state = random_state(llamba_shapes())
    for i in range(LAYERS):
        state[f'backbone.layers.{i}.mixer.in_proj.weight'][-H:] *= 40
    model = mmtransmamba.load(write_folder(tmp_path / 'strong', LLAMBA, state))
    logits = model(IDS[None]).logits[0].detach()
    expected = llamba_forward(state, IDS)
    torch.testing.assert_close(logits.double(), expected, atol=5e-4, rtol=1e-3)


def changed(config, path, value):
    config = copy.deepcopy(config)
    inner = config
    *parents, last = path.split('.')
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return config


@pytest.mark.parametrize(
    ('kind', 'path', 'value', 'message'),
    [
        ('Llamba', 'lm_head_bias', True, 'lm_head_bias=True'),
        ('Llamba', 'norm_epsilon', 1e-6, 'norm_epsilon=1e-06'),
        ('Llamba', 'd_model', None, 'd_model=None'),
        ('Llamba', 'mlp_cfg.act_fn', 'gelu', "mlp_cfg: act_fn='gelu'"),
        ('Llamba', 'ssm_cfg.n_qk_heads', 2, 'ssm_cfg: n_qk_heads=2'),
        ('Llamba', 'ssm_cfg.expand', 2, 'ssm_cfg: expand=2'),
        ('Llamba', 'ssm_cfg.bias', True, 'ssm_cfg: bias=True'),
        ('Llamba', 'ssm_cfg.activation', 'relu', "activation='relu'"),
        ('Llamba', 'ssm_cfg.d_state', 0, 'd_state=0 must be a whole number'),
        ('Llamba', 'ssm_cfg', SSM | dict(n_v_heads=5, n_qk_heads=5), 'must divide'),
        ('Llamba', 'pad_vocab_size_multiple', 0, 'pad_vocab_size_multiple=0'),
        ('Phi-Mamba', 'Block1.CoreType', 'modules.mixers.phi_attention', 'CoreType='),
        ('Phi-Mamba', 'Block1.n_layers', 2, 'n_layer=3, but Block1 have 2 layers'),
        (
            'Phi-Mamba',
            'Block2',
            dict(PHI['Block1'], core_input=SSM | dict(d_state=8)),
            'one core_input',
        ),
        ('Phi-Mamba', 'MixerModel.input.lm_head_prenorm', 'rms', "prenorm='rms'"),
    ],
)
def test_a_field_that_contradicts_is_refused_by_name(
    tmp_path, kind, path, value, message
):
    config, shapes, *_ = KINDS[kind]
    folder = write_folder(
        tmp_path / 'bad', changed(config, path, value), random_state(shapes())
    )
    with pytest.raises(ValueError, match=message) as caught:
        mmtransmamba.load(folder)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'shape', 'message'),
    [
        ('backbone.layers.1.mixer.z_bias', None, 'missing'),
        ('backbone.layers.0.mixer.dt_bias', (H,), 'unexpected'),
        ('backbone.layers.0.mixer.in_proj.weight', (5, C), 'another shape'),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(folder, name, shape, message):
    state = load_file(folder / 'model.safetensors')
    state.pop(name, None)
    if shape is not None:
        state[name] = torch.ones(shape)
    save_file(state, folder / 'model.safetensors')
    with pytest.raises(CheckpointError, match=f'{message}.*{name}'):
        mmtransmamba.load(folder)


def test_it_is_scored_with_a_tokenizer_that_was_put_there(tmp_path, folder, kind):
    forward = KINDS[kind][2]
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    rows = [
        dict(goal=goal, sol1=first, sol2=second, label=0)
        for goal, first, second in (
            ('Open it', 'Pull', 'Push'),
            ('Cut it', 'No', 'Yes'),
            ('Eat', 'A pie', 'A shoe'),
        )
    ]
    lines = '\n'.join(json.dumps(row) for row in rows)
    (tmp_path / 'piqa_validation.jsonl').write_text(lines)
    comparison = evaluate_lm([folder], ['piqa'], tmp_path)
    state, right = load_file(folder / 'model.safetensors'), []
    for row in rows:
        scores = []
        for choice in (row['sol1'], row['sol2']):
            before, after = (
                tokenizer.encode(text, add_special_tokens=False)
                for text in (f'Question: {row["goal"]}\nAnswer:', f' {choice}')
            )
            ids = torch.tensor(before + after)
            logs = forward(state, ids).log_softmax(-1)[len(before) - 1 : -1]
            scores.append(float(logs.gather(1, ids[len(before) :, None]).sum()))
        right.append(scores[0] > scores[1])
    (result,) = (model['piqa'] for model in comparison.results.values())
    assert result.right == tuple(right)
