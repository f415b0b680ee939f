"""Conversion of decoders: what is inherited, and what function comes of it."""

import re

import pytest
import torch
import torch.nn.functional as F
from tiny_decoders import FAMILIES, tiny_teacher, tokens
from torch import nn
from transformers import AutoModelForCausalLM

from mmtransmamba.models.language import MAMBA, HybridLlamaConfig, MambaMixer
from mmtransmamba.transfer.convert import convert
from mmtransmamba.utils.choices import INITS


def attention_outputs(layer):
    return getattr(layer.self_attn, 'o_proj', None) or layer.self_attn.dense


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('init', ['mimic', 'inherit', 'vkq'])
def test_projections_come_from_the_attention(family, init):
    teacher = tiny_teacher(family)
    hybrid, report = convert(teacher, [1], init=init)
    attention = teacher.model.layers[1].self_attn
    mixer = hybrid.model.layers[1].self_attn
    pairs = {
        'x_proj': attention.v_proj,
        'B_proj': attention.k_proj,
        'C_proj': attention.q_proj,
        'out_proj': attention_outputs(teacher.model.layers[1]),
    }
    for name, source in pairs.items():
        module = getattr(mixer, name)
        assert torch.equal(module.weight, source.weight), name
        assert (module.bias is None) == (source.bias is None), name
        if source.bias is not None:
            assert torch.equal(module.bias, source.bias), name
    if family == 'qwen3':
        assert torch.equal(mixer.B_norm.weight, attention.k_norm.weight)
        assert torch.equal(mixer.C_norm.weight, attention.q_norm.weight)
    assert not report.unused
    assert {e.action for e in report.entries if e.source} == {'copied'}
    assert hybrid.config.transfer_history == [f'init:{init}']


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('init', INITS)
def test_all_but_the_mixers_is_the_teachers(family, init):
    teacher = tiny_teacher(family)
    text = dict(calibration=[tokens(3)]) if init == 'calibrate' else {}
    hybrid, _ = convert(teacher, 'late', 1 / 3, init, **text)
    assert hybrid.config.mamba_layers == [2]
    state = hybrid.state_dict()
    for name, tensor in teacher.state_dict().items():
        if 'layers.2.self_attn' not in name:
            assert torch.equal(state[name], tensor), name
    # Layers before the first mixer compute what they did.
    ids = tokens()
    seen = [
        model(ids, output_hidden_states=True).hidden_states[2]
        for model in (teacher, hybrid)
    ]
    torch.testing.assert_close(seen[1], seen[0])


def linear_attention(attention, x, group):
    """Causal linear attention of an attention module's q, k and v, in float64."""
    x = x.double()
    parts = [
        F.linear(x, m.weight.double(), None if m.bias is None else m.bias.double())
        for m in (attention.q_proj, attention.k_proj, attention.v_proj)
    ]
    q, k, v = (p.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for p in parts)
    k, v = (p.repeat_interleave(group, dim=1) for p in (k, v))
    y = ((q @ k.transpose(-1, -2)).tril() @ v).transpose(1, 2).flatten(2)
    return y


@pytest.mark.parametrize('family', ['llama', 'phi', 'qwen2', 'mistral'])
def test_without_decay_convolution_and_gate_mimic_is_linear_attention(family):
    """The oracle of mmMamba's seeding: SSM with decay 1 is linear attention."""
    teacher = tiny_teacher(family)
    hybrid, _ = convert(
        teacher,
        [1],
        init='mimic',
        mixer=dict(conv_activation='identity', norm='none', gate=False),
    )
    mixer = hybrid.model.layers[1].self_attn
    with torch.no_grad():
        mixer.A_log.fill_(-40)  # decay exp(-dt e^A) = 1
        mixer.dt_bias.fill_(torch.tensor(1.0).expm1().log())  # dt = 1
    x = torch.randn(2, 10, 32)
    attention = teacher.model.layers[1].self_attn
    group = 1 if family == 'phi' else 2
    y = linear_attention(attention, x, group)
    out = attention_outputs(teacher.model.layers[1])
    bias = None if out.bias is None else out.bias.double()
    expected = F.linear(y, out.weight.double(), bias)
    actual = mixer(x)[0].double()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_mimic_begins_with_decay_near_one_and_an_identity():
    hybrid, report = convert(tiny_teacher(), init='mimic')
    mixer = hybrid.model.layers[0].self_attn
    dt = F.softplus(mixer.dt_bias)
    decay = torch.exp(-dt * mixer.A_log.exp())
    assert (decay > 0.75).all() and (decay < 1).all()
    assert not mixer.dt_proj.weight.any()
    mixer.conv_activation = 'identity'
    x = torch.randn(1, 5, mixer.conv1d.in_channels)
    assert torch.equal(mixer.convolve(x, None, None), x)
    std = 2**-2.5 * (2 / (32 + 32)) ** 0.5
    assert float(mixer.z_proj.weight.detach().std()) == pytest.approx(std, rel=0.1)
    rest = {e.target.rsplit('self_attn.')[-1]: e.rest for e in report.entries}
    assert rest['conv1d.weight'] == 'identity'
    assert rest['A_log'] == 'ones, A = -e'


