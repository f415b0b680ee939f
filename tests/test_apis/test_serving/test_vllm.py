"""vLLM on an exported folder, without this package."""

import pytest
from granite_hybrids import make_hybrid
from vllm_runs import PYTHON, REASON, SIZES, greedy_of_hybrid, greedy_of_vllm

from mmtransmamba.apis.serving import export_language_model

pytestmark = pytest.mark.skipif(not PYTHON, reason=REASON)

MODELS = {
    'llama': ('llama', [0, 2]),
    'llama 3 positions': ('llama 3 positions', [1]),
    'qwen2': ('qwen2', [0, 2]),
}
OPTIONS = {'whole prompts': {}, 'chunks': dict(max_num_batched_tokens=16)}


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
    """Tokens of vLLM and of the hybrids."""
    runs, expected = [], {}
    for name, (teacher, layers) in MODELS.items():
        hybrid = make_hybrid(teacher, layers, sizes=SIZES)
        folder = tmp_path_factory.mktemp('granite') / 'granite'
        export_language_model(hybrid, folder)
        expected[name] = greedy_of_hybrid(hybrid)
        for option, changes in OPTIONS.items():
            changes = dict(mamba_ssm_cache_dtype='float32') | changes
            runs.append((f'{name}, {option}', folder, changes))
    return greedy_of_vllm(runs), expected


@pytest.mark.parametrize('option', OPTIONS)
@pytest.mark.parametrize('name', MODELS)
def test_tokens_are_those_of_the_hybrid(name, option, answers):
    tokens, expected = answers
    assert tokens[f'{name}, {option}'] == expected[name]
