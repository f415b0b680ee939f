"""Greedy tokens of vLLM, in an environment of its own.

``MMTRANSMAMBA_VLLM_PYTHON`` names its interpreter. vLLM 0.32 pins a transformers older
than the oldest that this package supports, so the two do not share an environment.
"""

from __future__ import annotations

import json
import os
import subprocess

import torch

from mmtransmamba.models.language.cache_names import as_argument, returned_cache

PYTHON = os.environ.get('MMTRANSMAMBA_VLLM_PYTHON')
REASON = 'MMTRANSMAMBA_VLLM_PYTHON names no interpreter with vLLM'
PROMPTS = [[5, 9, 23], [3 + i % 50 for i in range(11)], [7 * i % 61 for i in range(40)]]
ANSWER = 12
SIZES = dict(hidden_size=128, head_dim=32)  # vLLM's attention needs heads of 32
SERVE = f"""
import json, sys
from vllm import LLM, SamplingParams

options = SamplingParams(
    temperature=0, max_tokens={ANSWER}, ignore_eos=True, detokenize=False
)
prompts = [dict(prompt_token_ids=ids) for ids in {PROMPTS}]
for name, folder, changes in json.loads(sys.argv[1]):
    settings = dict(
        dtype='float32', enforce_eager=True, skip_tokenizer_init=True,
        max_model_len=128, max_num_seqs=4, gpu_memory_utilization=0.2,
    )
    try:
        model = LLM(folder, **settings | changes)
        outputs = model.generate(prompts, options)
        result = [list(output.outputs[0].token_ids) for output in outputs]
        layers = model.llm_engine.vllm_config.compilation_config.static_forward_context
        states = [
            [str(state.dtype).removeprefix('torch.') for state in layer.kv_cache]
            for layer in layers.values() if hasattr(layer, 'get_state_dtype')
        ]
    except Exception as error:
        result, states = str(error), None
    print('RESULT', json.dumps([name, result, states]), flush=True)
    model = None
"""


def greedy_of_vllm(runs, plugin=None):
    """Tokens that vLLM generates after each prompt, by the name of the run.

    Args:
        runs: Name, folder and options of ``vllm.LLM`` for each run.
        plugin: Folder that contains the plugin and its entry point.

    Returns:
        Lists of tokens, or the error message if the model could not be run.
    """
    return {name: tokens for name, tokens, _ in _run(runs, plugin)}


def states_of_vllm(runs, plugin=None):
    """Dtypes of the states that vLLM has allocated for each mixer, by the run's name.

    Args:
        runs, plugin: See :func:`greedy_of_vllm`.
    """
    results = _run(runs, plugin)
    failed = [tokens for _, tokens, states in results if states is None]
    assert not failed, failed
    return {name: states for name, _, states in results}


def _run(runs, plugin):
    environment = os.environ | dict(
        VLLM_ENABLE_V1_MULTIPROCESSING='0', VLLM_CPU_OMP_THREADS_BIND='nobind'
    )
    environment.pop('PYTHONPATH', None)
    if plugin is not None:
        environment['PYTHONPATH'] = str(plugin)
    given = json.dumps([(name, str(folder), options) for name, folder, options in runs])
    # In the plugin's folder: an older egg-info of an installed checkout would be found
    # first in the current one, with the entry points of its time.
    done = subprocess.run(
        [PYTHON, '-c', SERVE, given],
        capture_output=True,
        text=True,
        env=environment,
        cwd=plugin,
    )
    results = [
        json.loads(line.removeprefix('RESULT'))
        for line in done.stdout.splitlines()
        if line.startswith('RESULT')
    ]
    assert len(results) == len(runs), done.stderr[-3000:]
    return results


def greedy_of_hybrid(model):
    """Tokens of the hybrid itself, without rules of a generation config."""
    answers = []
    for prompt in PROMPTS:
        tokens, rest, cache = [], torch.tensor([prompt]), None
        for _ in range(ANSWER):
            with torch.no_grad():
                output = model(rest, use_cache=True, **as_argument(cache))
            cache = returned_cache(output)
            rest = output.logits[:, -1:].argmax(-1)
            tokens.append(int(rest))
        answers.append(tokens)
    return answers