def test_initialisations_differ_in_what_is_new():
    a_log = {}
    for init in ('mimic', 'inherit', 'scratch'):
        hybrid, _ = convert(tiny_teacher(), init=init, seed=3)
        a_log[init] = hybrid.model.layers[0].self_attn.A_log
    assert (a_log['mimic'] == 1).all()
    assert torch.equal(a_log['inherit'], a_log['scratch'])
    assert (a_log['inherit'].exp() >= 1).all() and (a_log['inherit'].exp() <= 16).all()


def test_seeds():
    states = [
        convert(tiny_teacher(), init='vkq', seed=seed)[0].state_dict()
        for seed in (0, 0, 1)
    ]
    name = 'model.layers.1.self_attn.conv1d.weight'
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])
    other_layer = 'model.layers.0.self_attn.conv1d.weight'
    assert not torch.equal(states[0][name], states[0][other_layer])


def mamba_state(hidden=48, layers=4, d_state=8, prefix='backbone.'):
    """Mixers of a Mamba model wider and deeper than the students here."""
    config = HybridLlamaConfig(hidden_size=hidden, num_attention_heads=4)
    torch.manual_seed(5)
    state = {}
    for i in range(layers):
        mixer = MambaMixer(config, i, d_state=d_state, expand=2.0)
        for name, tensor in mixer.state_dict().items():
            state[f'{prefix}layers.{i}.mixer.{name}'] = torch.randn_like(tensor)
    return state


def test_subcloning_takes_first_layers_and_blocks(tmp_path):
    teacher = tiny_teacher()
    torch.save(mamba_state(), tmp_path / 'mamba.pt')
    hybrid, report = convert(
        teacher,
        [1],
        init='subclone',
        mamba_checkpoint=tmp_path / 'mamba.pt',
        num_hidden_layers=2,
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        mixer=dict(d_state=4),
    )
    state, source = hybrid.state_dict(), teacher.state_dict()
    mamba = mamba_state()
    for name, block in {
        'model.embed_tokens.weight': (slice(None), slice(16)),
        'model.layers.1.mlp.gate_proj.weight': (slice(24), slice(16)),
        'model.layers.0.self_attn.q_proj.weight': (slice(16), slice(16)),
        'model.layers.0.self_attn.k_proj.weight': (slice(8), slice(16)),
        'model.norm.weight': (slice(16),),
    }.items():
        assert torch.equal(state[name], source[name][block]), name
    mixer = 'model.layers.1.self_attn.'
    origin = 'backbone.layers.1.mixer.'
    in_proj = mamba[origin + 'in_proj.weight']  # x and z, 96 rows each
    assert torch.equal(
        state[mixer + 'in_proj.weight'],
        torch.cat((in_proj[:32, :16], in_proj[96:128, :16])),
    )
    x_proj = mamba[origin + 'x_proj.weight']  # dt rank 3, then B and C of 8 states
    assert torch.equal(
        state[mixer + 'x_proj.weight'],
        torch.cat((x_proj[:1, :32], x_proj[3:7, :32], x_proj[11:15, :32])),
    )
    assert torch.equal(state[mixer + 'A_log'], mamba[origin + 'A_log'][:32, :4])
    conv = state[mixer + 'conv1d.weight']
    assert float(conv.std()) == pytest.approx(0.5, rel=0.25)
    assert not torch.equal(conv, mamba[origin + 'conv1d.weight'][:32])
    entries = {entry.target: entry for entry in report.entries}
    assert entries[mixer + 'conv1d.weight'].action == 'fresh'
    assert entries[mixer + 'in_proj.weight'].action == 'block'
    assert 'backbone.layers.3.mixer.D' in {unused.name for unused in report.unused}
    assert hybrid(tokens(), labels=tokens()).loss.isfinite()


