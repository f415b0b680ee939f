"""The delta rule's backend for GPUs: why it refuses, and what it passes to fla.

The package's functions are replaced by their formulas, so that this runs anywhere.
"""

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from delta_rule_cases import RULES, operands
from scan_cases import assert_close, outputs_and_gradients

from mmtransmamba.ops import backends, gated_delta_rule
from mmtransmamba.ops.delta_rule import fla, triton

both_rules = pytest.mark.parametrize('rule', RULES)


def formula(rule):
    """The documented interface of flash-linear-attention, as far as it is used."""

    def function(
        q, k, v, g, beta, scale, initial_state, output_final_state, cu_seqlens
    ):
        assert output_final_state and q.shape == k.shape and q.shape[2] == v.shape[2]
        assert q.dtype == k.dtype == v.dtype and g.dtype == beta.dtype == torch.float32
        assert initial_state is None or initial_state.dtype == torch.float32
        assert (g >= -30).all()
        steps = dict(q=q, k=k, v=v, g=g, beta=beta)
        ends = [0, v.shape[1]]
        if cu_seqlens is not None:
            assert v.shape[0] == 1 and len(initial_state) == len(cu_seqlens) - 1
            ends = cu_seqlens.tolist()
        outputs, states = [], []
        for i, (start, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            before = initial_state
            if cu_seqlens is not None:
                before = initial_state[i : i + 1]
            y, state = RULES[rule](
                **{name: x[:, start:stop] for name, x in steps.items()},
                scale=scale,
                initial_state=before,
                backend='reference',
            )
            outputs.append(y)
            states.append(state)
        return torch.cat(outputs, dim=1), torch.cat(states)

    return function


@pytest.fixture(autouse=True)
def package(monkeypatch):
    """The package with its formulas in place of its kernels."""
    for name in ('fla', 'fla.ops', 'fla.ops.gated_delta_rule', 'fla.ops.kda'):
        monkeypatch.setitem(sys.modules, name, ModuleType('fake'))
    sys.modules['fla.ops.gated_delta_rule'].chunk_gated_delta_rule = formula('gdn')
    sys.modules['fla.ops.kda'].chunk_kda = formula('kda')
    fla._functions.cache_clear()
    yield
    fla._functions.cache_clear()


def through_package(begins=None):
    def scan(q, k, v, g, beta, initial_state):
        options = {} if begins is None else {'begins': begins}
        return fla.scan(q, k, v, g, beta, initial_state, 0.3, **options)

    return scan


def expected_of(rule, case, begins=None):
    def scan(**named):
        return RULES[rule](**named, scale=0.3, begins=begins, backend='reference')

    return outputs_and_gradients(scan, case, torch.float64)


@both_rules
@pytest.mark.parametrize('state', [True, False], ids=['state', 'no_state'])
@pytest.mark.parametrize('cuts', [None, (), (0,), (1, 5), (0, 3, 8)], ids=str)
def test_arguments_are_mapped(rule, state, cuts):
    assert fla.unavailable() is None
    case = operands(rule, length=9, heads=6, groups=3, state=state)
    begins = None
    if cuts is not None:
        begins = torch.zeros(2, 9, dtype=torch.bool)
        begins[0, list(cuts)] = True
    actual = outputs_and_gradients(through_package(begins), case, torch.float32)
    expected = expected_of(rule, case, begins)
    if cuts:  # a first step's decay of nothing
        row = 'gradient of g'
        torch.testing.assert_close(
            actual[row][0, list(cuts)].abs().max(), torch.tensor(0.0)
        )
    assert_close(actual, expected, 1e-5)


def test_strong_decays_come_to_the_kernel_bounded():
    case = operands(length=9)
    case['g'][:, 4] = -torch.inf
    actual = outputs_and_gradients(through_package(), case, torch.float32)
    assert_close(actual, expected_of('gdn', case), 1e-5)


def test_half_precision_goes_to_the_kernel_as_it_is():
    case = operands(length=9)
    mixed = {k: x.bfloat16() if k in 'qkv' else x for k, x in case.items()}
    y, last_state = through_package()(**mixed)
    expected, expected_state = gated_delta_rule(**mixed, scale=0.3, backend='reference')
    assert last_state.dtype == torch.float32
    torch.testing.assert_close(y.to(expected), expected, rtol=0.05, atol=0.1)
    torch.testing.assert_close(last_state, expected_state, rtol=0.05, atol=0.1)


def on_gpu(batch=2, length=64, keys=64, values=64, **dtypes):
    """The attributes that a backend checks, of operands on a GPU."""
    shapes = dict(
        q=(batch, length, 2, keys),
        k=(batch, length, 2, keys),
        v=(batch, length, 4, values),
        g=(batch, length, 4),
        beta=(batch, length, 4),
    )
    return {
        name: SimpleNamespace(
            device=SimpleNamespace(type='cuda'),
            dtype=dtypes.get(name, torch.bfloat16),
            shape=shape,
            numel=lambda shape=shape: math.prod(shape),
        )
        for name, shape in shapes.items()
    } | dict(initial_state=None)


CHANNELS = '16 to 256 key channels and at least 16 value channels'


@pytest.mark.parametrize(
    ('sizes', 'reason'),
    [
        (dict(), None),
        (dict(keys=128, values=256), None),
        (dict(keys=16, values=16, length=9), None),
        (dict(v=torch.float16), None),
        (dict(g=torch.float32, beta=torch.float32), None),
        (dict(v=torch.float32), 'float16 and bfloat16, v is in torch.float32'),
        (dict(g=torch.float64), 'float32 state, g is in torch.float64'),
        (dict(keys=8), f'{CHANNELS}, q has 8 and v 64'),
        (dict(keys=512), f'{CHANNELS}, q has 512 and v 64'),
        (dict(values=8), f'{CHANNELS}, q has 64 and v 8'),
        (dict(length=8), 'at least 9 steps, v has 8'),
        (dict(batch=0), 'no empty batch'),
    ],
    ids=str,
)
def test_what_is_refused_goes_to_the_next_backend(sizes, reason):
    found = fla.refuses(on_gpu(**sizes))
    assert (found is None) if reason is None else (reason in found)
    backends._reason.cache_clear()
    module = backends.resolve('delta_rule', on_gpu(**sizes))
    backends._reason.cache_clear()
    given = on_gpu(**sizes)
    follows = triton.unavailable() is None and triton.refuses(given) is None
    rest = 'triton' if follows else 'chunked'
    chosen = 'fla' if reason is None else rest
    assert module.__name__.rpartition('.')[2] == chosen


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_other_devices_are_refused(device):
    case = {k: x.to(device) for k, x in operands().items()}
    assert fla.refuses(case) == f'it runs on CUDA, v is on {device}'


def test_the_choice_says_why(monkeypatch):
    backends._reason.cache_clear()
    with pytest.raises(ValueError, match='fla.* it runs on CUDA, v is on cpu'):
        gated_delta_rule(**operands(), backend='fla')
    monkeypatch.setitem(sys.modules, 'fla.ops.kda', None)
    fla._functions.cache_clear()
    backends._reason.cache_clear()
    with pytest.raises(
        RuntimeError, match="'fla' of delta_rule.* is not available: .*"
    ):
        gated_delta_rule(**operands(), backend='fla')
    backends._reason.cache_clear()
