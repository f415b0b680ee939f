"""Cases of SSD's Triton kernels, for ``interpreted``."""

import functools

import torch
from layouts import check_layouts, strided
from scan_cases import assert_close, outputs_and_gradients
from ssd_cases import operands
from torch.utils.flop_counter import FlopCounterMode

from mmtransmamba.models.language.packing import restart
from mmtransmamba.ops import backends, ssd_scan, ssd_step
from mmtransmamba.ops.flops import FORMULAS, ssd_flops
from mmtransmamba.ops.ssd import triton as module
from mmtransmamba.ops.ssd import triton_plan as plan
from mmtransmamba.ops.ssd import triton_step

EXACT = 2e-6
SMALL = dict(CHUNK=4, BLOCK=4, SMALLEST=2, SLICE=2, SLICE_OF_THREE=2, CARRIED=8)
CASES = {}


def case(function):
    """Add to the cases, under the name of the function as a sentence."""

    @functools.wraps(function)
    def with_small_tiles():
        kept = dict(vars(plan))
        vars(plan).update(SMALL)
        try:
            function(kept)
        finally:
            vars(plan).update(kept)

    CASES[function.__name__.replace('_', ' ')] = with_small_tiles
    return function


def run(backend):
    return functools.partial(ssd_scan, backend=backend)


def check(tensors, tolerance=EXACT, dtype=torch.float32):
    found = outputs_and_gradients(run('triton'), tensors, dtype)
    expected = outputs_and_gradients(run('reference'), tensors, torch.float64)
    for name, x in found.items():
        state = dtype if name != 'output 1' else torch.float32
        assert x.dtype == state and x.isfinite().all(), name
    assert_close(found, expected, tolerance)


@case
def every_optional_argument_and_chunks_that_are_not_full(_):
    check(operands(1, 6, 2, 5, 2, 3))


@case
def no_optional_argument_and_one_step(_):
    tensors = operands(2, 1, 1, 3, 1, 1, optional=False)
    tensors['initial_state'] = torch.randn(2, 1, 3, 1)
    check(tensors)


@case
def tiles_as_large_as_on_a_gpu(real):
    vars(plan).update(real)
    check(operands(1, 67, 1, 17, 1, 33))


@case
def more_chunks_than_are_loaded_at_once(_):
    assert plan.AHEAD == 4
    check(operands(1, 23, 1, 1, 1, 1))


@case
def heads_that_share_a_group_in_parts_of_any_size(_):
    tensors = operands(1, 3, 3, 2, 1, 2)
    for programs, parts in ((1, 1), (2, 2), (264, 3)):
        plan.PROGRAMS = programs
        assert plan.head_parts(1, 3) == parts
        check(tensors)


@case
def a_weak_decay_behind_a_strong_one(_):
    tensors = operands(1, 8, 2, 2, 1, 2, optional=False)
    tensors['A'] = torch.tensor([-1.0, -0.01])
    tensors['dt'] = torch.full((1, 8, 2), 0.01)
    tensors['dt'][:, 5] = 2e4
    tensors['dt'][:, 6] = 50
    check(tensors)


@case
def decays_too_strong_for_their_dtype(_):
    tensors = operands(1, 6, 3, 2, 1, 2)
    tensors['A'] = torch.tensor([-torch.inf, -1e20, -2e4])
    tensors['dt'][0, 3, 1], tensors['x'][0, 3, 1] = 1e25, 0
    tensors['dt'][0, 4:, 2] = 0
    check(tensors)


@case
def growing_states(_):
    tensors = operands(1, 6, 2, 2, 1, 2)
    tensors['A'] = tensors['A'].abs()
    check(tensors)


@case
def packed_sequences_do_not_see_each_other(_):
    tensors = operands(1, 9, 2, 2, 1, 2, optional=False)
    tensors['A'] = torch.tensor([-4.0, -0.02])
    begins = torch.arange(9)[None] % 5 == 0  # within a chunk and at the start of one

    def packed(x, dt, A, B, C):
        taken, dt = restart(x, dt, A, begins)
        return (ssd_scan(taken, dt, A, B, C, backend='triton')[0],)

    def separate(A, **steps):
        halves = zip(*(x.split(5, 1) for x in steps.values()), strict=True)
        halves = [dict(zip(steps, half, strict=True)) for half in halves]
        ys = [ssd_scan(A=A, **half, backend='reference')[0] for half in halves]
        return (torch.cat(ys, 1),)

    tensors = {k: x for k, x in tensors.items() if x is not None}
    assert_close(
        outputs_and_gradients(packed, tensors, torch.float32),
        outputs_and_gradients(separate, tensors, torch.float64),
        EXACT,
    )


