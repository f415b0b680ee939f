"""Configs that the plugin of vLLM accepts and refuses; vLLM is not needed."""

import sys
from types import SimpleNamespace

import pytest

from mmtransmamba.models.language import HYBRIDS
from mmtransmamba.models.language.mixers import fields_of, mixer_class
from mmtransmamba_vllm import ARCHITECTURES, releases
from mmtransmamba_vllm.configs import CONFIGS, HybridLlamaConfig
from mmtransmamba_vllm.mixer_fields import CHOICES, DEFAULTS, mixer_of, state_mixer

LAYERS = ['linear_attention', 'full_attention', 'linear_attention']


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    """A module that reports a version."""
    module = SimpleNamespace(__version__='0.32.0')
    monkeypatch.setitem(sys.modules, 'vllm', module)
    return module


def make(**fields):
    given = dict(layer_types=LAYERS, mixer=dict(type='Mamba2')) | fields
    return HybridLlamaConfig(num_hidden_layers=3, **given)


@pytest.mark.parametrize('kind', DEFAULTS)
def test_fields_and_defaults_are_those_of_the_mixers(kind):
    assert fields_of(mixer_class(kind)) == DEFAULTS[kind]
    for name, accepted in mixer_class(kind).choices.items():
        assert accepted == CHOICES[name]


@pytest.mark.parametrize('config', CONFIGS)
def test_configs_are_those_of_the_hybrids(config, tmp_path):
    family = config.model_type.removeprefix('hybrid_')
    original, _, model = HYBRIDS[family]
    hybrid = original(num_hidden_layers=2, layer_types=LAYERS[:2], mixer='Mamba')
    hybrid.save_pretrained(tmp_path)
    read = config.from_pretrained(tmp_path)
    assert (read.mixer, read.layer_types) == (hybrid.mixer, hybrid.layer_types)
    assert model.__name__ in ARCHITECTURES
    assert type(read)().mixer is None  # for comparisons of transformers


def test_layers_may_differ_in_what_does_not_shape_their_states():
    config = make(layer_mixers={0: dict(type='Mamba2', norm='none')})
    assert mixer_of(config, 0)['norm'] == 'none'
    assert mixer_of(config, 2) == config.mixer
    assert state_mixer(config)['d_conv'] == 4


BAD = {
    'another mixer': (
        dict(mixer=dict(type='GatedDeltaNet')),
        "mixer: type='GatedDeltaNet' must be one of Mamba2, Mamba",
    ),
    'unknown field': (
        dict(mixer=dict(type='Mamba', gate=True)),
        'mixer: Mamba has no field gate; accepted: d_conv',
    ),
    'taps': (
        dict(mixer=dict(type='Mamba2', d_conv=5)),
        'mixer: d_conv=5 must be one of 2, 3, 4',
    ),
    'norm': (
        dict(layer_mixers={2: dict(type='Mamba2', norm='layer')}),
        "layer_mixers.2: norm='layer' must be one of gated",
    ),
    'states': (
        dict(layer_mixers={2: dict(type='Mamba2', d_conv=2)}),
        'layer_mixers: d_conv is 2, 4 in different layers',
    ),
    'kinds': (
        dict(layer_mixers={2: dict(type='Mamba')}),
        'layer_mixers: type is Mamba, Mamba2 in different layers',
    ),
    'old fields': (dict(mamba_d_conv=2), 'the config has mamba_d_conv: save'),
    'no mixer': (dict(mixer=None), 'the config has no field mixer: save'),
    'layers': (
        dict(layer_types=['chunked_attention'] * 3),
        'layer_types has chunked_attention; accepted: full_attention',
    ),
    'no layers': (dict(layer_types=None), 'layer_types has no layers'),
    'positions of the mixer': (
        dict(mixer=dict(type='Mamba2', rope=True)),
        'mixer: rope=True must be one of False',
    ),
    'attention without positions': (
        dict(attention_rope=False),
        'attention_rope=False must be True',
    ),
    'scaled logits': (
        dict(attention_logit_scaling=500.0),
        'attention_logit_scaling=500.0 must be None',
    ),
    'activation': (dict(hidden_act='gelu'), "hidden_act='gelu'"),
    'positions': (
        dict(rope_parameters=dict(rope_type='dynamic', rope_theta=1e4, factor=2.0)),
        "rope_type='dynamic' must be one of default, linear, llama3, yarn",
    ),
}


@pytest.mark.parametrize('case', BAD)
def test_what_vllm_cannot_run_is_refused(case):
    fields, message = BAD[case]
    with pytest.raises(ValueError) as error:
        make(**fields)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('kind', ['full_attention', 'sliding_attention'])
def test_the_window_is_that_of_the_attention_layers(kind):
    config = next(c for c in CONFIGS if c.model_type == 'hybrid_mistral')
    given = dict(num_hidden_layers=2, mixer='Mamba2', sliding_window=16)
    read = config(layer_types=[kind, LAYERS[0]], **given)
    assert read.sliding_window == (16 if kind == 'sliding_attention' else None)


@pytest.mark.parametrize(
    'version, supported',
    [
        ('0.32.0', True),
        ('0.32.4+cpu', True),
        ('0.32.0rc1', True),
        ('0.31.9', False),
        ('0.33.0', False),
        ('1.32.0', False),
        ('dev', False),
    ],
)
def test_other_releases_are_refused_in_one_line(version, supported, vllm):
    vllm.__version__ = version
    assert releases.is_supported() == supported
    if supported:
        make()
        return
    with pytest.raises(ImportError) as error:
        make()
    expected = f'vLLM {version}: the plugin of mmtransmamba needs vllm>=0.32,<0.33'
    assert str(error.value).startswith(expected)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('version', ['0.32.0', '0.40.0'])
def test_only_a_supported_vllm_gets_the_architectures(version, vllm, monkeypatch):
    import transformers

    import mmtransmamba_vllm

    types, models = {}, {}
    monkeypatch.setattr(
        transformers.AutoConfig,
        'register',
        lambda name, config, exist_ok: types.__setitem__(name, config),
    )
    vllm.__version__ = version
    vllm.ModelRegistry = SimpleNamespace(register_model=models.__setitem__)
    mmtransmamba_vllm.register()
    mmtransmamba_vllm.register()
    assert types == {config.model_type: config for config in CONFIGS}
    expected = ARCHITECTURES if version == '0.32.0' else ()
    assert models == {name: f'mmtransmamba_vllm.models:{name}' for name in expected}
