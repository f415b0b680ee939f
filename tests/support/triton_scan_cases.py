"""Cases of the selective scan's Triton kernels, for ``interpreted``."""

import functools
from contextlib import contextmanager

import torch
from layouts import strided
from scan_cases import (
    assert_close,
    direction_operands,
    outputs_and_gradients,
    plain_operands,
    random_orders,
)
from torch.utils.flop_counter import FlopCounterMode

from mmtransmamba.ops import (
    backends,
    selective_scan_directions,
    selective_scan_fn,
    selective_scan_step,
)
from mmtransmamba.ops.flops import FORMULAS, selective_scan_flops
from mmtransmamba.ops.selective_scan import triton as module
from mmtransmamba.ops.selective_scan import triton_plan as plan
from mmtransmamba.ops.selective_scan import triton_step

EXACT = 2e-6
CASES = {}


def case(function):
    """Add to the cases, under the name of the function as a sentence."""
    CASES[function.__name__.replace('_', ' ')] = function
    return function


@contextmanager
def short_segments():
    """Divide sequences of a few steps as if they were long."""
    kept = plan.checkpoint_steps, plan.LONG, plan.SHORTEST_SEGMENT
    plan.checkpoint_steps = lambda states: 8
    plan.LONG, plan.SHORTEST_SEGMENT = 8, 8
    try:
        yield
    finally:
        plan.checkpoint_steps, plan.LONG, plan.SHORTEST_SEGMENT = kept


def plain(backend, **kwargs):
    return functools.partial(
        selective_scan_fn, return_last_state=True, backend=backend, **kwargs
    )


def check_plain(operands, softplus=True, tolerance=EXACT):
    assert_close(
        outputs_and_gradients(
            plain('triton', delta_softplus=softplus), operands, torch.float32
        ),
        outputs_and_gradients(
            plain('reference', delta_softplus=softplus), operands, torch.float64
        ),
        tolerance,
    )


def check_directions(operands, **kwargs):
    def run(backend, dtype):
        scan = functools.partial(
            selective_scan_directions, backend=backend, delta_softplus=True, **kwargs
        )
        return outputs_and_gradients(scan, operands, dtype)

    expected = run('reference', torch.float64)
    assert_close(run('triton', torch.float32), expected, EXACT)


@case
def every_optional_argument_and_an_odd_length():
    check_plain(plain_operands(1, 5, 11, 3))


@case
def no_optional_argument_and_one_step():
    operands = plain_operands(2, 3, 1, 1, optional=False)
    operands['delta'] = operands['delta'].abs()
    check_plain(operands, softplus=False)


@case
def groups_of_channels_of_which_B_and_C_have_different_numbers():
    operands = plain_operands(1, 4, 3, 2, groups=4)
    operands['C'] = operands['C'][:, :2]
    check_plain(operands)


@case
def more_channels_than_a_block():
    check_plain(plain_operands(1, 34, 3, 1, optional=False))


@case
def more_states_than_a_program_holds():
    check_plain(plain_operands(1, 2, 2, 17))


@case
def as_many_states_as_are_taken():
    operands = plain_operands(1, 1, 1, 256, optional=False)
    expected = plain('reference', delta_softplus=True)(**operands)
    found = plain('triton', delta_softplus=True)(**operands)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@case
def decays_of_minus_infinity():
    operands = plain_operands(1, 2, 4, 2)
    operands['A'][0, 0] = -torch.inf
    operands['delta'] = operands['delta'].abs()
    y, state = plain('triton', delta_softplus=False)(**operands | {'delta_bias': None})
    operands['delta'][:] = 0
    _, kept = plain('triton', delta_softplus=False)(**operands | {'delta_bias': None})
    assert y.isfinite().all() and state.isfinite().all() and kept.isfinite().all()


@case
def small_steps_keep_their_digits():
    operands = plain_operands(1, 4, 3, 2, optional=False)
    operands['delta'] = operands['delta'] - 9
    check_plain(operands)


@case
def segments_of_a_long_sequence():
    with short_segments():
        assert plan.divide(1, 3, 1, 27, 2, True).segments == 2
        check_plain(plain_operands(1, 3, 27, 2))


