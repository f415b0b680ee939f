"""The gated norm: plain torch, and Triton's kernels in the interpreter."""

import interpreted
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from triton_norm_cases import CASES

from mmtransmamba.ops import backends
from mmtransmamba.ops.gated_norm import gated_norm
from mmtransmamba.ops.gated_norm import triton as module


def tensors(dtype=torch.float32, channels=12):
    generator = torch.Generator().manual_seed(0)
    y, z = (torch.randn(2, 5, channels, generator=generator).to(dtype) for _ in 'yz')
    return y, z, torch.randn(channels, generator=generator)


@pytest.mark.parametrize('gate_first', [True, False])
@pytest.mark.parametrize('group', [12, 3])
def test_it_is_pytorchs_norm_of_each_group(gate_first, group):
    y, z, weight = (x.double() for x in tensors())
    given = y * F.silu(z) if gate_first else y
    norm = nn.RMSNorm(group, eps=1e-5, elementwise_affine=False)
    expected = norm(given.unflatten(-1, (-1, group))).flatten(-2) * weight
    expected = expected if gate_first else expected * F.silu(z)
    found = gated_norm(y, z, weight, group=group, eps=1e-5, gate_first=gate_first)
    torch.testing.assert_close(found, expected)


def test_a_gate_can_be_a_sigmoid_or_absent():
    y, z, weight = tensors()
    kind = dict(group=4, eps=1e-5)
    plain = gated_norm(y, None, weight, **kind)
    found = gated_norm(y, z, weight, activation='sigmoid', **kind)
    torch.testing.assert_close(found, plain * z.sigmoid())


def test_gradients_of_the_reference_are_right():
    leaves = [x.double().requires_grad_() for x in tensors(channels=4)]
    for first in (False, True):
        assert torch.autograd.gradcheck(
            lambda *x, first=first: gated_norm(*x, group=2, eps=1e-3, gate_first=first),
            leaves,
        )


def test_the_result_has_the_dtype_that_is_asked_for():
    y, z, weight = tensors(torch.bfloat16)
    kind = dict(group=4, eps=1e-5)
    wide = gated_norm(y, z, weight, **kind)
    assert wide.dtype == torch.float32
    narrow = gated_norm(y, z, weight, dtype=torch.bfloat16, **kind)
    assert torch.equal(narrow, wide.bfloat16())


@pytest.mark.parametrize('gate_first', [True, False])
def test_a_product_beyond_float16_is_no_infinity(gate_first):
    large, ones = torch.full((1, 4), 300.0).half(), torch.ones(4)
    kind = dict(group=4, eps=1e-5, gate_first=gate_first)
    found = gated_norm(large, large, ones, **kind)
    torch.testing.assert_close(found, ones[None] * (1 if gate_first else 300))


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(group=5), r'group=5 must divide the 12 channels'),
        (dict(activation='relu'), "activation='relu' must be one of 'silu', 'sigmoid'"),
        (dict(weight=torch.ones(3)), r'weight \[3\]; accepted: \[\.\.\., D\]'),
        (dict(z=torch.ones(2, 5, 3)), r'z \[2, 5, 3\]'),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    y, z, weight = tensors()
    given = dict(y=y, z=z, weight=weight, group=4, eps=1e-5) | changes
    with pytest.raises(ValueError, match=message):
        gated_norm(**given)


def test_triton_is_the_first_choice_and_leaves_the_cpu_to_others():
    assert list(backends.available('gated_norm')) == ['triton', 'reference']
    y, z, weight = tensors()
    reason = module.refuses(dict(y=y, z=z, weight=weight, group=y))
    assert reason == 'it runs on a GPU, y is on cpu'


@pytest.mark.skipif(bool(interpreted.why_not()), reason=str(interpreted.why_not()))
@pytest.mark.parametrize('case', CASES)
def test_in_the_interpreter(case, tmp_path_factory):
    reason = interpreted.outcomes('triton_norm_cases', tmp_path_factory)[case]
    assert reason is None, reason
