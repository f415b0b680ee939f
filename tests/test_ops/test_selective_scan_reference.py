"""The plain torch scan: golden numbers, gradients, and what bad input gets."""

import numpy as np
import pytest
import torch
from scan_cases import direction_operands, plain_operands, random_orders

from mmtransmamba.ops import selective_scan_directions, selective_scan_fn


@pytest.mark.parametrize('gated', [False, True])
@pytest.mark.parametrize(
    ('backend', 'dtype', 'tolerance'),
    [('reference', torch.float64, 1e-12), (None, torch.float32, 1e-5)],
)
def test_golden(shared_dir, gated, backend, dtype, tolerance):
    golden = np.load(shared_dir / 'golden' / 'ops.npz')
    names = ['u', 'delta', 'A', 'B', 'C', 'D', 'delta_bias'] + ['z'] * gated
    operands = {k: torch.from_numpy(golden[f'scan_{k}']).to(dtype) for k in names}
    y, last_state = selective_scan_fn(
        **operands, delta_softplus=True, return_last_state=True, backend=backend
    )
    expected = golden['scan_out_gated' if gated else 'scan_out']
    for got, want in ((y, expected), (last_state, golden['scan_last_state'])):
        assert np.abs(got.numpy() - want).max() <= tolerance * np.abs(want).max()


def test_against_a_scalar_loop():
    """Two channels in two groups, every number computed by hand in Python."""
    operands = plain_operands(1, 2, 3, 2, groups=2)
    y, last = selective_scan_fn(
        **operands, delta_softplus=True, return_last_state=True, backend='reference'
    )
    o = {name: x.tolist() for name, x in operands.items()}
    for d in range(2):
        h = [0.0, 0.0]
        for t in range(3):
            step = np.log1p(np.exp(o['delta'][0][d][t] + o['delta_bias'][d]))
            u, z = o['u'][0][d][t], o['z'][0][d][t]
            out = o['D'][d] * u
            for n in range(2):
                drive = step * o['B'][0][d][n][t] * u
                h[n] = np.exp(step * o['A'][d][n]) * h[n] + drive
                out += o['C'][0][d][n][t] * h[n]
            assert y[0, d, t].item() == pytest.approx(
                out * z / (1 + np.exp(-z)), rel=1e-5
            )
        assert last[0, d].tolist() == pytest.approx(h, rel=1e-5)


@pytest.mark.parametrize('optional', [False, True])
@pytest.mark.parametrize('groups', [None, 2])
def test_gradcheck(optional, groups):
    operands = plain_operands(1, 4, 4, 2, groups, optional)
    leaves = {
        k: x.double().requires_grad_() for k, x in operands.items() if x is not None
    }

    def function(*tensors):
        named = dict(zip(leaves, tensors, strict=True))
        return selective_scan_fn(**named, delta_softplus=True, return_last_state=True)

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))


def test_gradcheck_with_parameters_constant_over_time():
    operands = plain_operands(1, 3, 4, 2)
    leaves = [operands[k].double().requires_grad_() for k in ('u', 'delta', 'A')]
    B, C = torch.randn(2, 3, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *x: selective_scan_fn(*x, delta_softplus=True), (*leaves, B, C)
    )


@pytest.mark.parametrize('permute_params', [False, True])
def test_gradcheck_of_directions(permute_params):
    operands = direction_operands(2, 4, 2, 3, 1, own='B')
    leaves = {k: x.double().requires_grad_() for k, x in operands.items()}

    def function(*tensors):
        return selective_scan_directions(
            **dict(zip(leaves, tensors, strict=True)),
            order=random_orders(2, 4),
            permute_params=permute_params,
            tap_index=torch.tensor([[0, 3], [2, 2]]),
            delta_softplus=True,
        )

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))


