"""The WKV's Triton kernels: values in the interpreter, and what is taken."""

import interpreted
import pytest
import torch
from triton_wkv_cases import CASES
from wkv_cases import wkv_operands

from mmtransmamba.ops import backends, bi_wkv
from mmtransmamba.ops.wkv import triton as module

NO_INTERPRETER = interpreted.why_not()


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
    return interpreted.outcomes('triton_wkv_cases', tmp_path_factory)


@pytest.mark.skipif(NO_INTERPRETER is not None, reason=str(NO_INTERPRETER))
@pytest.mark.parametrize('case', CASES)
def test_in_the_interpreter(outcomes, case):
    assert outcomes[case] is None, outcomes[case]


def test_it_is_the_first_choice_and_leaves_the_cpu_to_others():
    assert next(iter(backends.available('bi_wkv'))) == 'triton'
    operands = wkv_operands()
    assert module.refuses(operands) == 'it runs on a GPU, k is on cpu'
    assert backends.resolve('bi_wkv', operands) is not module


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('rule', ['formula', 'cuda'])
def test_other_backends_still_get_float32(dtype, rule):
    operands = {name: x.to(dtype) for name, x in wkv_operands().items()}
    y, _ = bi_wkv(**operands, rule=rule)
    exact = {name: x.float() for name, x in operands.items()}
    assert torch.equal(y, bi_wkv(**exact, rule=rule)[0].to(dtype))
