"""Teachers that cannot be converted: a part is missing, or not a number."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_decoders import tiny_teacher

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders import load_lm
from mmtransmamba.models.language import HybridLlamaConfig
from mmtransmamba.models.language.mixers import MambaMixer
from mmtransmamba.transfer.convert import (
    Conversion,
    convert,
    plan_conversion,
    read_calibration,
    write_model,
)

ATTENTION = 'model.layers.1.self_attn.'


@pytest.fixture
def teacher(tmp_path):
    def make(family='llama', **changes):
        folder = tmp_path / 'teacher'
        tiny_teacher(family).save_pretrained(folder)
        state = load_file(folder / 'model.safetensors')
        for name, change in changes.items():
            key = next(k for k in state if k.replace('.', '_').endswith(name))
            value = change(state.pop(key))
            if value is not None:
                state[key] = value
        save_file(state, folder / 'model.safetensors', metadata={'format': 'pt'})
        return folder

    return make


def removed(_):
    return None


@pytest.mark.parametrize('init', ['mimic', 'inherit', 'vkq'])
@pytest.mark.parametrize(
    'family, tensor',
    [
        ('llama', 'q_proj.weight'),
        ('llama', 'k_proj.weight'),
        ('llama', 'v_proj.weight'),
        ('llama', 'o_proj.weight'),
        ('qwen2', 'k_proj.bias'),
        ('phi', 'dense.weight'),
        ('phi', 'dense.bias'),
        ('qwen3', 'q_norm.weight'),
    ],
)
def test_a_tensor_of_the_attention_that_is_missing_is_named(
    teacher, family, tensor, init
):
    flat = f'layers_1_self_attn_{tensor.replace(".", "_")}'
    folder = teacher(family, **{flat: removed})
    with pytest.raises(ValueError, match=rf'has no .*{ATTENTION}{tensor}'):
        plan_conversion(folder, Conversion([1], init=init))


def test_a_bias_that_no_layer_has_is_fresh(teacher):
    plan = plan_conversion(teacher(), Conversion([1], mixer=dict(in_bias=True)))
    entries = {step.entry.target: step.entry for step in plan.steps}
    assert entries[ATTENTION + 'x_proj.bias'].action == 'fresh'


@pytest.mark.parametrize('value, what', [(torch.nan, 'NaN'), (torch.inf, 'infinity')])
@pytest.mark.parametrize('name', ['self_attn_k_proj_weight', 'mlp_up_proj_weight'])
def test_weights_without_a_value_are_not_converted(
    teacher, tmp_path, name, value, what
):
    folder = teacher(**{f'layers_1_{name}': lambda t: t.fill_(value)})
    tensor = name.replace('attn_', 'attn.').replace('mlp_', 'mlp.')
    tensor = tensor.replace('_weight', '.weight')
    match = rf'layers.1.{tensor} has {what}'
    with pytest.raises(CheckpointError, match=match):
        write_model(plan_conversion(folder, Conversion([1])), tmp_path / 'out')
    assert not list(tmp_path.glob('out*'))
    with pytest.raises(CheckpointError, match=match):
        convert(folder, [1])
    with pytest.raises(CheckpointError, match=match):
        load_lm(folder)


@pytest.mark.parametrize(
    'name', ['layers_1_self_attn_k_proj_weight', 'embed_tokens_weight']
)
def test_integers_are_no_weights(teacher, name):
    folder = teacher(**{name: lambda t: (t * 100).to(torch.int8)})
    match = name.split('_')[-2]
    with pytest.raises(CheckpointError, match=rf'{match}\.weight consists of integers'):
        plan_conversion(folder, Conversion([1]))
    with pytest.raises(CheckpointError, match=rf'{match}\.weight is of the dtype I8'):
        load_lm(folder)


def test_layers_that_are_not_there_are_missed_at_once(teacher):
    folder = teacher()
    config = json.loads((folder / 'config.json').read_text())
    config['num_hidden_layers'] = 100_000
    (folder / 'config.json').write_text(json.dumps(config))
    start = time.perf_counter()
    for read in (plan_conversion, load_lm):
        with pytest.raises(CheckpointError, match='num_hidden_layers=100000'):
            read(folder)
    assert time.perf_counter() - start < 20


def test_a_mamba_that_lacks_a_tensor_is_refused(teacher, tmp_path):
    mixer = MambaMixer(HybridLlamaConfig(hidden_size=32), 0, expand=2.0)
    state = {
        f'backbone.layers.{i}.mixer.{name}': tensor
        for i in range(4)
        for name, tensor in mixer.state_dict().items()
    }
    name = 'backbone.layers.1.mixer.A_log'
    del state[name]
    rest = {key: value for key, value in state.items() if '.1.' not in key}
    for given in (state, rest):
        torch.save(given, tmp_path / 'mamba.pt')
        with pytest.raises(ValueError, match=f'Mamba checkpoint has no {name}'):
            plan_conversion(
                teacher(),
                Conversion(
                    [1],
                    init='subclone',
                    mamba_checkpoint=tmp_path / 'mamba.pt',
                ),
            )


@pytest.mark.parametrize('size', [0, -1])
def test_shards_have_a_size(teacher, tmp_path, size):
    folder = teacher()
    with pytest.raises(ValueError, match=f'max_shard_bytes={size} must be positive'):
        write_model(plan_conversion(folder, Conversion([1])), tmp_path / 'out', size)


@pytest.mark.parametrize('tokens', [0, -5])
def test_a_ranking_needs_tokens(tmp_path, tokens):
    with pytest.raises(ValueError, match=f'on {tokens} tokens'):
        read_calibration(tmp_path / 'none.npz', tmp_path, tokens)