def test_subcloning_without_a_mamba_checkpoint_starts_mixers_anew():
    hybrid, _ = convert(tiny_teacher(), init='subclone')
    mixer = hybrid.model.layers[0].self_attn
    assert isinstance(mixer, MambaMixer)
    assert torch.equal(mixer.D, torch.ones_like(mixer.D))
    assert torch.equal(mixer.A_log[0].exp().round(), torch.arange(1.0, 17))


def test_half_precision_teacher_gives_half_precision_hybrid():
    hybrid, _ = convert(tiny_teacher().to(torch.bfloat16), [0])
    mixer = hybrid.model.layers[0].self_attn
    assert mixer.x_proj.weight.dtype == torch.bfloat16
    assert mixer.A_log.dtype == mixer.dt_bias.dtype == torch.float32
    assert hybrid(tokens()).logits.isfinite().all()


def test_tied_embeddings_stay_tied(tmp_path):
    hybrid, _ = convert(tiny_teacher(tie_word_embeddings=True))
    assert hybrid.lm_head.weight is hybrid.model.embed_tokens.weight
    hybrid.save_pretrained(tmp_path)
    same = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert same.lm_head.weight is same.model.embed_tokens.weight
    torch.testing.assert_close(same(tokens()).logits, hybrid(tokens()).logits)


def test_sliding_attention_that_stays_keeps_sliding():
    teacher = tiny_teacher('mistral', sliding_window=4)
    hybrid, _ = convert(teacher, [2])
    assert hybrid.config.layer_types == ['sliding_attention'] * 2 + [MAMBA]
    seen = [
        model(tokens(), output_hidden_states=True).hidden_states[2]
        for model in (teacher, hybrid)
    ]
    torch.testing.assert_close(seen[1], seen[0])


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (
            dict(init='magic'),
            "init='magic' must be one of mimic, inherit, vkq, calibrate, "
            "subclone, scratch for mixer='Mamba2'.",
        ),
        (dict(layers='sometimes'), "layers='sometimes' must be one of evenly, early"),
        (
            dict(num_attention_heads=2),
            'C_proj.weight (16, 32) cannot be seeded from '
            'model.layers.0.self_attn.q_proj.weight (32, 32)',
        ),
        (
            dict(intermediate_size=24),
            "model.layers.0.mlp.gate_proj.weight: the student's shape (24, 32) is not "
            "the teacher's (48, 32). Only init='subclone' takes parts.",
        ),
        (
            dict(init='subclone', hidden_size=64, head_dim=8, layers=[0]),
            "model.embed_tokens.weight: the student's shape (61, 64) exceeds the "
            "teacher's (61, 32).",
        ),
        (
            dict(init='subclone', layers=[0], hidden_size=16, head_dim=4),
            'per key-value head of its teacher, (8, 2.0); it has (4, 2.0).',
        ),
        (
            dict(init='mimic', mamba_checkpoint='x.pt'),
            "mamba_checkpoint needs init='subclone'",
        ),
        (dict(num_hidden_layers=5), 'num_hidden_layers=5 exceeds the 3 layers'),
        (dict(layers='auto'), 'Ranking layers needs calibration text; there is none.'),
        (dict(mamba_dconv=3), "HybridLlamaConfig has no field 'mamba_dconv'."),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(tiny_teacher(), **kwargs)


def test_generates_as_the_teacher_did():
    teacher = tiny_teacher()
    teacher.generation_config.eos_token_id = [7, 9]
    teacher.generation_config.temperature = 0.3
    hybrid, _ = convert(teacher)
    assert hybrid.generation_config.eos_token_id == [7, 9]
    assert hybrid.generation_config.temperature == 0.3
    hybrid.generation_config.temperature = 0.5
    assert teacher.generation_config.temperature == 0.3


def test_shares_no_memory_with_the_teacher():
    teacher = tiny_teacher()
    hybrid, _ = convert(teacher, [1])
    pointers = {p.data_ptr() for p in teacher.parameters()}
    assert not pointers & {p.data_ptr() for p in hybrid.parameters()}
    assert all(p.requires_grad for p in hybrid.parameters())
    assert not any(b.is_meta for b in hybrid.buffers())