@case
def segments_without_gradients_need_no_other_states():
    operands = plain_operands(2, 3, 27, 2)
    expected = plain('reference', delta_softplus=True)(**operands)
    with short_segments():
        found = plain('triton', delta_softplus=True)(**operands)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@case
def segments_of_directions():
    with short_segments():
        operands = direction_operands(2, 17, 1, 3, batch=1, own='B')
        check_directions(operands, order=random_orders(2, 17))


@case
def directions_that_own_everything_and_tap_a_step_twice():
    operands = direction_operands(2, 9, 1, 3, batch=1, own='u delta A B C D delta_bias')
    taps = torch.tensor([[0, 4, 4], [8, 0, 8]])
    check_directions(operands, order=random_orders(2, 9), tap_index=taps)


@case
def directions_that_share_everything_and_read_parameters_in_place():
    operands = direction_operands(3, 5, 2, 3, batch=1, own='B')
    check_directions(
        operands,
        order=random_orders(3, 5),
        permute_params=False,
        tap_index=torch.tensor([[1], [0], [4]]),
    )


@case
def directions_that_share_everything_but_the_skip():
    operands = direction_operands(2, 3, 1, 3, batch=1, own='D')
    check_directions(operands, order=random_orders(2, 3), permute_params=False)


@case
def one_direction():
    operands = direction_operands(1, 5, 2, 3, batch=1)
    taps = torch.tensor([[3, 1]])
    check_directions(operands, order=random_orders(1, 5), tap_index=taps)


@case
def wide_blocks_of_channels():
    operands = plain_operands(1, 130, 6, 2)
    kept, plan.WIDE_FROM = plan.WIDE_FROM, 0
    try:
        assert plan.divide(1, 130, 1, 6, 2, False).block == 128
        y = selective_scan_fn(**operands, backend='triton')
    finally:
        plan.WIDE_FROM = kept
    expected = selective_scan_fn(**operands, backend='reference')
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@case
def half_precision_in_and_out_without_a_copy_in_float32():
    from mmtransmamba.ops.selective_scan import triton_launch

    seen = []
    prepared = triton_launch.shared_arguments

    def watch(scan):
        tensors = prepared(scan)
        seen.append({tensors[name].dtype for name in ('U', 'DELTA', 'Z')})
        return tensors

    triton_launch.shared_arguments = watch
    try:
        for dtype in (torch.bfloat16, torch.float16):
            operands = {k: v.to(dtype) for k, v in plain_operands(1, 3, 3, 2).items()}
            found = outputs_and_gradients(
                plain('triton', delta_softplus=True), operands, dtype
            )
            exact = outputs_and_gradients(
                plain('reference', delta_softplus=True), operands, torch.float64
            )
            assert_close(found, exact, 2 * torch.finfo(dtype).eps)
            for name, x in found.items():
                assert x.dtype == (torch.float32 if name == 'output 1' else dtype)
            assert seen == [{dtype}] * 2
            seen.clear()
    finally:
        triton_launch.shared_arguments = prepared


@case
def half_precision_of_directions_is_summed_in_float32():
    operands = direction_operands(2, 3, 1, 3, batch=1)
    operands = {k: v.bfloat16() for k, v in operands.items()}
    scan = functools.partial(selective_scan_directions, order=random_orders(2, 3))
    found = outputs_and_gradients(
        functools.partial(scan, backend='triton'), operands, torch.bfloat16
    )
    exact = outputs_and_gradients(
        functools.partial(scan, backend='reference'), operands, torch.float64
    )
    assert_close(found, exact, 2 * torch.finfo(torch.bfloat16).eps)