@case
def half_precision_in_and_out_without_a_copy_in_float32(_):
    from mmtransmamba.ops.ssd import triton_launch

    seen = []
    created = triton_launch.Scan.__init__

    def watch(self, *tensors):
        created(self, *tensors)
        seen.append({x.dtype for x in self.operands.values()})

    triton_launch.Scan.__init__ = watch
    try:
        for dtype in (torch.bfloat16, torch.float16):
            tensors = {n: x.to(dtype) for n, x in operands(1, 5, 2, 3, 1, 2).items()}
            check(tensors, 2 * torch.finfo(dtype).eps, dtype)
            assert seen == [{dtype}] * 2
            seen.clear()
    finally:
        triton_launch.Scan.__init__ = created


@case
def operands_of_different_dtypes(_):
    tensors = operands(1, 5, 2, 2, 1, 2)
    half = {n: x.bfloat16() if n in 'xBC' else x for n, x in tensors.items()}
    exact = {n: x.float() for n, x in half.items()}
    found = run('triton')(**half), run('triton')(**half | {'x': exact['x']})
    expected = run('reference')(**exact)
    assert [x.dtype for x in found[0]] == [torch.bfloat16, torch.float32]
    for one, other in zip(found[0], expected, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(found[1], expected, rtol=1e-5, atol=1e-5)


@case
def any_strides_give_the_same_bits(_):
    check_layouts(run('triton'), operands(2, 3, 2, 3, 1, 2))


@case
def views_of_one_projection_are_not_copied(_):
    from mmtransmamba.ops.ssd.triton_launch import Scan

    packed = torch.randn(2, 5, 2 * 3 + 2 * 2)
    x, B, C = packed.split((6, 2, 2), dim=-1)
    tensors = dict(x=x.unflatten(-1, (2, 3)), B=B[:, :, None], C=C[:, :, None])
    rest = dict(dt=torch.rand(1, 5, 2).expand(2, -1, -1), A=-torch.rand(1).expand(2))
    read = Scan(**tensors, **rest).operands
    for name, view in tensors.items():
        assert read[name.upper()].data_ptr() == view.data_ptr()
    found = run('triton')(**tensors, **rest)
    expected = run('reference')(**tensors, **rest)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@case
def gradients_of_one_output_alone(_):
    tensors = operands(1, 5, 1, 2, 1, 2)
    for i, unused in ((0, ''), (1, 'CD')):
        outcome = {}
        for backend in ('triton', 'reference'):
            leaves = {n: x.clone().requires_grad_() for n, x in tensors.items()}
            run(backend)(**leaves)[i].sin().sum().backward()
            outcome[backend] = {n: x.grad for n, x in leaves.items() if n not in unused}
            assert not any(leaves[n].grad.any() for n in unused if backend == 'triton')
        assert_close(outcome['triton'], outcome['reference'], 1e-5)


@case
def only_the_gradients_that_are_wanted(_):
    tensors = operands(1, 5, 1, 2, 1, 2)
    for name in ('A', 'C', 'initial_state'):
        leaf = tensors[name].clone().requires_grad_()
        grads = [
            torch.autograd.grad(run(x)(**tensors | {name: leaf})[0].sum(), leaf)
            for x in ('triton', 'reference')
        ]
        torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)


@case
def an_empty_batch(_):
    found = outputs_and_gradients(run('triton'), operands(0, 4), torch.float32)
    assert found['output 0'].shape == (0, 4, 4, 6)
    assert found['output 1'].shape == (0, 4, 6, 5)
    assert found['gradient of B'].shape == (0, 4, 2, 5)
    assert not found['gradient of A'].any()


@case
def the_operator_passes_opcheck(_):
    tensors = operands(1, 3, 2, 2, 1, 2, optional=False)
    leaves = [None if x is None else x.requires_grad_() for x in tensors.values()]
    found = torch.library.opcheck(
        torch.ops.mmtransmamba.ssd_triton.default,
        tuple(leaves),
        test_utils=('test_schema', 'test_faketensor', 'test_autograd_registration'),
    )
    assert set(found.values()) == {'SUCCESS'}


@case
def torch_compile_takes_it_as_one_graph(_):
    tensors = operands(1, 5, 2, 2, 1, 2)
    compiled = torch.compile(
        lambda **o: run('triton')(**o), fullgraph=True, backend='aot_eager'
    )
    found = outputs_and_gradients(compiled, tensors, torch.float32)
    expected = outputs_and_gradients(run('triton'), tensors, torch.float32)
    assert_close(found, expected, 1e-7)


