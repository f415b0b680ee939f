"""The WKV's Triton kernels: values in the interpreter, and what is taken."""

import interpreted
import pytest
import torch
import triton_wkv6_cases
import triton_wkv_cases
from wkv_cases import wkv6_operands, wkv_operands

from mmtransmamba.ops import backends, bi_wkv, bi_wkv6
from mmtransmamba.ops.wkv import triton as module

NO_INTERPRETER = interpreted.why_not()


@pytest.mark.skipif(NO_INTERPRETER is not None, reason=str(NO_INTERPRETER))
@pytest.mark.parametrize(
    ('module', 'case'),
    [(m.__name__, x) for m in (triton_wkv_cases, triton_wkv6_cases) for x in m.CASES],
)
def test_in_the_interpreter(tmp_path_factory, module, case):
    reason = interpreted.outcomes(module, tmp_path_factory)[case]
    assert reason is None, reason


@pytest.mark.parametrize(
    ('op', 'operands'), [('bi_wkv', wkv_operands), ('bi_wkv6', wkv6_operands)]
)
def test_it_is_the_first_choice_and_leaves_the_cpu_to_others(op, operands):
    assert next(iter(backends.available(op))) == 'triton'
    operands = operands()
    assert module.refuses(operands) == 'it runs on a GPU, k is on cpu'
    assert backends.resolve(op, operands) is not module


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_other_backends_still_get_float32_of_v6(dtype):
    operands = {name: x.to(dtype) for name, x in wkv6_operands().items()}
    exact = {name: x.float() for name, x in operands.items()}
    assert torch.equal(bi_wkv6(**operands)[0], bi_wkv6(**exact)[0].to(dtype))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('rule', ['formula', 'cuda'])
def test_other_backends_still_get_float32(dtype, rule):
    operands = {name: x.to(dtype) for name, x in wkv_operands().items()}
    y, _ = bi_wkv(**operands, rule=rule)
    exact = {name: x.float() for name, x in operands.items()}
    assert torch.equal(y, bi_wkv(**exact, rule=rule)[0].to(dtype))
