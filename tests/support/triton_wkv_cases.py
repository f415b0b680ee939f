"""Cases of the Triton kernels of ``bi_wkv``, for ``interpreted``."""

import functools
from contextlib import contextmanager

import torch
from layouts import check_layouts
from scan_cases import assert_close, outputs_and_gradients
from torch.utils.flop_counter import FlopCounterMode
from wkv_cases import random_taps, wkv_operands
from wkv_extremes import (
    EXTREMES,
    expected_results,
    extreme_operands,
    some_gradient,
)

from mmtransmamba.ops import backends, bi_wkv
from mmtransmamba.ops.flops import FORMULAS, bi_wkv_flops
from mmtransmamba.ops.wkv import triton as module
from mmtransmamba.ops.wkv import triton_plan as plan

EXACT = 2e-6
CASES = {}


def case(function):
    """Add to the cases, under the name of the function as a sentence."""

    @functools.wraps(function)
    def with_small_pieces():
        with pieces(2):
            function()

    CASES[function.__name__.replace('_', ' ')] = with_small_pieces
    return function


@contextmanager
def pieces(tokens, group=None):
    """Divide sequences into pieces of a few tokens, and these into groups."""
    kept = plan.PIECE, plan.UNGROUPED, plan.GROUP
    plan.PIECE = tokens
    if group:
        plan.UNGROUPED, plan.GROUP = 1, group
    try:
        yield
    finally:
        plan.PIECE, plan.UNGROUPED, plan.GROUP = kept


@contextmanager
def wide_programs():
    """Have one program compute many channels: in the interpreter that costs nothing."""
    kept, plan.WARP = plan.WARP, 1024
    try:
        yield
    finally:
        plan.WARP = kept


def results(backend, operands, dtype=torch.float32, **kwargs):
    function = functools.partial(bi_wkv, backend=backend, **kwargs)
    return outputs_and_gradients(function, operands, dtype)


def check(operands, tolerance=EXACT, dtype=torch.float32, **kwargs):
    expected = results('reference', operands, torch.float64, **kwargs)
    for name, x in expected.items():
        if x is None:  # one or two tokens: nothing ever decays
            expected[name] = torch.zeros_like(operands['w'], dtype=torch.float64)
    found = results('triton', operands, dtype, **kwargs)
    for name, want in expected.items():
        assert found[name].dtype == dtype and found[name].shape == want.shape, name
        # Some gradients vanish exactly: they count relative to the operands' size.
        gap = (found[name].double() - want).abs().max() / want.abs().max().clamp(min=1)
        assert gap < tolerance, f'{name} differs by {gap:.1e} of its maximum'


@case
def one_token():
    check(wkv_operands(2, 1, 3))


@case
def two_tokens_and_both_directions():
    check(wkv_operands(1, 2, 3), tap_index=random_taps(2))


@case
def an_odd_length_and_more_channels_than_a_program():
    check(wkv_operands(1, 7, 33), tap_index=random_taps(7))


@case
def the_last_piece_is_not_full():
    with pieces(4):
        check(wkv_operands(2, 7, 3))


@case
def pieces_as_long_as_on_a_gpu():
    with pieces(8):
        check(wkv_operands(1, 11, 3))


@case
def groups_of_pieces():
    with pieces(2, group=2):
        check(wkv_operands(1, 15, 3, 0.3), tap_index=random_taps(15))


@case
def strong_decays_of_either_sign():
    operands = wkv_operands(1, 12, 5, 300.0)
    operands['w'][:2] = torch.tensor([-300.0, 300.0])
    check(operands, tolerance=1e-5)


@case
def extreme_values_have_their_limits():
    for length in (1, 6):
        changes = [change for kind in EXTREMES.values() for change in kind]
        each = [extreme_operands(length, change) for change in changes]
        # Channels do not mix, so that all cases run at once.
        operands = {n: torch.cat([x[n] for x in each], dim=-1) for n in each[0]}
        grad = some_gradient(operands['k'])
        leaves = {n: x.clone().requires_grad_() for n, x in operands.items()}
        with pieces(4), wide_programs():
            y, _ = bi_wkv(**leaves, backend='triton')
            found = torch.autograd.grad(y, leaves.values(), grad)
        found = dict(zip(leaves, found, strict=True), y=y.detach())
        for name, want in expected_results(operands, grad).items():
            torch.testing.assert_close(
                found[name].double(), want, rtol=2e-5, atol=2e-5, msg=name
            )


