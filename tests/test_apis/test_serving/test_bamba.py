"""Export to Bamba, for llama.cpp's converter, read back by transformers' own class."""

import json

import pytest
import torch
import transformers
from granite_hybrids import TEACHERS, make_hybrid
from packaging.version import Version
from transformers import AutoModelForCausalLM

from mmtransmamba.apis.serving import (
    bamba_obstacles,
    export_language_model,
    to_bamba,
)

pytestmark = pytest.mark.skipif(
    Version(transformers.__version__).release < (5, 23),
    reason='Bamba normalises over all channels before transformers 5.23',
)

SIZES = dict(vocab_size=64)
REFUSED = ('llama 3 positions', 'internlm2 with biases', 'qwen2')


@pytest.mark.parametrize('teacher', [name for name in TEACHERS if name not in REFUSED])
def test_folder_equals_the_hybrid(teacher, tmp_path):
    hybrid = make_hybrid(teacher, sizes=SIZES)
    report = export_language_model(hybrid, tmp_path / 'bamba', 'bamba')
    assert report.difference < 1e-4
    model = AutoModelForCausalLM.from_pretrained(tmp_path / 'bamba')
    assert type(model).__name__ == 'BambaForCausalLM'
    ids = torch.randint(3, 61, (2, 21))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, hybrid(ids).logits)
    options = dict(max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert torch.equal(model.generate(ids, **options), hybrid.generate(ids, **options))


@pytest.mark.parametrize(
    'mixer', [dict(skip=False), dict(d_conv=2), dict(d_conv=3)], ids=str
)
def test_parts_that_bamba_always_has_may_be_missing(mixer, tmp_path):
    hybrid = make_hybrid(mixer=mixer, sizes=SIZES)
    report = export_language_model(hybrid, tmp_path / 'bamba', 'bamba')
    assert report.difference < 1e-4


def test_config_meets_the_conditions_of_llama_cpp(tmp_path):
    hybrid = make_hybrid('llama, four queries a key', [0, 2], sizes=SIZES)
    export_language_model(hybrid, tmp_path / 'bamba', 'bamba')
    fields = json.loads((tmp_path / 'bamba' / 'config.json').read_text())
    # The graph requires an inner width of twice the hidden size.
    inner = fields['mamba_n_heads'] * fields['mamba_d_head']
    assert inner == 2 * fields['hidden_size'] and fields['mamba_expand'] == 2
    # Of a list of layer types, the converter would look for another name.
    assert fields['attn_layer_indices'] == [1] and 'layer_types' not in fields
    assert fields['architectures'] == ['BambaForCausalLM']
    assert fields['rope_parameters']['partial_rotary_factor'] == 1.0
    assert not fields['mamba_proj_bias'] and fields['mamba_conv_bias']
    assert 'time_step_limit' not in fields  # infinity is not JSON
    note = (tmp_path / 'bamba' / 'README.md').read_text()
    assert 'convert_hf_to_gguf.py' in note and 'written as `bamba`' in note


OBSTACLES = {
    'biases': (dict(teacher='qwen2'), 'the projections of a mixer have biases'),
    'no gate': (dict(mixer=dict(gate=False)), 'or it has no gate'),
    'pure': (dict(layers=[0, 1, 2]), 'no layer has attention'),
    'positions': (dict(teacher='llama 3 positions'), "rope_type='llama3'"),
    'vocabulary': (dict(sizes={}), 'vocab_size=61 is not a multiple of 8'),
    'of Granite': (dict(init='mimic'), "norm of the mixers is 'per_head'"),
    'family': (dict(teacher='phi'), 'the family phi'),
}


@pytest.mark.parametrize('case', OBSTACLES)
def test_what_llama_cpp_does_not_run_is_refused(case, tmp_path):
    fields, reason = OBSTACLES[case]
    hybrid = make_hybrid(**dict(sizes=SIZES) | fields)
    (obstacle,) = bamba_obstacles(hybrid)
    assert reason in obstacle
    with pytest.raises(ValueError, match=r'llama\.cpp cannot run the model'):
        export_language_model(hybrid, tmp_path / 'bamba', 'bamba')
    assert list(tmp_path.iterdir()) == []


def test_the_hybrid_is_left_as_it_was():
    hybrid = make_hybrid(sizes=SIZES).train()
    before = {name: value.clone() for name, value in hybrid.state_dict().items()}
    assert to_bamba(hybrid).training
    for name, value in hybrid.state_dict().items():
        assert torch.equal(value, before[name])


def test_an_export_to_granite_may_be_replaced(tmp_path):
    hybrid = make_hybrid(sizes=SIZES)
    out = tmp_path / 'out'
    export_language_model(hybrid, out, check=False)
    export_language_model(hybrid, out, 'bamba', overwrite=True, check=False)
    assert json.loads((out / 'config.json').read_text())['model_type'] == 'bamba'
