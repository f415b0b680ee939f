"""Runs of llama.cpp on exported folders, in another environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PYTHON = os.environ.get('MMTRANSMAMBA_LLAMA_CPP_PYTHON')
"""Python of an environment with ``llama-cpp-python``."""
CHECKOUT = os.environ.get('MMTRANSMAMBA_LLAMA_CPP')
"""llama.cpp's source, whose converter runs in this environment."""
REASON = (
    'needs llama.cpp: set MMTRANSMAMBA_LLAMA_CPP to its source, and '
    'MMTRANSMAMBA_LLAMA_CPP_PYTHON to a Python with llama-cpp-python'
)

# The stock converter; a folder without a tokenizer gets a file without one.
_CONVERT = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + '/gguf-py']
from conversion.granite import GraniteHybridModel
if sys.argv[4] == 'none':
    GraniteHybridModel.set_vocab = lambda self: self._set_vocab_none()
sys.argv = ['convert', sys.argv[2], '--outfile', sys.argv[3], '--outtype', 'f32']
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""
# Logits of all tokens of a prompt, then of greedy tokens one at a time.
_RUN = """
import ctypes, json, sys
import llama_cpp as c
path, ids, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
c.llama_backend_init()
model = c.llama_model_load_from_file(path.encode(), c.llama_model_default_params())
assert model, 'not loaded'
params = c.llama_context_default_params()
params.n_ctx = params.n_batch = params.n_ubatch = 256
params.n_threads = params.n_threads_batch = 1
params.type_k = params.type_v = 0  # float32
params.flash_attn_type = 0  # it rounds to half precision
context = c.llama_init_from_model(model, params)
words = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
def run(tokens, first):
    batch = c.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i] = token, first + i
        batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
    assert c.llama_decode(context, batch) == 0
    return [c.llama_get_logits_ith(context, i)[:words] for i in range(len(tokens))]
logits = run(ids, 0)
tokens, last = [], logits[-1]
for i in range(count):
    tokens.append(max(range(words), key=last.__getitem__))
    (last,) = run(tokens[-1:], len(ids) + i)
print('RESULT' + json.dumps(dict(logits=logits, tokens=tokens)))
"""


def convert(folder: Path, file: Path, tokenizer: bool = False) -> None:
    """Write a GGUF file of an exported folder with llama.cpp's converter."""
    options = [CHECKOUT, str(folder), str(file), 'own' if tokenizer else 'none']
    _run([sys.executable, '-c', _CONVERT, *options])


def run(file: Path, ids: list[int], count: int) -> dict[str, list]:
    """Logits ``[L, V]`` of a prompt, and greedy tokens after it."""
    output = _run([PYTHON, '-c', _RUN, str(file), json.dumps(ids), str(count)])
    return json.loads(output.partition('RESULT')[2])


def _run(command: list[str]) -> str:
    # The package of this checkout is not needed, and PyTorch is another one.
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
