"""Quantised hybrids, and what quantisation leaves out."""

import pytest
import torch
from granite_hybrids import make_hybrid
from quantised import dynamically_quantised
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from mmtransmamba.models.language import unquantized_modules

LEFT_OUT = {
    'Mamba2': {'conv1d', 'dt_proj'},
    'Mamba': {'conv1d', 'x_proj', 'dt_proj'},
    'MambaInLlama': {'conv1d', 'dt_down', 'dt_proj'},
    'DiscreteMamba2': {'conv1d', 'decay_proj'},
    'GatedDeltaNet': {'conv1d', 'dt_proj', 'beta_proj'},
    'KDA': {'conv1d', 'dt_proj.0', 'dt_proj.1', 'beta_proj'},
    'SlidingWindow': set(),
}


@pytest.fixture
def make(tmp_path):
    """Makes a hybrid from its config, on the meta device."""

    def make(mixer):
        kinds = ['linear_attention', 'full_attention']
        config = AutoConfig.for_model(
            'hybrid_llama',
            **dict(hidden_size=32, intermediate_size=40, num_attention_heads=4),
            **dict(num_hidden_layers=2, layer_types=kinds, vocab_size=61, mixer=mixer),
        )
        with torch.device('meta'):
            return AutoModelForCausalLM.from_config(config)

    return make


@pytest.mark.parametrize('mixer', LEFT_OUT)
def test_small_layers_of_mixers_are_listed(mixer, make):
    names = unquantized_modules(make(mixer))
    prefix = 'model.layers.0.self_attn.'
    expected = {prefix + name for name in LEFT_OUT[mixer]} | {'lm_head'}
    assert set(names) == expected


def test_other_heads_are_listed(make):
    config = make('Mamba2').config
    with torch.device('meta'):
        model = AutoModelForSequenceClassification.from_config(config)
    assert 'score' in unquantized_modules(model)


INITS = ('vkq', 'subclone')


def difference(quantised, hybrid):
    """Difference of the logits, relative to the largest."""
    ids = torch.randint(3, 61, (2, 12))
    with torch.no_grad():
        expected, actual = hybrid(ids).logits, quantised(ids).logits
    return (actual - expected).abs().max() / expected.abs().max()


@pytest.mark.parametrize('init', INITS)
def test_dynamic_quantisation(init):
    hybrid = make_hybrid(init=init)
    quantised = dynamically_quantised(hybrid)
    assert 0 < difference(quantised, hybrid) < 0.3  # activations are quantised too
    mixer = quantised.model.layers[0].self_attn
    assert isinstance(mixer.dt_proj, nn.Linear)
    assert not isinstance(mixer.out_proj, nn.Linear)


@pytest.mark.parametrize('init', INITS)
@pytest.mark.parametrize('half', [False, True])
def test_loading_with_torchao(init, half, tmp_path):
    torchao = pytest.importorskip('torchao.quantization')
    from transformers import TorchAoConfig

    hybrid = make_hybrid(init=init)
    hybrid.save_pretrained(tmp_path)
    config = TorchAoConfig(
        torchao.Int8WeightOnlyConfig(version=2),
        modules_to_not_convert=unquantized_modules(hybrid),
    )
    dtype = torch.bfloat16 if half else torch.float32
    quantised = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=config, dtype=dtype
    )
    mixer = quantised.model.layers[0].self_attn
    plain = {name for name, p in mixer.named_parameters() if type(p) is nn.Parameter}
    assert 'dt_proj.weight' in plain and 'out_proj.weight' not in plain
    assert mixer.A_log.dtype == torch.float32
    if half:
        return
    assert 0 < difference(quantised, hybrid) < 0.1
    ids = torch.tensor([[5, 9, 23, 4]])
    options = dict(max_new_tokens=4, do_sample=False, pad_token_id=0)
    tokens = quantised.generate(ids, **options)
    assert torch.equal(tokens, quantised.generate(ids, use_cache=False, **options))


@pytest.mark.parametrize('init', INITS)
def test_loading_with_bitsandbytes(init, tmp_path):
    pytest.importorskip('bitsandbytes')
    from transformers import BitsAndBytesConfig

    hybrid = make_hybrid(init=init)
    hybrid.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(
        load_in_8bit=True, llm_int8_skip_modules=unquantized_modules(hybrid)
    )
    quantised = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=config, device_map='cpu'
    )
    mixer = quantised.model.layers[0].self_attn
    assert mixer.dt_proj.weight.dtype == torch.float32
    assert mixer.out_proj.weight.dtype == torch.int8
    assert 0 < difference(quantised, hybrid) < 0.1
