"""Export to Granite's hybrid, read back by transformers' own class."""

import json

import pytest
import torch
import transformers
from granite_hybrids import SIZES, TEACHERS, make_hybrid
from packaging.version import Version
from transformers import AutoConfig, AutoModelForCausalLM

import mmtransmamba
from mmtransmamba.apis.serving import (
    export_language_model,
    granite_obstacles,
    to_granite,
)
from mmtransmamba.models.language import MAMBA
from mmtransmamba.models.trainable.adapters import add_adapters

pytestmark = pytest.mark.skipif(
    Version(transformers.__version__).release < (5, 23),
    reason='Granite normalises over all channels before transformers 5.23',
)

LAYERS = {'hybrid': [0, 2], 'pure': [0, 1, 2]}


@pytest.mark.parametrize('layers', LAYERS)
@pytest.mark.parametrize('teacher', TEACHERS)
def test_folder_equals_the_hybrid(teacher, layers, tmp_path):
    hybrid = make_hybrid(teacher, LAYERS[layers])
    report = export_language_model(hybrid, tmp_path / 'granite')
    assert report.difference < 1e-4
    model = AutoModelForCausalLM.from_pretrained(tmp_path / 'granite')
    assert type(model).__module__.startswith('transformers.')
    ids = torch.randint(3, 61, (2, 21))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, hybrid(ids).logits)
    options = dict(max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert torch.equal(model.generate(ids, **options), hybrid.generate(ids, **options))


@pytest.mark.parametrize(
    'fields',
    [
        dict(mixer=dict(gate=False)),
        dict(mixer=dict(skip=False)),
        dict(mixer=dict(d_conv=2)),
        dict(mixer=dict(d_conv=3, gate=False, skip=False)),
        dict(mixer=dict(in_bias=True)),
        dict(mixer=dict(out_bias=True)),
    ],
    ids=str,
)
def test_parts_that_granite_always_has_may_be_missing(fields, tmp_path):
    hybrid = make_hybrid(**fields)
    assert export_language_model(hybrid, tmp_path / 'granite').difference < 1e-4


def test_calibrated_mixers_are_exported(tmp_path):
    ids = torch.randint(3, 61, (4, 24), generator=torch.Generator().manual_seed(0))
    fields = dict(calibration=list(ids.split(2)), calibration_steps=1)
    hybrid = make_hybrid(init='calibrate', **fields)
    assert export_language_model(hybrid, tmp_path / 'granite').difference < 1e-4


OBSTACLES = {
    'phi': (dict(teacher='phi'), 'the family phi has layers that Granite has not'),
    'qwen3': (dict(teacher='qwen3'), 'the family qwen3 has layers'),
    'mamba-1': (dict(init='subclone'), 'the mixer is MambaMixer'),
    'norm before the gate': (dict(init='mimic'), "norm of the mixers is 'per_head'"),
    'norm over all channels': (
        dict(mixer=dict(norm='gated')),
        "norm of the mixers is 'gated'",
    ),
    'no norm': (dict(mixer=dict(norm='none')), "norm of the mixers is 'none'"),
    'epsilon': (
        dict(mixer=dict(norm_eps=0.5)),
        'norm_eps=0.5 of the mixers must equal',
    ),
    'activation': (
        dict(mixer=dict(conv_activation='identity')),
        "the convolution's activation must be silu",
    ),
    'window': (dict(teacher='mistral'), 'attention layers have sliding_window=4096'),
    'single layers': (
        dict(layer_mixers={0: dict(d_conv=2)}),
        'all mixers of a Granite are alike',
    ),
    'taps': (dict(mixer=dict(d_conv=5)), 'd_conv=5 is not one of'),
    'a window': (dict(mixer='WindowMamba2'), 'the mixer is WindowMamba2Mixer'),
    'rotated B and C': (dict(mixer=dict(rope=True)), 'does not rotate B and C'),
    'no rope': (dict(attention_rope=False), 'attention_rope=False or'),
    'growing logits': (dict(attention_logit_scaling=9.0), 'attention_logit_scaling'),
    'rope': (
        dict(rope_parameters=dict(rope_type='dynamic', factor=2.0, rope_theta=1e4)),
        "rope_type='dynamic' is not one of",
    ),
    'gelu': (dict(hidden_act='gelu'), "hidden_act='gelu'"),
    'wide heads': (dict(teacher='wide'), 'cannot be extended to hidden_size=32'),
}


@pytest.mark.parametrize('case', OBSTACLES)
def test_what_granite_cannot_express_is_refused(case, tmp_path):
    fields, reason = OBSTACLES[case]
    hybrid = make_hybrid(**fields)
    (obstacle,) = granite_obstacles(hybrid)
    assert reason in obstacle
    with pytest.raises(ValueError, match='has no equal in granitemoehybrid'):
        export_language_model(hybrid, tmp_path / 'granite')
    assert list(tmp_path.iterdir()) == []


def quantised(hybrid):
    return torch.ao.quantization.quantize_dynamic(hybrid, {torch.nn.Linear})


def integers(hybrid):
    head = hybrid.lm_head
    head.weight = torch.nn.Parameter(head.weight.char(), requires_grad=False)
    return hybrid


def adapted(hybrid):
    pytest.importorskip('peft')
    add_adapters(hybrid, ['out_proj'], rank=2)
    return hybrid


def parametrised(hybrid):
    torch.nn.utils.parametrizations.weight_norm(hybrid.model.layers[1].self_attn.q_proj)
    return hybrid


def replaced(hybrid):
    class Scaled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    hybrid.model.layers[0].mlp.up_proj = Scaled(32, 40, bias=False)
    return hybrid


WRAPPED = {
    quantised: 'is a torch.ao.nn.quantized.dynamic',
    integers: 'lm_head.weight is quantised',
    adapted: r'model\.layers\.0\.self_attn\.out_proj is a peft\.',
    parametrised: r'self_attn\.q_proj is a .*Parametrized',
    replaced: r'model\.layers\.0\.mlp\.up_proj is a .*Scaled',
    lambda hybrid: hybrid.to('meta'): 'has no values here',
}


@pytest.mark.parametrize('format', ['granite', 'bamba'])
@pytest.mark.parametrize(('change', 'reason'), WRAPPED.items())
def test_a_layer_that_is_not_its_weights_is_refused(change, reason, format, tmp_path):
    """Its weights alone would be exported, and without the check nobody would know."""
    hybrid = change(make_hybrid(sizes=dict(vocab_size=64)))
    with pytest.raises(ValueError, match=reason) as caught:
        export_language_model(hybrid, tmp_path / 'out', format, check=False)
    assert '\n' not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_every_obstacle_is_reported_at_once():
    hybrid = make_hybrid(init='mimic', mixer=dict(conv_activation='identity'))
    assert len(granite_obstacles(hybrid)) == 2


def test_a_transformer_is_not_exported():
    config = AutoConfig.for_model('llama', **SIZES)
    (obstacle,) = granite_obstacles(AutoModelForCausalLM.from_config(config))
    assert 'convert one with mmtransmamba.convert' in obstacle


def test_config_has_the_names_of_every_reader(tmp_path):
    export_language_model(make_hybrid('llama 3 positions'), tmp_path / 'granite')
    fields = json.loads((tmp_path / 'granite' / 'config.json').read_text())
    assert fields['layer_types'] == ['mamba', 'attention', 'mamba']
    assert fields['rope_theta'] == 5e5
    assert fields['rope_scaling']['rope_type'] == 'llama3'
    assert fields['num_local_experts'] == 0
    assert fields['attention_multiplier'] == 8**-0.5
    multipliers = ('embedding_multiplier', 'logits_scaling', 'residual_multiplier')
    assert [fields[name] for name in multipliers] == [1.0] * 3
    assert 'Infinity' not in json.dumps(fields)


def test_model_is_left_as_it_was():
    hybrid = make_hybrid().train()
    before = {name: value.clone() for name, value in hybrid.state_dict().items()}
    to_granite(hybrid)
    assert hybrid.training
    assert hybrid.config.layer_types == [MAMBA, 'full_attention', MAMBA]
    for name, value in hybrid.state_dict().items():
        assert torch.equal(value, before[name])


def test_half_precision_is_kept_and_checked_in_float32(tmp_path):
    hybrid = make_hybrid().to(torch.bfloat16)
    report = export_language_model(hybrid, tmp_path / 'granite')
    assert report.difference < 1e-4
    model = AutoModelForCausalLM.from_pretrained(tmp_path / 'granite', dtype='auto')
    assert model.lm_head.weight.dtype == torch.bfloat16


def test_a_folder_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    from mmtransmamba.apis.serving import export

    def spoiled(model):
        granite = to_granite(model)
        scaled = granite.model.norm.weight * torch.linspace(0.5, 1.5, 32)
        granite.model.norm.weight = torch.nn.Parameter(scaled)
        return granite

    monkeypatch.setattr(export, 'to_granite', spoiled)
    with pytest.raises(ValueError, match='it was not kept'):
        export_language_model(make_hybrid(), tmp_path / 'granite')
    assert list(tmp_path.iterdir()) == []


def test_only_an_earlier_export_is_replaced(tmp_path):
    hybrid = make_hybrid()
    out = tmp_path / 'granite'
    export_language_model(hybrid, out)
    with pytest.raises(FileExistsError, match='overwrite'):
        export_language_model(hybrid, out)
    export_language_model(hybrid, out, overwrite=True, check=False)
    # A model of the same kind from elsewhere.
    config = json.loads((out / 'config.json').read_text())
    assert config.pop('mmtransmamba_export') is True
    for text in (json.dumps(config, indent=2), None):
        (out / 'config.json').unlink()
        if text is not None:
            (out / 'config.json').write_text(text)
        with pytest.raises(FileExistsError, match='not an earlier export'):
            export_language_model(hybrid, out, overwrite=True)
        assert (out / 'model.safetensors').is_file()


def test_folders_beside_it_and_the_modes_of_modules_stay(tmp_path):
    hybrid = make_hybrid().train()
    hybrid.model.layers[0].eval()
    modes = [module.training for module in hybrid.modules()]
    mine = tmp_path / 'granite.partial' / 'mine.txt'
    mine.parent.mkdir()
    mine.touch()
    export_language_model(hybrid, tmp_path / 'granite')
    assert mine.is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'granite',
        'granite.partial',
    ]
    assert [module.training for module in hybrid.modules()] == modes