@pytest.mark.parametrize('permute_params', [False, True])
def test_directions_are_permuted_plain_scans(permute_params):
    operands = direction_operands(3, 6, own='A B D')
    order, taps = random_orders(3, 6), torch.tensor([[5, 0], [1, 1], [2, 4]])
    y, tapped = selective_scan_directions(
        **operands,
        order=order,
        permute_params=permute_params,
        tap_index=taps,
        delta_softplus=True,
        backend='reference',
    )
    expected = torch.zeros_like(y)
    for k in range(3):
        u, delta, B, C = (
            operands[name][:, k if name == 'B' else 0]
            for name in ('u', 'delta', 'B', 'C')
        )
        u = u[..., order[k]]
        if permute_params:
            delta, B, C = (x[..., order[k]] for x in (delta, B, C))
        one = selective_scan_fn(
            u,
            delta,
            operands['A'][k],
            B,
            C,
            operands['D'][k],
            delta_bias=operands['delta_bias'][0],
            delta_softplus=True,
            backend='reference',
        )
        expected[..., order[k]] += one
        assert torch.allclose(tapped[:, k], one[..., taps[k]], atol=1e-6)
    assert torch.allclose(y, expected, atol=1e-5)


BAD_PLAIN = {
    'u': (torch.zeros(2, 7), r'u has shape \[2, 7\]; accepted: \[B, D, L\]'),
    'delta': (torch.zeros(2, 12, 6), r'delta has shape .*accepted: \[B, D, L\]'),
    'A': (torch.zeros(11, 3), r'A has shape \[11, 3\]; accepted: \[D, N\]'),
    'B': (torch.zeros(2, 4, 7), r'B has shape \[2, 4, 7\]; accepted: \[B, N, L\]'),
    'C': (torch.zeros(2, 5, 3, 7), 'C has 5 groups .* do not divide the 12 channels'),
    'D': (torch.zeros(11), r'D has shape \[11\]; accepted: \[D\]'),
    'z': (torch.zeros(2, 12, 7, dtype=torch.int64), 'z has dtype torch.int64'),
    'delta_bias': (torch.zeros(12, device='meta'), 'delta_bias is on meta'),
}


@pytest.mark.parametrize('name', BAD_PLAIN)
def test_bad_operand_is_named(name):
    value, message = BAD_PLAIN[name]
    with pytest.raises(ValueError, match=message):
        selective_scan_fn(**plain_operands() | {name: value})


def test_complex_states_are_refused():
    operands = plain_operands()
    operands['A'] = operands['A'].to(torch.complex64)
    with pytest.raises(ValueError, match='A has dtype torch.complex64'):
        selective_scan_fn(**operands)


@pytest.mark.parametrize(('length', 'states'), [(0, 3), (7, 0)])
def test_no_steps_and_no_states_are_refused(length, states):
    with pytest.raises(ValueError, match='at least one'):
        selective_scan_fn(**plain_operands(length=length, states=states))


BAD_DIRECTIONS = {
    'u': (torch.zeros(2, 3, 20, 6), r'u has shape .*\[B, 1 or K, D, L\] with .*K = 2'),
    'order': (torch.zeros(2, 5, dtype=torch.int64), r'order has shape \[2, 5\]'),
    'tap_index': (torch.zeros(1, 4, dtype=torch.int64), r'tap_index has shape \[1, 4'),
    'delta_bias': (torch.zeros(20), r'delta_bias has shape \[20\]; accepted: \[1 or K'),
}


@pytest.mark.parametrize('name', BAD_DIRECTIONS)
def test_bad_operand_of_directions_is_named(name):
    value, message = BAD_DIRECTIONS[name]
    operands = direction_operands(2, 6) | {'order': random_orders(2, 6)}
    with pytest.raises(ValueError, match=message):
        selective_scan_directions(**operands | {name: value})


def test_index_of_another_dtype_is_refused():
    with pytest.raises(ValueError, match='order has dtype torch.int32'):
        selective_scan_directions(
            **direction_operands(2, 6), order=random_orders(2, 6).int()
        )