def test_no_random_model_is_made_in_between(monkeypatch):
    teacher = tiny_teacher()
    built = []
    init = nn.Linear.reset_parameters

    def spy(linear):
        if not linear.weight.is_meta:
            built.append(tuple(linear.weight.shape))
        init(linear)

    monkeypatch.setattr(nn.Linear, 'reset_parameters', spy)
    convert(teacher, [1])
    assert built and (48, 32) not in built  # the new mixer alone, no feed-forward layer


@pytest.mark.parametrize('init', ['vkq', 'inherit', 'mimic'])
def test_keys_and_queries_do_not_fit_into_mamba_1(init):
    message = f"init='{init}' must be one of subclone, scratch for mixer='Mamba'."
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(tiny_teacher(), init=init, mixer=dict(type='Mamba', d_state=8))
    hybrid, _ = convert(tiny_teacher(), init='scratch', mixer='Mamba')
    assert hybrid(tokens()).logits.isfinite().all()


def test_layers_that_cannot_be_taken_over():
    phi = tiny_teacher('phi', qk_layernorm=True)
    with pytest.raises(ValueError, match='The teacher has qk_layernorm=True'):
        convert(phi, [1])
    hybrid, _ = convert(phi, [1], init='scratch')
    assert hybrid(tokens()).logits.isfinite().all()
    quantised = tiny_teacher()
    quantised.config.quantization_config = dict(quant_method='awq', bits=4)
    with pytest.raises(ValueError, match='The teacher is quantised'):
        convert(quantised)


def test_code_of_the_teachers_folder_is_not_asked_for():
    teacher = tiny_teacher()
    teacher.config.auto_map = {'AutoConfig': 'configuration_x.X'}
    hybrid, _ = convert(teacher)
    assert not hybrid.config.auto_map


def test_a_family_without_hybrids():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9))
    with pytest.raises(ValueError, match="a 'gpt2'; hybrids exist of llama, mistral"):
        convert(model)


@pytest.mark.parametrize(
    ('family', 'fields'),
    [
        ('qwen2', {}),
        ('qwen3', {}),
        ('phi', {}),
        ('llama', dict(attention_bias=True)),
    ],
)
def test_a_layer_of_another_type_takes_over_the_attention_too(family, fields):
    """A window that sees everything is the teacher's attention."""
    teacher = tiny_teacher(family, **fields)
    alone, _ = convert(teacher, [1, 2], init='mimic', mixer='SlidingWindow')
    window = dict(type='SlidingWindow')
    mixed, report = convert(
        teacher, [0, 1, 2], init='mimic', layer_mixers={1: 'SlidingWindow', 2: window}
    )
    for layer in (1, 2):
        own = mixed.config.mixer_of(layer)
        assert own == alone.config.mixer_of(layer)
        state = alone.model.layers[layer].self_attn.state_dict()
        for name, value in mixed.model.layers[layer].self_attn.state_dict().items():
            assert torch.equal(value, state[name]), name
    assert not [u for u in report.unused if '.1.' in u.name or '.2.' in u.name]


def test_a_layer_of_another_type_has_the_fields_of_the_initialisation():
    mixers = {1: dict(type='GatedDeltaNet', norm_eps=0.5)}
    hybrid, _ = convert(tiny_teacher(), [0, 1], init='mimic', layer_mixers=mixers)
    alone, _ = convert(tiny_teacher(), [1], init='mimic', mixer='GatedDeltaNet')
    expected = alone.config.mixer_of(1) | dict(norm_eps=0.5)
    assert hybrid.config.mixer_of(1) == expected


@pytest.mark.parametrize('name', ['Mamba2', 'mmtransmamba.Mamba2'])
def test_a_layer_of_the_common_type_has_the_common_fields(name):
    mixers = {1: dict(type=name, norm_eps=0.5)}
    hybrid, _ = convert(
        tiny_teacher(),
        [0, 1],
        init='mimic',
        mixer=dict(type='Mamba2', d_conv=3),
        layer_mixers=mixers,
    )
    assert hybrid.config.mixer_of(1) == hybrid.config.mixer_of(0) | dict(norm_eps=0.5)
    assert hybrid.config.mixer_of(1)['d_conv'] == 3
