"""vLLM with the plugin, on folders of hybrids that it cannot read otherwise."""

import subprocess
import sys

import pytest
from granite_hybrids import make_hybrid
from vllm_runs import (
    PYTHON,
    REASON,
    SIZES,
    greedy_of_hybrid,
    greedy_of_vllm,
    states_of_vllm,
)

pytestmark = pytest.mark.skipif(not PYTHON, reason=REASON)

WINDOW = dict(sliding_window=8)
YARN = dict(
    rope_type='yarn',
    rope_theta=1e4,
    factor=4.0,
    original_max_position_embeddings=16,
)
MODELS = {
    'mimic': dict(init='mimic'),
    'norm over all channels': dict(mixer=dict(norm='gated')),
    'no norm': dict(mixer=dict(norm='none')),
    'no gate': dict(mixer=dict(gate=False, skip=False, d_conv=3)),
    'linear convolution': dict(mixer=dict(conv_activation='identity')),
    'biases': dict(mixer=dict(in_bias=True, out_bias=True)),
    'other epsilon': dict(mixer=dict(norm_eps=0.3)),
    'pure': dict(layers=[0, 1, 2]),
    'one shared key': dict(teacher='llama, four queries a key'),
    'tied': dict(teacher='llama, tied'),
    'all biases': dict(teacher='internlm2 with biases'),
    'llama 3 positions': dict(teacher='llama 3 positions'),
    'yarn': dict(layers=[0], rope_parameters=YARN),
    'different layers': dict(
        layer_mixers={0: dict(norm='per_head', gate=False), 2: dict(norm='none')}
    ),
    'mistral with a window': dict(teacher='mistral', layers=[1], sizes=WINDOW),
    'qwen2': dict(teacher='qwen2', init='mimic'),
    'qwen2 with a window in some layers': dict(
        teacher='qwen2',
        layers=[1],
        sizes=WINDOW | dict(use_sliding_window=True, max_window_layers=1),
    ),
    'qwen3': dict(teacher='qwen3'),
    'qwen3, mimic': dict(teacher='qwen3', init='mimic'),
    'qwen3, wide heads': dict(teacher='qwen3', sizes=dict(head_dim=64)),
    'mamba-1': dict(init='subclone'),
    'mamba-1, scratch': dict(
        init='scratch', mixer=dict(type='Mamba', in_bias=True, out_bias=True)
    ),
    'mamba-1, pure': dict(init='subclone', layers=[0, 1, 2]),
}
CHUNKS = dict(max_num_batched_tokens=16)
WHOLE = ('mimic', 'qwen3', 'mamba-1')


@pytest.fixture(scope='module')
def plugin(repo_dir, tmp_path_factory):
    """A folder with the plugin alone, and the entry points of this package."""
    folder = tmp_path_factory.mktemp('plugin')
    name = 'mmtransmamba_vllm'
    (folder / name).symlink_to(repo_dir / name)
    command = [sys.executable, 'setup.py', '-q', 'egg_info', '--egg-base', folder]
    subprocess.run(command, cwd=repo_dir, check=True, capture_output=True)
    return folder


@pytest.fixture(scope='module')
def answers(plugin, tmp_path_factory):
    """Tokens of vLLM and of the hybrids."""
    runs, expected = [], {}
    for name, fields in MODELS.items():
        fields = dict(fields)
        sizes = SIZES | fields.pop('sizes', {})
        hybrid = make_hybrid(sizes=sizes, **fields)
        folder = tmp_path_factory.mktemp('hybrid')
        hybrid.save_pretrained(folder)
        expected[name] = greedy_of_hybrid(hybrid)
        runs.append((name, folder, CHUNKS))
        if name in WHOLE:
            runs.append((f'{name}, whole', folder, {}))
    return greedy_of_vllm(runs, plugin), expected


@pytest.mark.parametrize('name', MODELS)
def test_tokens_are_those_of_transformers(name, answers):
    tokens, expected = answers
    assert tokens[name] == expected[name]


@pytest.mark.parametrize('name', WHOLE)
def test_prompts_may_be_processed_whole(name, answers):
    tokens, expected = answers
    assert tokens[f'{name}, whole'] == expected[name]


def test_the_state_is_float32_unless_another_dtype_is_named(plugin, tmp_path):
    """vLLM alone would keep it in the dtype of the model."""
    make_hybrid(sizes=SIZES, init='mimic').save_pretrained(tmp_path)
    half = dict(dtype='bfloat16')
    named = half | dict(mamba_ssm_cache_dtype='bfloat16')
    runs = [('default', tmp_path, half), ('named', tmp_path, named)]
    states = states_of_vllm(runs, plugin)
    assert states['default'] == [['bfloat16', 'float32']] * 2
    assert states['named'] == [['bfloat16', 'bfloat16']] * 2
