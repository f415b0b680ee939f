"""Mixers as an open registry: one from another file, and configs from before it."""

import importlib
import json
import re
import sys

import pytest
import torch
from tiny_decoders import FAMILIES, SIZES, tiny_teacher, tokens
from transformers import AutoConfig, AutoModelForCausalLM

from mmtransmamba.compat import announce_adapters
from mmtransmamba.models.language import HYBRIDS, MAMBA, Mamba2Mixer, cast_parameters
from mmtransmamba.models.language.cache_names import as_argument, returned_cache
from mmtransmamba.models.language.mixers import mixer_class
from mmtransmamba.models.trainable.stages import freeze_all_but, group_of_parameters
from mmtransmamba.registry import DECODER_MIXERS
from mmtransmamba.transfer.convert import convert

TOY = dict(type='RunningMean', gate='none')


@pytest.fixture
def toy():
    """The class of a mixer that stands in a file outside of the package."""
    sys.modules.pop('toy_mixer', None)
    module = importlib.import_module('toy_mixer')
    yield module.RunningMean
    DECODER_MIXERS.module_dict.pop('RunningMean')


@pytest.fixture(params=['llama', 'phi', 'qwen3'])
def hybrid(toy, request):
    """A teacher with one attention layer left and the mixer in the others."""
    teacher = tiny_teacher(request.param)
    return convert(teacher, [0, 2], init='vkq', mixer=TOY | dict(gate='sigmoid'))


def test_the_package_does_not_have_the_mixer_of_these_tests():
    DECODER_MIXERS.module_dict.pop('RunningMean', None)
    with pytest.raises(ValueError, match="type='RunningMean' must be one of "):
        convert(tiny_teacher(), mixer='RunningMean')


def test_a_mixer_of_another_file_is_seeded_as_it_declares(toy):
    teacher = tiny_teacher()
    hybrid, report = convert(teacher, [1], init='vkq', mixer='RunningMean')
    mixer, attention = (m.model.layers[1].self_attn for m in (hybrid, teacher))
    assert isinstance(mixer, toy)
    assert hybrid.config.mixer == dict(
        type='RunningMean', decay=0.75, gate='sigmoid', out_bias=False
    )
    assert torch.equal(mixer.value.weight, attention.v_proj.weight)
    assert torch.equal(mixer.out_proj.weight, attention.o_proj.weight)
    assert torch.equal(mixer.shift, torch.full_like(mixer.shift, 2))
    torch.testing.assert_close(mixer.log_decay.exp(), torch.full((32,), 0.75))
    entries = {entry.target: entry for entry in report.entries}
    assert entries['model.layers.1.self_attn.shift'].rest == 'twos'
    unused = {unused.name for unused in report.unused}
    assert unused == {f'model.layers.1.self_attn.{n}_proj.weight' for n in 'qk'}


def test_it_generates_from_its_cache_with_padding_on_the_left(hybrid):
    model, _ = hybrid
    prompt = tokens(2, 7)
    ids = torch.nn.functional.pad(prompt, (3, 0))
    mask = torch.nn.functional.pad(torch.ones_like(prompt), (3, 0))
    options = dict(max_new_tokens=6, do_sample=False)
    alone = model.generate(prompt, **options)[:, 7:]
    assert torch.equal(
        model.generate(ids, attention_mask=mask, **options)[:, 10:], alone
    )
    slow = model.generate(prompt, use_cache=False, **options)[:, 7:]
    assert torch.equal(slow, alone)


def test_its_cache_counts_tokens_without_a_convolution_and_attention(toy):
    model, _ = convert(tiny_teacher(), init='vkq', mixer=TOY)
    ids = tokens(2, 9)
    with torch.no_grad():
        whole = model(ids).logits
        cache = returned_cache(model(ids[:, :5]))
        assert int(cache.get_seq_length()) == 5
        rest = model(ids[:, 5:], **as_argument(cache)).logits
    torch.testing.assert_close(rest, whole[:, 5:], rtol=1e-4, atol=1e-5)