@case
def any_strides_give_the_same_bits():
    operands = plain_operands(2, 3, 5, 2, groups=1)
    outputs = outputs_and_gradients(plain('triton'), operands, torch.float32)

    def channels_last(x):
        wide = torch.full((x.shape[0], x.shape[2], x.shape[1] + 7), torch.nan)
        view = wide.transpose(1, 2)[:, 3:-4]
        view.copy_(x)
        return view

    for lay_out in (strided, channels_last):
        laid_out = {
            k: lay_out(v) if k in ('u', 'delta', 'z') else strided(v)
            for k, v in operands.items()
        }

        leaves = {k: v.requires_grad_() for k, v in laid_out.items()}
        results = plain('triton')(**leaves)
        generator = torch.Generator().manual_seed(1)
        torch.autograd.backward(
            results, [torch.randn(x.shape, generator=generator) for x in results]
        )
        again = {f'output {i}': x.detach() for i, x in enumerate(results)}
        again |= {f'gradient of {k}': x.grad for k, x in leaves.items()}
        for name, x in outputs.items():
            assert torch.equal(x, again[name]), name


@case
def only_the_gradients_that_are_wanted():
    operands = plain_operands(1, 3, 2, 2)
    leaf = operands['A'].requires_grad_()
    plain('triton')(**operands)[1].sum().backward()
    found = leaf.grad.clone()
    leaf.grad = None
    plain('reference')(**operands)[1].sum().backward()
    torch.testing.assert_close(found, leaf.grad, rtol=1e-5, atol=1e-5)


@case
def states_are_not_kept_without_gradients():
    operands = plain_operands(1, 3, 70, 1)
    flags = None, None, False, False, False
    args = module.plain_operands(**operands)
    assert module._scan_op(*args, *flags)[3].numel() == 0
    args[0].requires_grad_()
    y = module._scan_op(*args, *flags)[0]
    try:
        y.sum().backward()
    except RuntimeError as error:
        assert 'states for the backward pass were not kept' in str(error)
    else:
        raise AssertionError('no error')


@case
def an_empty_batch():
    operands = {k: v.requires_grad_() for k, v in plain_operands(0, 3, 4, 2).items()}
    y, state = plain('triton')(**operands)
    (y.sum() + state.sum()).backward()
    assert y.shape == (0, 3, 4) and state.shape == (0, 3, 2)
    assert not operands['A'].grad.any() and operands['B'].grad.shape == (0, 2, 4)


@case
def the_operator_passes_opcheck():
    operands = direction_operands(2, 5, 2, 3, batch=1, own='B')
    args = module.direction_operands(**operands)
    leaves = [x if x is None else x.detach().requires_grad_() for x in args]
    results = torch.library.opcheck(
        torch.ops.mmtransmamba.selective_scan_triton.default,
        (*leaves, random_orders(2, 5), random_orders(2, 5)[:, :2], True, True, True),
        test_utils=('test_schema', 'test_faketensor', 'test_autograd_registration'),
    )
    assert set(results.values()) == {'SUCCESS'}


@case
def torch_compile_takes_it_as_one_graph():
    operands = plain_operands(1, 3, 3, 2, groups=1)
    scan = plain('triton', delta_softplus=True)
    assert_close(
        outputs_and_gradients(
            torch.compile(lambda **o: scan(**o), fullgraph=True, backend='aot_eager'),
            operands,
            torch.float32,
        ),
        outputs_and_gradients(scan, operands, torch.float32),
        1e-7,
    )


@case
def its_operations_are_counted():
    operands = plain_operands(1, 3, 4, 2)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        plain('triton')(**operands)
    counted = counter.get_total_flops()
    assert counted == selective_scan_flops(1, 1, 3, 2, 4, True, True)


@case
def autocast_leaves_the_scan_alone():
    operands = plain_operands(1, 3, 4, 2)
    expected = plain('triton')(**operands)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = plain('triton')(**operands)
        low = plain('triton')(**operands | {'u': operands['u'].bfloat16()})
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert low[0].dtype == torch.bfloat16 and low[1].dtype == torch.float32


@case
def it_is_the_best_backend_and_refuses_by_name():
    operands = plain_operands(1, 3, 4, 2)
    assert backends.resolve('selective_scan', operands) is module
    for name, x, reason in (
        ('B', operands['B'].double(), 'B is in torch.float64'),
        ('C', torch.ones(3, 2), 'C of shape'),
        ('A', torch.ones(3, 257), 'at most 256 states, A has 257'),
        ('u', operands['u'].to('meta'), 'u is on meta'),
        ('u', torch.ones(1).expand(1, 2**16, 2**15), 'fewer than 2^31'),
    ):
        assert reason in module.refuses(operands | {name: x})