@case
def nan_stays_in_its_batch_entry_and_channel():
    operands = wkv_operands(2, 5, 3)
    operands['k'][1, 2, 1] = float('nan')
    y, _ = bi_wkv(**operands, backend='triton')
    assert y[1, :, 1].isnan().all()
    assert y.isnan().sum() == 5


@case
def half_precision_in_and_out_without_a_copy_in_float32():
    from mmtransmamba.ops.wkv import triton_launch

    seen = []
    prepared = triton_launch.forward

    def watch(w, u, k, v, y):
        seen.append((w.dtype, k.dtype, v.dtype, y.dtype))
        prepared(w, u, k, v, y)

    triton_launch.forward = watch
    try:
        for dtype in (torch.bfloat16, torch.float16):
            operands = {n: x.to(dtype) for n, x in wkv_operands(1, 5, 3).items()}
            check(operands, 2 * torch.finfo(dtype).eps, dtype)
            assert seen == [(torch.float32, dtype, dtype, dtype)]
            seen.clear()
    finally:
        triton_launch.forward = prepared


@case
def half_precision_of_directions_is_added_in_float32():
    operands = {n: x.bfloat16() for n, x in wkv_operands(1, 5, 3).items()}
    eps = torch.finfo(torch.bfloat16).eps
    check(operands, 2 * eps, torch.bfloat16, tap_index=random_taps(5))


@case
def a_key_of_minus_infinity_in_half_precision():
    operands = {n: x.bfloat16() for n, x in wkv_operands(1, 4, 3).items()}
    operands['k'][0, 1] = -torch.inf
    check(operands, 2 * torch.finfo(torch.bfloat16).eps, torch.bfloat16)


@case
def any_strides_give_the_same_bits():
    check_layouts(functools.partial(bi_wkv, backend='triton'), wkv_operands(2, 3, 3))


@case
def a_gradient_of_one_number():
    leaf = wkv_operands(1, 3, 3)['v'].requires_grad_()
    operands = wkv_operands(1, 3, 3) | {'v': leaf}
    bi_wkv(**operands, backend='triton')[0].sum().backward()
    found, leaf.grad = leaf.grad, None
    bi_wkv(**operands, backend='reference')[0].sum().backward()
    torch.testing.assert_close(found, leaf.grad, rtol=1e-5, atol=1e-5)


@case
def autocast_leaves_the_sums_alone():
    expected = results('triton', wkv_operands(2, 4, 3))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = results('triton', wkv_operands(2, 4, 3))
    assert all(torch.equal(found[name], x) for name, x in expected.items())


@case
def an_empty_batch():
    found = results('triton', wkv_operands(0, 4, 3), tap_index=random_taps(4))
    assert found['output 0'].shape == (0, 4, 3)
    assert found['gradient of k'].shape == (0, 4, 3)
    assert not found['gradient of w'].any() and not found['gradient of u'].any()


@case
def the_operator_passes_opcheck():
    operands = wkv_operands(1, 3, 3)
    operands['k'] = operands['k'].bfloat16()
    leaves = [x.requires_grad_() for x in operands.values()]
    for separate in (False, True):
        found = torch.library.opcheck(
            torch.ops.mmtransmamba.bi_wkv_triton.default,
            (*leaves, separate),
            test_utils=('test_schema', 'test_faketensor', 'test_autograd_registration'),
        )
        assert set(found.values()) == {'SUCCESS'}


@case
def torch_compile_takes_it_as_one_graph():
    operands = wkv_operands(1, 3, 3)
    compiled = torch.compile(
        lambda **o: bi_wkv(**o, backend='triton'), fullgraph=True, backend='aot_eager'
    )
    found = outputs_and_gradients(compiled, operands, torch.float32)
    assert_close(found, results('triton', operands), 1e-7)


@case
def its_operations_are_counted():
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        bi_wkv(**wkv_operands(1, 3, 4), backend='triton')
    assert counter.get_total_flops() == bi_wkv_flops(1, 3, 4)


@case
def it_is_the_best_backend_and_refuses_by_name():
    operands = wkv_operands(1, 2, 3)
    assert backends.resolve('bi_wkv', operands) is module
    for name, x, reason in (
        ('v', operands['v'].double(), 'v is in torch.float64'),
        ('k', operands['k'].to('meta'), 'k is on meta'),
        ('k', torch.ones(1).expand(1, 2**15, 2**14), 'fewer than 2^29'),
    ):
        assert reason in module.refuses(operands | {name: x})