def test_it_keeps_packed_sequences_apart(hybrid):
    model, _ = hybrid
    first, second = tokens(2, 6)
    packed = model(
        torch.cat((first, second))[None], position_ids=torch.arange(6).repeat(2)[None]
    )
    torch.testing.assert_close(
        packed.logits[:, 6:], model(second[None]).logits, rtol=1e-4, atol=1e-5
    )


def test_it_trains_by_the_groups_of_the_stages(hybrid):
    model, _ = hybrid
    groups = group_of_parameters(model)
    own = {n.split('.')[4]: g for n, g in groups.items() if 'layers.0.self_attn' in n}
    assert own == dict(
        value='qkv', gate='ssm', log_decay='ssm', shift='ssm', out_proj='out_proj'
    )
    freeze_all_but(model, ['ssm'])
    model.train()(tokens(), labels=tokens()).loss.backward()
    learned = {n for n, p in model.named_parameters() if p.grad is not None}
    assert learned == {n for n, group in groups.items() if group == 'ssm'}


def test_it_saves_and_loads_and_keeps_float32(hybrid, tmp_path):
    model, _ = hybrid
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / 'config.json').read_text())
    assert saved['mixer']['type'] == 'RunningMean'
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(tokens()).logits, model(tokens()).logits)
    half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for low in (half, cast_parameters(loaded, torch.bfloat16)):
        mixer = low.model.layers[0].self_attn
        assert mixer.log_decay.dtype == torch.float32
        assert mixer.value.weight.dtype == torch.bfloat16
        assert low(tokens()).logits.isfinite().all()
    DECODER_MIXERS.module_dict.pop('RunningMean')
    with pytest.raises(ValueError, match='custom_imports in a config'):
        AutoConfig.from_pretrained(tmp_path)
    DECODER_MIXERS.register_module(module=type(mixer))


def test_peft_puts_adapters_into_it(hybrid):
    peft = pytest.importorskip('peft')
    adapted = peft.get_peft_model(hybrid[0], peft.LoraConfig(task_type='CAUSAL_LM'))
    names = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert any('layers.0.self_attn.value.lora_A' in name for name in names)


def test_peft_learns_of_mixers_before_and_after_its_import():
    constants = pytest.importorskip('peft.utils.constants')
    announce_adapters({'v_proj': ('of_a_later_file',)})
    table = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    assert {'x_proj', 'of_a_later_file'} <= set(table['hybrid_llama'])