def test_unknown_format(tmp_path):
    with pytest.raises(ValueError, match="'gguf' is unknown; accepted: granite, bamba"):
        export_language_model(make_hybrid(), tmp_path / 'out', 'gguf')


@pytest.mark.parametrize('folder', ['hybrid', 'work_dir/student'])
def test_verb_exports_a_folder_with_its_companions(folder, tmp_path):
    hybrid = make_hybrid()
    hybrid.save_pretrained(tmp_path / folder)
    (tmp_path / folder / 'tokenizer_config.json').write_text('{}')
    card = tmp_path / folder / 'README.md'
    matter = '---\nlicense: apache-2.0\nbase_model: org/llama\n'
    card.write_text(card.read_text().replace('---\n', matter, 1))
    given = tmp_path / folder.partition('/')[0]
    mmtransmamba.export(given, tmp_path / 'out', format='granite')
    assert (tmp_path / 'out' / 'tokenizer_config.json').read_text() == '{}'
    written = (tmp_path / 'out' / 'README.md').read_text()
    assert 'transformers 5.23' in written and '| history | init:vkq |' in written
    for line in ('license: apache-2.0', 'base_model: org/llama', '| inherited | '):
        assert f'\n{line}' in written
    assert 'converted from `org/llama`' in written and '(apache-2.0)' in written
    assert '| figures | ' not in written
