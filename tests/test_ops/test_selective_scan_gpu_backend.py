"""The selective scan of ``mamba_ssm``: what it refuses, and its last state's gradient.

The package's function is replaced by its formula, so that this runs anywhere.
"""

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from scan_cases import plain_operands

from mmtransmamba.ops.selective_scan import mamba_ssm, reference


class NoStateGradient(torch.autograd.Function):
    """A state whose gradient is left out, as the package's kernel does it."""

    @staticmethod
    def forward(ctx, state):
        return state.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


def selective_scan_fn(u, delta, A, B, C, D, z, bias, softplus, return_last_state):
    """``mamba_ssm``'s selective scan, as far as it is used."""
    assert return_last_state
    y, state = reference.scan(u, delta, A, B, C, D, z, bias, softplus)
    return y, NoStateGradient.apply(state)


@pytest.fixture(autouse=True)
def package(monkeypatch):
    names = ('mamba_ssm', 'mamba_ssm.ops', 'mamba_ssm.ops.selective_scan_interface')
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType('fake'))
    sys.modules[names[-1]].selective_scan_cuda = object()
    sys.modules[names[-1]].selective_scan_fn = selective_scan_fn
    mamba_ssm._selective_scan_fn.cache_clear()
    yield
    mamba_ssm._selective_scan_fn.cache_clear()


def run(scan, weights, softplus=True):
    """Outputs and the gradients of a weighted sum of both."""
    case = {k: v for k, v in plain_operands().items()}
    for name in ('u', 'delta', 'A', 'B', 'C', 'D', 'z', 'delta_bias'):
        case.setdefault(name, None)
    leaves = [v.requires_grad_() for v in case.values() if v is not None]
    y, state = scan(**case, delta_softplus=softplus)
    loss = weights[0] * y.square().sum() + weights[1] * state.sin().sum()
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [y, state], [
        torch.zeros_like(x) if g is None else g
        for x, g in zip(leaves, found, strict=True)
    ]


@pytest.mark.parametrize('softplus', [True, False])
@pytest.mark.parametrize('weights', [(1, 0), (0, 1), (1, 1)])
def test_last_state_has_its_gradient(weights, softplus):
    found = run(mamba_ssm.scan, weights, softplus)
    expected = run(reference.scan, weights, softplus)
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_nothing_is_computed_again_for_the_output_alone(monkeypatch):
    case = {k: v.requires_grad_() for k, v in plain_operands().items()}
    for name in ('D', 'z', 'delta_bias'):
        case.setdefault(name, None)
    y, _ = mamba_ssm.scan(**case, delta_softplus=True)
    monkeypatch.setattr(reference, 'scan', None)
    y.sum().backward()
    assert case['u'].grad.any()


def on_gpu(batch=2, channels=8, states=16, length=8, constant='', dtype=torch.float32):
    """The attributes that the backend checks, of operands on a GPU."""
    shapes = dict(u=(batch, channels, length), A=(channels, states))
    for name in 'BC':
        varying = (batch, states, length)
        shapes[name] = (channels, states) if name in constant else varying
    return {
        name: SimpleNamespace(
            device=SimpleNamespace(type='cuda'),
            dtype=dtype,
            shape=shape,
            ndim=len(shape),
            numel=lambda shape=shape: math.prod(shape),
        )
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(
    'sizes, reason',
    [
        (dict(), None),
        (dict(states=256), None),
        (dict(states=257), 'at most 256 states, A has 257'),
        (dict(length=1), None),
        (dict(length=0), 'no empty batch'),
        (dict(batch=0), 'no empty batch'),
        (dict(constant='B'), 'vary in time, B does not'),
        (dict(constant='BC'), 'vary in time, B does not'),
        (dict(constant='C'), 'vary in time, C does not'),
        (dict(dtype=torch.float64), 'computes in float32'),
    ],
    ids=str,
)
def test_what_is_refused(sizes, reason):
    found = mamba_ssm.refuses(on_gpu(**sizes))
    assert (found is None) if reason is None else (reason in found)
