"""vLLM on an exported folder, in an environment of its own without this package.

``MMTRANSMAMBA_VLLM_PYTHON`` names its interpreter. vLLM 0.32 pins a transformers older
than the oldest that this package supports, so the two do not share an environment.
"""

import json
import os
import subprocess

import pytest
import torch
from granite_hybrids import make_hybrid

from mmtransmamba.apis.serving import export_language_model
from mmtransmamba.models.language.cache_names import as_argument, returned_cache

PYTHON = os.environ.get('MMTRANSMAMBA_VLLM_PYTHON')
pytestmark = pytest.mark.skipif(
    not PYTHON, reason='MMTRANSMAMBA_VLLM_PYTHON names no interpreter with vLLM'
)
PROMPTS = [[5, 9, 23], [3 + i % 50 for i in range(11)], [7 * i % 61 for i in range(40)]]
ANSWER = 12
SERVE = f"""
import json, sys
from vllm import LLM, SamplingParams
model = LLM(
    sys.argv[1], dtype='float32', enforce_eager=True, skip_tokenizer_init=True,
    max_model_len=128, max_num_seqs=4, gpu_memory_utilization=0.2,
    mamba_ssm_cache_dtype='float32', **json.loads(sys.argv[2]),
)
options = SamplingParams(
    temperature=0, max_tokens={ANSWER}, ignore_eos=True, detokenize=False
)
prompts = [dict(prompt_token_ids=ids) for ids in {PROMPTS}]
outputs = model.generate(prompts, options)
print('TOKENS', json.dumps([list(o.outputs[0].token_ids) for o in outputs]))
"""


def greedy(model, ids):
    """Tokens of the hybrid itself, without rules of a generation config."""
    tokens, rest, cache = [], torch.tensor([ids]), None
    for _ in range(ANSWER):
        with torch.no_grad():
            output = model(rest, use_cache=True, **as_argument(cache))
        cache = returned_cache(output)
        rest = output.logits[:, -1:].argmax(-1)
        tokens.append(int(rest))
    return tokens


@pytest.mark.parametrize('options', [{}, dict(max_num_batched_tokens=16)], ids=str)
@pytest.mark.parametrize(
    'teacher, layers',
    [('llama', [0, 2]), ('llama 3 positions', [1]), ('qwen2', [0, 2])],
)
def test_tokens_are_those_of_the_hybrid(teacher, layers, options, tmp_path):
    hybrid = make_hybrid(teacher, layers, sizes=dict(hidden_size=128, head_dim=32))
    export_language_model(hybrid, tmp_path / 'granite')
    environment = os.environ | dict(
        VLLM_ENABLE_V1_MULTIPROCESSING='0', VLLM_CPU_OMP_THREADS_BIND='nobind'
    )
    environment.pop('PYTHONPATH', None)
    done = subprocess.run(
        [PYTHON, '-c', SERVE, str(tmp_path / 'granite'), json.dumps(options)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith('TOKENS'))
    expected = [greedy(hybrid, ids) for ids in PROMPTS]
    assert json.loads(line.removeprefix('TOKENS')) == expected
