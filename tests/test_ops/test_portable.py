"""The loops that leave PyTorch: what they compute, and that they stay loops."""

import re

import pytest
import torch
from scan_cases import direction_operands, plain_operands, random_orders
from torch import nn
from torch_release import exports
from wkv_cases import random_taps, wkv6_operands, wkv_operands

from mmtransmamba.ops import (
    backends,
    bi_wkv,
    bi_wkv6,
    scan_order,
    selective_scan_directions,
    selective_scan_fn,
)
from mmtransmamba.ops.causal_conv1d import causal_conv1d


def gap(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


def double(operands):
    return {k: None if x is None else x.double() for k, x in operands.items()}


def plain(groups=2, optional=True):
    operands = double(plain_operands(length=9, groups=groups, optional=optional))
    if groups and optional:
        operands['C'] = operands['C'][:, 0]  # another number of groups than B
    return lambda: selective_scan_fn(
        **operands, delta_softplus=True, return_last_state=True
    )


def directions(own, permute_params, taps=False):
    operands = double(direction_operands(3, 11, own=own))
    order = random_orders(3, 11)
    return lambda: selective_scan_directions(
        **operands,
        order=order,
        permute_params=permute_params,
        tap_index=order[:, 2:5] if taps else None,
        delta_softplus=True,
    )


def wkv(function, operands, taps=False, **kwargs):
    length = operands['k'].shape[1]
    index = random_taps(length) if taps else None
    return lambda: function(**double(operands), tap_index=index, **kwargs)


def huge(operands, **changes):
    return operands | {k: torch.full_like(operands[k], v) for k, v in changes.items()}


CASES = {
    'plain with groups, gate and state': plain(),
    'plain with the least': plain(None, False),
    'directions, all shared': directions('', True),
    'directions, parameters in place': directions('u B', False, taps=True),
    'directions, nothing shared': directions('u delta A B C D delta_bias', True, True),
    'v4': wkv(bi_wkv, wkv_operands(length=40)),
    'v4 with taps and one token': wkv(bi_wkv, wkv_operands(length=1), taps=True),
    'v4 growing weights': wkv(bi_wkv, wkv_operands(length=400, decay=5), taps=True),
    'v4 keys that would overflow': wkv(bi_wkv, huge(wkv_operands(), k=500.0)),
    'v4 the published kernels': wkv(bi_wkv, wkv_operands(length=70), rule='cuda'),
    'v6': wkv(bi_wkv6, wkv6_operands(length=33), taps=True),
    'v6 forgets at once': wkv(bi_wkv6, huge(wkv6_operands(), w=50.0)),
    'v6 never forgets': wkv(bi_wkv6, huge(wkv6_operands(), w=-200.0)),
}


@pytest.mark.parametrize('case', CASES)
def test_portable_computes_what_the_reference_does(case):
    with backends.use_backend('reference'):
        expected = CASES[case]()
    with backends.use_backend('portable'):
        actual = CASES[case]()
    for a, b in zip(actual, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.shape == b.shape and gap(a, b) < 1e-11


@pytest.mark.parametrize('reverse', [(False,), (True, False)])
@pytest.mark.parametrize('length', [1, 3, 9])
def test_portable_convolution_is_the_same(length, reverse):
    x = torch.randn(2, length, 5)
    weight, bias = torch.randn(len(reverse), 5, 4), torch.randn(len(reverse), 5)
    expected = causal_conv1d(x, weight, bias, reverse)
    with backends.use_backend('portable'):
        actual = causal_conv1d(x, weight, bias, reverse)
    assert gap(actual, expected) < 1e-6


@pytest.mark.parametrize('op', ['selective_scan', 'bi_wkv', 'bi_wkv6'])
def test_portable_is_never_chosen_by_itself(op):
    assert list(backends.available(op))[-1] == 'portable'


def test_portable_refuses_what_it_does_not_have():
    operands = plain_operands()
    operands['B'] = torch.randn(12, 3)
    with pytest.raises(ValueError, match='B of shape .* constant over time'):
        selective_scan_fn(**operands, backend='portable')


class Scans(nn.Module):
    """One of everything that is recorded, on tokens ``[B, H * W, C]``."""

    def forward(self, x_BLC):
        height = width = int(x_BLC.shape[1] ** 0.5)
        order = scan_order.continuous_2d(height, width).order
        u = x_BLC.transpose(1, 2).unsqueeze(1)
        A = -torch.ones(1, x_BLC.shape[2], 2)
        y, _ = selective_scan_directions(
            u, u.abs(), A, u[:, :, :2], u[:, :, 1:3], order=order
        )
        keys = causal_conv1d(x_BLC, torch.ones(1, x_BLC.shape[2], 4), None, (True,))[0]
        mixed, _ = bi_wkv(torch.ones(x_BLC.shape[2]), x_BLC[0, 0] * 0, keys, x_BLC)
        heads = torch.ones(2, x_BLC.shape[2] // 2)
        return y.transpose(1, 2) + mixed + bi_wkv6(keys, keys, keys, mixed, heads)[0]


def count_exported(length):
    x = torch.randn(2, length, 4)
    batch = torch.export.Dim('batch')
    with torch.no_grad(), backends.use_backend('portable'):
        program = torch.export.export(Scans(), (x,), dynamic_shapes=({0: batch},))
    for size in (1, 3):
        x = torch.randn(size, length, 4)
        assert gap(program.module()(x), Scans()(x)) < 1e-5
    assert 'mmtransmamba.' not in str(program.graph)
    return len(program.graph.nodes)


@exports
def test_an_exported_scan_has_one_size_for_every_length():
    assert count_exported(49) == count_exported(9) < 300


@pytest.mark.filterwarnings('ignore')  # TorchScript is deprecated and says so
def test_a_traced_scan_is_a_loop_that_plain_torch_has(tmp_path):
    sizes = set()
    for length in (9, 49):
        x = torch.randn(2, length, 4)
        with torch.no_grad(), backends.use_backend('portable'):
            traced = torch.jit.trace(Scans(), x, check_trace=False)
        traced.save(tmp_path / 'scans.pt')
        loaded = torch.jit.load(tmp_path / 'scans.pt')
        graph = loaded.inlined_graph
        assert 'prim::Loop' in str(graph) and 'mmtransmamba::' not in str(graph)
        sizes.add(len(str(graph).splitlines()))
        for size in (1, 3):
            x = torch.randn(size, length, 4)
            assert gap(loaded(x), Scans()(x)) < 1e-5
    assert max(sizes) - min(sizes) < 10


@exports
@pytest.mark.parametrize('cached', ['_continuous_2d', '_cross_scan', '_bidirectional'])
def test_an_order_made_during_an_export_can_be_used_after_it(cached):
    class Order(nn.Module):
        def forward(self, x):
            made = getattr(scan_order, cached.strip('_'))
            order = made(*((9,) if cached == '_bidirectional' else (3, 3)))
            return x[:, order[0] if isinstance(order, tuple) else order]

    x = torch.randn(2, 9)
    getattr(scan_order, cached).cache_clear()
    program = torch.export.export(Order(), (x,))
    assert torch.equal(program.module()(x), Order()(x))
    words = set(re.split(r'\W', str(program.graph)))
    assert not words & {'arange', 'argsort', 'diff', 'flip'}