def one_step(*sizes, **kwargs):
    """Operands of ``selective_scan_step``."""
    batch, channels, states = sizes
    tensors = plain_operands(batch, channels, 1, states, **kwargs)
    for name in ('u', 'delta', 'B', 'C', 'z'):
        if tensors[name] is not None:
            tensors[name] = tensors[name][..., 0]
    return dict(state=torch.randn(batch, channels, states), **tensors)


def both_steps(tensors, softplus=True):
    results = []
    for backend in ('triton', 'portable'):
        with backends.use_backend(backend):
            results.append(selective_scan_step(**tensors, delta_softplus=softplus))
    return results


@case
def a_step_is_that_of_plain_torch():
    from mmtransmamba.ops.selective_scan import triton_step_kernel as kernel

    kept = kernel.STATES, kernel.TILE
    kernel.STATES, kernel.TILE = 4, 8  # several tiles of channels and of states
    try:
        for tensors in (one_step(2, 6, 5, groups=3), one_step(1, 3, 5)):
            for name in (None, 'D', 'z', 'delta_bias'):
                given = tensors | ({name: None} if name else {})
                found, expected = both_steps(given, softplus=name != 'D')
                torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-6)
        tensors = one_step(1, 6, 5, groups=3)
        tensors['C'] = tensors['C'][:, 0]
        torch.testing.assert_close(*both_steps(tensors), rtol=1e-6, atol=2e-6)
    finally:
        kernel.STATES, kernel.TILE = kept
    tensors = one_step(1, 1, 1, optional=False)
    torch.testing.assert_close(*both_steps(tensors), rtol=1e-6, atol=1e-6)


@case
def a_step_keeps_dtypes_and_takes_any_strides():
    tensors = one_step(2, 3, 4)
    expected = both_steps(tensors)[1]
    strided_ones = {k: strided(x) for k, x in tensors.items()}
    # The scan stores its last state with the channels last.
    strided_ones['state'] = tensors['state'].mT.contiguous().mT
    torch.testing.assert_close(both_steps(strided_ones)[0], expected)
    half = {k: x if k == 'state' else x.bfloat16() for k, x in tensors.items()}
    found, expected = both_steps(half)
    assert found[0].dtype == torch.bfloat16 and found[1].dtype == torch.float32
    torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[0], expected[0])
    low = tensors | {'state': tensors['state'].half()}
    assert selective_scan_step(**low)[1].dtype == torch.half


@case
def a_step_with_a_rate_of_minus_infinity_forgets_the_state():
    tensors = one_step(1, 2, 2, optional=False)
    tensors['A'] = torch.full((2, 2), -torch.inf)
    tensors['delta'] = torch.tensor([[1.0, 0.0]])  # without duration it keeps it
    torch.testing.assert_close(*both_steps(tensors, softplus=False))


@case
def a_step_of_an_empty_batch():
    y, state = both_steps(one_step(0, 2, 3))[0]
    assert y.shape == (0, 2) and state.shape == (0, 2, 3)


@case
def a_step_is_an_operator_of_one_graph():
    tensors = one_step(1, 2, 2, groups=1)
    found = torch.library.opcheck(
        torch.ops.mmtransmamba.selective_scan_step_triton.default,
        (*tensors.values(), True),
        test_utils=('test_schema', 'test_faketensor'),
    )
    assert set(found.values()) == {'SUCCESS'}
    compiled = torch.compile(selective_scan_step, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(**tensors), selective_scan_step(**tensors))


@case
def a_step_that_requires_a_gradient_is_left_to_plain_torch():
    tensors = one_step(1, 2, 2)
    assert backends.resolve('selective_scan_step', tensors) is triton_step
    tensors['z'].requires_grad_()
    assert backends.resolve('selective_scan_step', tensors) is not triton_step
    assert 'no gradient, z requires one' in triton_step.refuses(tensors)
    with torch.no_grad():
        assert backends.resolve('selective_scan_step', tensors) is triton_step
    selective_scan_step(**tensors)[0].sum().backward()
    assert tensors['z'].grad.any()