@case
def its_operations_are_counted(_):
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        run('triton')(**operands(1, 3, 2, 2, 1, 2))
    assert counter.get_total_flops() == ssd_flops(1, 3, 2, 2, 2)


@case
def autocast_leaves_the_scan_alone(_):
    tensors = operands(1, 3, 2, 2, 1, 2)
    expected = run('triton')(**tensors)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = run('triton')(**tensors)
    assert all(map(torch.equal, found, expected))


@case
def it_is_the_best_backend_and_refuses_by_name(_):
    tensors = operands()
    assert backends.resolve('ssd', tensors) is module
    for name, x, reason in (
        ('D', tensors['D'].double(), 'D is in torch.float64'),
        ('x', tensors['x'].to('meta'), 'x is on meta'),
        ('x', torch.ones(1).expand(1, 2**16, 2**7, 2**8), 'fewer than 2^31'),
        ('B', torch.ones(1).expand(1, 2**16, 2**7, 2**8), 'fewer than 2^31'),
    ):
        assert reason in module.refuses(tensors | {name: x})


def one_step(batch, *sizes):
    """Operands of ``ssd_step``."""
    tensors = operands(batch, 1, *sizes)
    state = tensors.pop('initial_state')
    for name in ('x', 'dt', 'B', 'C'):
        tensors[name] = tensors[name][:, 0]
    return dict(state=state, **tensors)


def both_steps(tensors):
    results = []
    for backend in ('triton', 'portable'):
        with backends.use_backend(backend):
            results.append(ssd_step(**tensors))
    return results


@case
def a_step_is_that_of_plain_torch(_):
    from mmtransmamba.ops.ssd import triton_step_kernel as kernel

    kept = kernel.STATES, kernel.TILE
    kernel.STATES, kernel.TILE = 4, 8  # several tiles of channels and of states
    try:
        for tensors in (one_step(2, 4, 3, 2, 5), one_step(1, 1, 1, 1, 1)):
            for given in (tensors, tensors | {'D': None}):
                torch.testing.assert_close(*both_steps(given), rtol=1e-6, atol=1e-6)
    finally:
        kernel.STATES, kernel.TILE = kept


@case
def a_step_keeps_dtypes_and_takes_any_strides(_):
    tensors = one_step(2, 2, 3, 1, 4)
    expected = both_steps(tensors)[1]
    strided_ones = {k: strided(x) for k, x in tensors.items()}
    torch.testing.assert_close(both_steps(strided_ones)[0], expected)
    half = {k: x if k == 'state' else x.bfloat16() for k, x in tensors.items()}
    found, expected = both_steps(half)
    assert found[0].dtype == torch.bfloat16 and found[1].dtype == torch.float32
    torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[0], expected[0])
    assert ssd_step(**tensors | {'state': half['state'].half()})[1].dtype == torch.half


@case
def a_step_with_a_rate_of_minus_infinity_forgets_the_state(_):
    tensors = one_step(1, 2, 2, 1, 2)
    tensors['A'] = torch.tensor([-torch.inf, -torch.inf])
    tensors['dt'][0, 1] = 0  # and without duration it keeps it
    torch.testing.assert_close(*both_steps(tensors))


@case
def a_step_of_an_empty_batch(_):
    y, state = both_steps(one_step(0, 2, 2, 1, 2))[0]
    assert y.shape == (0, 2, 2) and state.shape == (0, 2, 2, 2)


@case
def a_step_is_an_operator_of_one_graph(_):
    tensors = one_step(1, 2, 2, 1, 2)
    found = torch.library.opcheck(
        torch.ops.mmtransmamba.ssd_step_triton.default,
        tuple(tensors.values()),
        test_utils=('test_schema', 'test_faketensor'),
    )
    assert set(found.values()) == {'SUCCESS'}
    compiled = torch.compile(ssd_step, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(**tensors), ssd_step(**tensors))


@case
def a_step_that_requires_a_gradient_is_left_to_plain_torch(_):
    tensors = one_step(1, 2, 2, 1, 2)
    assert backends.resolve('ssd_step', tensors) is triton_step
    tensors['B'].requires_grad_()
    assert backends.resolve('ssd_step', tensors) is not triton_step
    assert 'no gradient, B requires one' in triton_step.refuses(tensors)
    with torch.no_grad():
        assert backends.resolve('ssd_step', tensors) is triton_step
    ssd_step(**tensors)[0].sum().backward()
    assert tensors['B'].grad.any()
