"""llama.cpp on an exported folder that its own converter wrote as GGUF."""

import pytest
import torch
from granite_hybrids import make_hybrid
from llama_cpp_runs import CHECKOUT, PYTHON, REASON, convert, run

from mmtransmamba.apis.serving import export_language_model

pytestmark = pytest.mark.skipif(not (PYTHON and CHECKOUT), reason=REASON)

TEACHERS = ('llama', 'llama, tied', 'llama, four queries a key', 'llama, no sharing')
PROMPT, ANSWER = 21, 12


@pytest.mark.parametrize('teacher', [*TEACHERS, 'mistral without window'])
@pytest.mark.parametrize('layers', [[0, 2], [1]], ids=str)
def test_logits_and_tokens_are_those_of_the_hybrid(teacher, layers, tmp_path):
    hybrid = make_hybrid(teacher, layers, sizes=dict(vocab_size=64))
    export_language_model(hybrid, tmp_path / 'bamba', 'bamba', check=False)
    convert(tmp_path / 'bamba', tmp_path / 'model.gguf')
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 61, (1, PROMPT), generator=generator)
    result = run(tmp_path / 'model.gguf', ids[0].tolist(), ANSWER)
    with torch.no_grad():
        logits = hybrid(ids).logits[0]
        for _ in range(ANSWER):
            last = hybrid(ids).logits[:, -1].argmax(-1)
            ids = torch.cat((ids, last[:, None]), dim=1)
    difference = (torch.tensor(result['logits']) - logits).abs().max()
    assert difference < 1e-4 * logits.abs().max()
    assert result['tokens'] == ids[0, PROMPT:].tolist()
