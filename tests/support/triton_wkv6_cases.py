"""Cases of the Triton kernels of ``bi_wkv6``, for ``interpreted``."""

import functools

import torch
from layouts import check_layouts
from scan_cases import assert_close, outputs_and_gradients
from torch.utils.flop_counter import FlopCounterMode
from wkv_cases import random_taps, wkv6_operands

from mmtransmamba.ops import backends, bi_wkv6
from mmtransmamba.ops.flops import FORMULAS, bi_wkv6_flops
from mmtransmamba.ops.wkv import triton as module
from mmtransmamba.ops.wkv import triton_plan as plan

EXACT = 2e-6
CASES = {}


def case(function):
    """Add to the cases, under the name of the function as a sentence."""

    @functools.wraps(function)
    def with_small_tiles():
        kept, plan.TILE = plan.TILE, 2
        try:
            function()
        finally:
            plan.TILE = kept

    CASES[function.__name__.replace('_', ' ')] = with_small_tiles
    return function


def results(backend, operands, dtype=torch.float32, **kwargs):
    function = functools.partial(bi_wkv6, backend=backend, **kwargs)
    return outputs_and_gradients(function, operands, dtype)


def check(operands, tolerance=EXACT, dtype=torch.float32, **kwargs):
    found = results('triton', operands, dtype, **kwargs)
    expected = results('reference', operands, torch.float64, **kwargs)
    for name, want in expected.items():
        if want is None:  # one or two tokens: nothing ever decays
            want = torch.zeros_like(operands[name.split()[-1]], dtype=torch.float64)
        assert found[name].dtype == dtype and found[name].shape == want.shape, name
        # Some gradients vanish exactly: they count relative to the operands' size.
        gap = (found[name].double() - want).abs().max() / want.abs().max().clamp(min=1)
        assert gap < tolerance, f'{name} differs by {gap:.1e} of its maximum'


@case
def one_token():
    check(wkv6_operands(2, 1, 1, 3))


@case
def an_odd_length_both_directions_and_several_heads():
    check(wkv6_operands(1, 7, 2, 6), tap_index=random_taps(7))


@case
def chunks_and_tiles_that_are_not_full():
    check(wkv6_operands(1, 11, 1, 4))


@case
def tiles_as_long_as_on_a_gpu():
    plan.TILE = 8
    check(wkv6_operands(1, 9, 1, 2))


@case
def heads_wider_than_a_warp():
    check(wkv6_operands(1, 3, 1, 33))


@case
def several_groups_of_keys():
    check(wkv6_operands(1, 3, 2, 32))


@case
def weak_and_strong_decays():
    for decay in (-30.0, 2.0, 30.0):
        check(wkv6_operands(1, 4, 1, 2, decay), tolerance=1e-5)


@case
def decays_that_keep_or_forget_everything():
    for w in (-torch.inf, -1e4, 1e4, torch.inf):
        operands = wkv6_operands(1, 4, 1, 2)
        operands['w'][:, ::2] = w
        found = results('triton', operands)
        operands['w'].clamp_(-40, 8)
        expected = results('reference', operands, torch.float64)
        for name, want in expected.items():
            torch.testing.assert_close(
                found[name].double(), want, rtol=1e-5, atol=1e-5, msg=name
            )


@case
def half_precision_in_and_out_without_a_copy_in_float32():
    from mmtransmamba.ops.wkv import triton_v6_launch

    seen = []
    prepared = triton_v6_launch.forward

    def watch(*tensors):
        seen.append([x.dtype for x in tensors])
        return prepared(*tensors)

    triton_v6_launch.forward = watch
    try:
        for dtype in (torch.bfloat16, torch.float16):
            operands = {n: x.to(dtype) for n, x in wkv6_operands(1, 3, 1, 3).items()}
            check(operands, 2 * torch.finfo(dtype).eps, dtype)
            assert seen == [[dtype, dtype, dtype, torch.float32, torch.float32]]
            seen.clear()
    finally:
        triton_v6_launch.forward = prepared


@case
def any_strides_give_the_same_bits():
    check_layouts(
        functools.partial(bi_wkv6, backend='triton'), wkv6_operands(2, 3, 1, 3)
    )


@case
def autocast_leaves_the_sums_alone():
    expected = results('triton', wkv6_operands(2, 4, 1, 3))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = results('triton', wkv6_operands(2, 4, 1, 3))
    assert all(torch.equal(found[name], x) for name, x in expected.items())


@case
def an_empty_batch():
    found = results('triton', wkv6_operands(0, 4), tap_index=random_taps(4))
    assert found['output 0'].shape == (0, 4, 12)
    assert found['gradient of k'].shape == (0, 4, 12)
    assert not found['gradient of u'].any()


@case
def the_operator_passes_opcheck():
    operands = wkv6_operands(1, 2, 1, 2)
    w, u = operands.pop('w').sigmoid(), operands.pop('u')
    leaves = [x.bfloat16().requires_grad_() for x in operands.values()]
    leaves += [x.requires_grad_() for x in (w, u)]
    for separate in (False, True):
        found = torch.library.opcheck(
            torch.ops.mmtransmamba.bi_wkv6_triton.default,
            (*leaves, separate),
            test_utils=('test_schema', 'test_faketensor', 'test_autograd_registration'),
        )
        assert set(found.values()) == {'SUCCESS'}


@case
def torch_compile_takes_it_as_one_graph():
    operands = wkv6_operands(1, 2, 1, 2)
    compiled = torch.compile(
        lambda **o: bi_wkv6(**o, backend='triton'), fullgraph=True, backend='aot_eager'
    )
    found = outputs_and_gradients(compiled, operands, torch.float32)
    assert_close(found, results('triton', operands), 1e-7)


@case
def its_operations_are_counted():
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        bi_wkv6(**wkv6_operands(1, 2, 2, 3), backend='triton')
    assert counter.get_total_flops() == bi_wkv6_flops(1, 2, 6, 2)


@case
def it_is_the_best_backend_and_refuses_by_name():
    operands = wkv6_operands(1, 2, 1, 3)
    assert backends.resolve('bi_wkv6', operands) is module
    for name, x, reason in (
        ('w', operands['w'].double(), 'w is in torch.float64'),
        ('k', operands['k'].to('meta'), 'k is on meta'),
        ('u', torch.ones(1, 65), 'heads of at most 64 channels, u has 65'),
    ):
        assert reason in module.refuses(operands | {name: x})
