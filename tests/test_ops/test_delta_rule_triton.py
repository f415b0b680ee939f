"""The delta rule's Triton kernels: values in the interpreter, and what is taken."""

import interpreted
import pytest
from delta_rule_cases import operands
from triton_delta_rule_cases import CASES

from mmtransmamba.ops import backends
from mmtransmamba.ops.delta_rule import triton as module
from mmtransmamba.ops.delta_rule import triton_plan as plan

NO_INTERPRETER = interpreted.why_not()


@pytest.mark.skipif(NO_INTERPRETER is not None, reason=str(NO_INTERPRETER))
@pytest.mark.parametrize('case', CASES)
def test_in_the_interpreter(tmp_path_factory, case):
    reason = interpreted.outcomes('triton_delta_rule_cases', tmp_path_factory)[case]
    assert reason is None, reason


def test_it_follows_fla_and_leaves_the_cpu_to_others():
    assert list(backends.available('delta_rule'))[:2] == ['fla', 'triton']
    named = operands()
    assert module.refuses(named) == 'it runs on a GPU, v is on cpu'
    assert backends.resolve('delta_rule', named) is not module


@pytest.mark.parametrize('length', [1, 16, 17, 4096])
@pytest.mark.parametrize('sequences', [1, 512])
@pytest.mark.parametrize('keys, values', [(1, 1), (70, 20), (128, 256), (256, 512)])
def test_tiles_cover_the_rule(sequences, length, keys, values):
    cut = plan.divide(sequences, length, keys, values)
    assert cut.chunk * cut.chunks >= length > cut.chunk * (cut.chunks - 1)
    assert cut.key_tile * cut.key_tiles >= keys > cut.key_tile * (cut.key_tiles - 1)
    assert all(x >= plan.BLOCK and not x & (x - 1) for x in (cut.chunk, cut.key_tile))
    assert cut.value_tile in plan.VALUE_TILES
