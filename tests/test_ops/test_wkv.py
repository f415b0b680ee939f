"""Bidirectional WKV in plain torch: golden numbers, direct sums, gradients, errors."""

import numpy as np
import pytest
import torch
from golden import GOLDEN_DIR
from wkv_cases import (
    cuda_weights,
    direct_wkv,
    direct_wkv6,
    formula_weights,
    random_taps,
    wkv6_operands,
    wkv_operands,
)

from mmtransmamba.ops import backends, bi_wkv, bi_wkv6

GOLDEN = dict(np.load(GOLDEN_DIR / 'wkv.npz'))
DIRECT = {'formula': formula_weights, 'cuda': cuda_weights}


def double(operands):
    return {name: x.double() for name, x in operands.items()}


def gap(actual, expected):
    expected = torch.as_tensor(expected)
    return float((actual.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize('case', 'abc')
@pytest.mark.parametrize(
    ('rule', 'array', 'tolerance'),
    # The arrays themselves are good to a few units in the last place of float32.
    [('formula', 'out', 5e-7), ('cuda', 'out_kernel', 2e-6)],
)
def test_golden(case, rule, array, tolerance):
    operands = {n: torch.from_numpy(GOLDEN[f'biwkv_{case}_{n}']) for n in 'wukv'}
    expected = GOLDEN[f'biwkv_{case}_{array}']
    y, taps = bi_wkv(**double(operands), rule=rule)
    assert taps is None
    assert gap(y, expected) < tolerance
    assert gap(bi_wkv(**operands, rule=rule)[0], expected) < 3e-6
    other = bi_wkv(**double(operands), rule='cuda' if rule == 'formula' else 'formula')
    assert gap(other[0], expected) > 1e-3


@pytest.mark.parametrize(
    ('backend', 'dtype', 'tolerance'),
    [('reference', torch.float64, 1e-12), (None, torch.float32, 1e-6)],
)
def test_golden_v6(backend, dtype, tolerance):
    operands = {n: torch.from_numpy(GOLDEN[f'biwkv6_{n}']).to(dtype) for n in 'rkvwu'}
    y, _ = bi_wkv6(**operands, backend=backend)
    assert gap(y, GOLDEN['biwkv6_out']) < tolerance


@pytest.mark.parametrize('length', [1, 2, 31, 32, 33, 70, 100])
@pytest.mark.parametrize('rule', DIRECT)
def test_direct_evaluation(rule, length):
    # The cuda rule's weights change sign and cancel where decays are strong.
    operands = double(
        wkv_operands(length=length, decay=1.0 if rule == 'formula' else 0.1)
    )
    order = torch.arange(length)
    taps = torch.stack([order, order])
    y, directions = bi_wkv(**operands, rule=rule, tap_index=taps, backend='reference')
    want, want_directions = direct_wkv(**operands, weights=DIRECT[rule])
    assert gap(y, want) < 1e-12
    assert gap(directions[:, 0], want_directions[:, 0]) < 1e-12
    # Step s of the backward direction reads token T - 1 - s.
    assert gap(directions[:, 1] + 1, want_directions[:, 1].flip(1) + 1) < 1e-12


@pytest.mark.parametrize('decay', [-4.0, 0.0, 3.0])
@pytest.mark.parametrize('length', [1, 2, 20])
def test_direct_evaluation_v6(length, decay):
    operands = double(wkv6_operands(length=length, decay=decay))
    order = torch.arange(length)
    taps = torch.stack([order, order])
    y, directions = bi_wkv6(**operands, tap_index=taps, backend='reference')
    want, want_directions = direct_wkv6(**operands)
    assert gap(y, want) < 1e-12
    assert gap(directions[:, 0], want_directions[:, 0]) < 1e-12
    assert gap(directions[:, 1] + 1, want_directions[:, 1].flip(1) + 1) < 1e-12


@pytest.mark.parametrize('rule', DIRECT)
@pytest.mark.parametrize('tapped', [False, True])
def test_gradcheck(rule, tapped):
    length = 35 if rule == 'cuda' else 5
    operands = double(wkv_operands(1, length, 2, 0.3))
    leaves = [x.requires_grad_() for x in operands.values()]
    taps = random_taps(length) if tapped else None

    def function(w, u, k, v):
        y, directions = bi_wkv(w, u, k, v, rule=rule, tap_index=taps)
        return (y, directions) if tapped else y

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize('tapped', [False, True])
def test_gradcheck_v6(tapped):
    operands = double(wkv6_operands(1, 4, 2, 2))
    leaves = [x.requires_grad_() for x in operands.values()]
    taps = random_taps(4) if tapped else None

    def function(*tensors):
        y, directions = bi_wkv6(*tensors, tap_index=taps)
        return (y, directions) if tapped else y

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize('function', [bi_wkv, bi_wkv6])
def test_taps_of_the_two_directions_sum_to_the_output(function):
    operands = (wkv_operands if function is bi_wkv else wkv6_operands)(length=9)
    tokens = torch.tensor([4, 0, 8, 4])
    y, taps = function(**operands, tap_index=torch.stack([tokens, 8 - tokens]))
    assert taps.shape == (2, 2, 4, 12)
    torch.testing.assert_close(taps.sum(1), y[:, tokens])
    torch.testing.assert_close(y, function(**operands)[0])


def test_decays_beyond_the_range_of_exp():
    """Where exp of the plain exponents overflows, the limits are known."""
    v = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()[None, :, None]
    k, u = torch.zeros_like(v), torch.zeros(1).double()
    for dtype in (torch.float64, torch.float32):

        def run(w, k=k, dtype=dtype):
            operands = [torch.tensor([w]), u, k, v]
            return bi_wkv(*(x.to(dtype) for x in operands))[0].flatten().double()

        # Only neighbours and the token itself count, or only the farthest tokens.
        near = torch.tensor([1.5, 2, 3, 3.5]).double()
        torch.testing.assert_close(run(2000.0), near, rtol=1e-6, atol=0)
        far = torch.tensor([4.0, 4, 1, 1]).double()
        torch.testing.assert_close(run(-2000.0), far, rtol=1e-6, atol=0)
        # Keys far from 0: the constant in the denominator prevails, or not at all.
        assert run(0.0, k - 1000).abs().max() < 1e-30
        torch.testing.assert_close(
            run(0.0, k + 1000), torch.full((4,), 2.5).double(), rtol=1e-6, atol=0
        )


@pytest.mark.parametrize('w', [1e31, 1e38, float('inf')])
def test_the_strongest_decay_lets_a_token_see_its_neighbours_alone(w):
    v = torch.tensor([1.0, 2.0, 3.0, 4.0])[None, :, None].requires_grad_()
    zero = torch.zeros(1)
    y, _ = bi_wkv(torch.tensor([w]), zero, torch.zeros_like(v), v, backend='reference')
    near = torch.tensor([1.5, 2, 3, 3.5])
    torch.testing.assert_close(y.flatten(), near, rtol=1e-5, atol=0)
    y.sum().backward()
    assert v.grad.isfinite().all()


def test_decays_of_v6_beyond_the_range_of_exp():
    operands = wkv6_operands(length=6)
    for w in (-200.0, 200.0):
        operands['w'] = torch.full_like(operands['w'], w).requires_grad_()
        y, _ = bi_wkv6(**operands)
        y.square().sum().backward()
        assert y.isfinite().all() and operands['w'].grad.abs().max() == 0


@pytest.mark.parametrize('function', [bi_wkv, bi_wkv6])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(function, dtype):
    operands = (wkv_operands if function is bi_wkv else wkv6_operands)()
    low = {name: x.to(dtype) for name, x in operands.items()}
    y, taps = function(**low, tap_index=random_taps(7))
    assert y.dtype == taps.dtype == dtype
    expected, _ = function(**{name: x.float() for name, x in low.items()})
    assert torch.equal(y, expected.to(dtype))


def test_the_cuda_rule_has_no_native_backend():
    assert 'native' not in backends.available('bi_wkv_cuda_rule')
    with pytest.raises(ValueError, match="no backend 'native'"):
        bi_wkv(**wkv_operands(), rule='cuda', backend='native')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(rule='kernel'), "rule 'kernel' is unknown; accepted: formula, cuda"),
        (dict(k=torch.zeros(2, 7)), r'k has shape \[2, 7\]; accepted: \[B, T, C\]'),
        (dict(k=torch.zeros(2, 0, 12)), 'k has T = 0 tokens'),
        (dict(v=torch.zeros(2, 7, 11)), r'v has shape \[2, 7, 11\].*C = 12'),
        (dict(w=torch.zeros(2, 12)), r'w has shape \[2, 12\]; accepted: \[C\]'),
        (dict(u=torch.zeros(12).long()), 'u has dtype torch.int64'),
        (dict(v=torch.zeros(2, 7, 12, device='meta')), 'v is on meta, but k is on cpu'),
        (dict(tap_index=torch.zeros(1, 2).long()), r'tap_index has shape \[1, 2\]'),
        (dict(tap_index=torch.zeros(2, 2)), 'tap_index has dtype torch.float32'),
        (dict(tap_index=torch.tensor([[0], [7]])), 'tap_index has indices from 0 to 7'),
        (dict(tap_index=torch.tensor([[-1], [0]])), 'tap_index has indices from -1'),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        bi_wkv(**wkv_operands() | change)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(u=torch.zeros(2, 5)), r'u has shape \[2, 5\].*H \* D = C = 12'),
        (dict(u=torch.zeros(12)), r'u has shape \[12\]; accepted: \[H, D\]'),
        (dict(r=torch.zeros(2, 6, 12)), r'r has shape \[2, 6, 12\]'),
    ],
)
def test_bad_arguments_of_v6(change, message):
    with pytest.raises(ValueError, match=message):
        bi_wkv6(**wkv6_operands() | change)