@pytest.mark.parametrize(
    'mixer, init, message',
    [
        (
            dict(TOY, decline=0.5),
            'vkq',
            "RunningMean has no field 'decline'; it takes decay, gate, out_bias.",
        ),
        (
            dict(TOY, gate='tanh'),
            'vkq',
            "gate='tanh' of RunningMean must be one of sigmoid, none.",
        ),
        (
            TOY,
            'mimic',
            "init='mimic' must be one of vkq, scratch for mixer='RunningMean'. "
            "init='mimic' is for mixer='Mamba2' or 'GatedDeltaNet' or 'KDA' "
            "or 'HeadsMamba2' or 'HeadsGatedDeltaNet' or 'HeadsKDA' "
            "or 'SlidingWindow' or 'WindowMamba2' or 'WindowGatedDeltaNet' "
            "or 'WindowKDA'.",
        ),
    ],
)
def test_what_a_mixer_does_not_take_is_named(toy, mixer, init, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(tiny_teacher(), init=init, mixer=mixer)


@pytest.mark.parametrize(
    'mixer', ['Mamba2', 'mmtransmamba.Mamba2', dict(type='mmtransmamba.Mamba2')]
)
def test_a_mixer_has_a_short_and_a_scoped_name(mixer):
    hybrid, _ = convert(tiny_teacher(), [1], mixer=mixer)
    assert hybrid.config.mixer['type'] == 'Mamba2'
    assert hybrid.config.mixer['norm'] == 'per_head'  # mmMamba's, as by default


def test_a_path_of_python_is_not_imported_for_a_config():
    with pytest.raises(ValueError, match="type='os.path.join' must be one of"):
        mixer_class('os.path.join')


def test_single_layers_may_have_mixers_of_their_own(toy, tmp_path):
    hybrid, _ = convert(
        tiny_teacher(),
        init='vkq',
        layer_mixers={0: dict(d_conv=2), 2: 'RunningMean'},
    )
    hybrid.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    first, second, third = (layer.self_attn for layer in loaded.model.layers)
    assert [m.conv1d.kernel_size[0] for m in (first, second)] == [2, 4]
    assert isinstance(first, Mamba2Mixer) and isinstance(third, toy)
    assert torch.equal(loaded(tokens()).logits, hybrid(tokens()).logits)
    generated = loaded.generate(tokens(), max_new_tokens=3, do_sample=False)
    slow = loaded.generate(tokens(), max_new_tokens=3, do_sample=False, use_cache=False)
    assert torch.equal(generated, slow)


# ---------------------------------------------------------- folders written before

OLD = dict(
    mamba_mixer='mamba2',
    mamba_d_conv=2,
    mamba_conv_activation='identity',
    mamba_d_state=16,
    mamba_expand=1.0,
    mamba_norm='per_head',
    mamba_norm_eps=1e-6,
    mamba_gate=True,
    mamba_skip=False,
    mamba_in_bias=True,
    mamba_out_bias=True,
    mamba_qk_norm=False,
)
OLD_MAMBA = OLD | dict(mamba_mixer='mamba', mamba_d_state=8, mamba_expand=2.0)
NEW = dict(
    type='Mamba2',
    d_conv=2,
    conv_activation='identity',
    norm='per_head',
    norm_eps=1e-6,
    gate=True,
    skip=False,
    in_bias=True,
    out_bias=True,
    qk_norm=False,
    rope=False,
)
NEW_MAMBA = dict(
    type='Mamba',
    d_conv=2,
    conv_activation='identity',
    d_state=8,
    expand=2.0,
    in_bias=True,
    out_bias=True,
)


@pytest.mark.parametrize(
    'old, new', [(OLD, NEW), (OLD_MAMBA, NEW_MAMBA)], ids=['Mamba2', 'Mamba']
)
@pytest.mark.parametrize('family', FAMILIES)
def test_a_folder_from_before_the_registry_loads(family, old, new, tmp_path):
    config_cls, _, causal_lm = HYBRIDS[family]
    kinds = [MAMBA, 'full_attention', MAMBA]
    torch.manual_seed(0)
    sizes = SIZES | FAMILIES[family] | dict(layer_types=kinds)
    model = causal_lm(config_cls(**sizes, mixer=new)).eval()
    model.save_pretrained(tmp_path)
    file = tmp_path / 'config.json'
    written = json.loads(file.read_text())
    del written['mixer'], written['layer_mixers']
    file.write_text(json.dumps(written | old))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(tokens()).logits, model(tokens()).logits)
    loaded.save_pretrained(tmp_path / 'again')
    saved = json.loads((tmp_path / 'again' / 'config.json').read_text())
    assert saved['mixer'] == new
    assert not [name for name in saved if name.startswith('mamba_')]


def test_old_fields_that_are_missing_have_their_old_defaults():
    config = HYBRIDS['llama'][0](**SIZES, mamba_d_conv=3)
    assert config.mixer == NEW | dict(
        d_conv=3,
        conv_activation='silu',
        norm='gated',
        norm_eps=1e-5,
        skip=True,
        in_bias=False,
        out_bias=False,
    )


def test_an_unknown_old_mixer_and_a_mixture_of_both_forms_are_refused():
    with pytest.raises(ValueError, match="mamba_mixer='mamba3' must be one of mamba,"):
        HYBRIDS['llama'][0](**SIZES, mamba_mixer='mamba3')
    with pytest.raises(ValueError, match='has mixer and mamba_. fields'):
        HYBRIDS['llama'][0](**SIZES, mamba_d_conv=2, mixer='Mamba')
