"""The native kernels as torch citizens: opcheck, compile, autocast, memory."""

import pytest
import torch
from memory_cases import needs_resettable_peak, peak_growth
from scan_cases import (
    assert_close,
    direction_operands,
    outputs_and_gradients,
    plain_operands,
    random_orders,
)
from torch.utils.checkpoint import checkpoint

from mmtransmamba.ops import (
    backends,
    scan_order,
    selective_scan_directions,
    selective_scan_fn,
)

REASON = backends.available('selective_scan')['native']
needs_native = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def op_arguments(order, taps, with_optional):
    """Positional arguments of the custom op, with tensors that need gradients."""
    K, own = (1, '') if order is None else (order.shape[0], 'B delta')
    o = direction_operands(K, 70, 5, 6, own=own)
    B, C = (o[k].unsqueeze(2).transpose(-1, -2).contiguous() for k in 'BC')
    z = torch.randn(2, 6, 70) if with_optional and order is None else None
    D, bias = (o[k] if with_optional else None for k in ('D', 'delta_bias'))
    tensors = [o['u'], o['delta'], o['A'], B, C, D, z, bias]
    leaves = [x if x is None else x.requires_grad_() for x in tensors]
    return (*leaves, order, taps, True, True, True)


@needs_native
@pytest.mark.parametrize(
    ('order', 'taps', 'with_optional'),
    [
        (None, None, True),
        (None, None, False),
        (random_orders(2, 70), random_orders(2, 70)[:, :3], True),
    ],
)
def test_opcheck(order, taps, with_optional):
    results = torch.library.opcheck(
        torch.ops.mmtransmamba.selective_scan.default,
        op_arguments(order, taps, with_optional),
    )
    assert set(results.values()) == {'SUCCESS'}


@pytest.mark.parametrize('backend', ['reference', None])
def test_compile_fullgraph(backend):
    operands = plain_operands(length=3, groups=2)
    operands['C'] = operands['C'][:, 0]

    def function(**operands):
        return selective_scan_fn(
            **operands, delta_softplus=True, return_last_state=True, backend=backend
        )

    assert_close(
        outputs_and_gradients(
            torch.compile(function, fullgraph=True), operands, torch.float32
        ),
        outputs_and_gradients(function, operands, torch.float64),
        1e-5,
    )


@pytest.mark.parametrize('groups', [(2, 2), (2, 1), (1, 2)])
def test_compile_sizes_that_vary(groups):
    operands = plain_operands(length=9, groups=2)
    for name, count in zip('BC', groups, strict=True):
        operands[name] = operands[name][:, :count]

    def function(**operands):
        return selective_scan_fn(**operands, delta_softplus=True)

    compiled = torch.compile(
        function, backend='aot_eager', fullgraph=True, dynamic=True
    )
    torch.testing.assert_close(compiled(**operands), function(**operands))


@needs_native
def test_compile_directions_fullgraph():
    order = scan_order.continuous_2d(3, 3).order
    operands = direction_operands(4, 9, own='B')

    # What comes out of other operators may reach the kernel with other strides than
    # in eager mode.
    def function(u, B, **operands):
        return selective_scan_directions(
            u=u.sin(),
            B=B * 2,
            **operands,
            order=order,
            tap_index=order,
            delta_softplus=True,
        )

    assert_close(
        outputs_and_gradients(
            torch.compile(function, fullgraph=True), operands, torch.float32
        ),
        outputs_and_gradients(function, operands, torch.float64),
        1e-5,
    )


def test_compiled_function_follows_use_backend():
    operands = plain_operands(length=2)
    seen = []

    def watch(graph, _):
        seen.append(any('selective_scan' in str(n.target) for n in graph.graph.nodes))
        return graph.forward

    function = torch.compile(
        lambda: selective_scan_fn(**operands, delta_softplus=True), backend=watch
    )
    function()
    with backends.use_backend('reference'):
        function()
    assert seen == [REASON is None, False]


@pytest.mark.parametrize('backend', ['reference', None])
def test_autocast_keeps_the_scan_in_float32(backend):
    operands = plain_operands(length=30)
    expected = selective_scan_fn(**operands, delta_softplus=True, backend=backend)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = selective_scan_fn(**operands, delta_softplus=True, backend=backend)
        u = operands['u'].bfloat16()
        low = selective_scan_fn(
            **operands | {'u': u}, delta_softplus=True, backend=backend
        )
    assert torch.equal(y, expected)
    assert low.dtype == torch.bfloat16


@needs_native
def test_activation_checkpointing():
    operands = plain_operands(length=150)

    def scan(**operands):
        return (selective_scan_fn(**operands, delta_softplus=True, backend='native'),)

    def recomputed(**operands):
        return checkpoint(scan, use_reentrant=False, **operands)

    plain = outputs_and_gradients(scan, operands, torch.float32)
    again = outputs_and_gradients(recomputed, operands, torch.float32)
    assert_close(again, plain, 1e-12)


@needs_native
def test_no_states_are_kept_without_gradients():
    operands = {k: x.requires_grad_() for k, x in plain_operands(length=500).items()}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda x: x):
        with torch.no_grad():
            y = selective_scan_fn(**operands, delta_softplus=True, backend='native')
    assert not saved and not y.requires_grad
    with pytest.raises(RuntimeError, match='states for the backward pass were not'):
        args = op_arguments(None, None, False)
        torch.ops.mmtransmamba.selective_scan(*args[:-1], False)[0].sum().backward()


@needs_native
@needs_resettable_peak
@pytest.mark.parametrize('states', [16, 64])
def test_memory_does_not_grow_with_the_states(states):
    operands = plain_operands(1, 512, 8192, states, optional=False)
    leaves = {k: x.requires_grad_() for k, x in operands.items() if x is not None}
    unit = leaves['u'].numel() * 4

    def step():
        y = selective_scan_fn(**leaves, delta_softplus=True, backend='native')
        torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y))

    # A tensor of shape [B, D, L, N] would add 16 or 64 units.
    assert peak_growth(step) < 8 * unit
