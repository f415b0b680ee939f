"""The compiled kernels against the float64 reference, outputs and all gradients."""

import pytest
import torch
from scan_cases import (
    assert_close,
    direction_operands,
    outputs_and_gradients,
    plain_operands,
    random_orders,
)

from mmtransmamba.ops import (
    arguments,
    backends,
    scan_order,
    selective_scan_directions,
    selective_scan_fn,
)
from mmtransmamba.ops.native import library

REASON = backends.available('selective_scan')['native']
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

TOLERANCE = 1e-5
LEVELS = [] if REASON else list(library.load().levels)


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    """Every instruction set level this machine has."""
    monkeypatch.setattr(library.load(), 'level', request.param)
    return request.param


@pytest.fixture(params=[1, 2])
def threads(request):
    """One thread and two."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def plain(backend, **options):
    def function(**operands):
        return selective_scan_fn(
            **operands,
            delta_softplus=True,
            return_last_state=True,
            backend=backend,
            **options,
        )

    return function


def directions(backend, order, **options):
    def function(**operands):
        return selective_scan_directions(
            **operands, order=order, delta_softplus=True, backend=backend, **options
        )

    return function


def compare(make, operands, tolerance=TOLERANCE):
    """Native in float32 against the reference in float64."""
    assert_close(
        outputs_and_gradients(make('native'), operands, torch.float32),
        outputs_and_gradients(make('reference'), operands, torch.float64),
        tolerance,
    )


@pytest.mark.parametrize('length', [1, 2, 7, 196, 1000])
@pytest.mark.parametrize('states', [1, 3, 8, 16, 24, 32, 64])
def test_sizes(states, length):
    optional = (states + length) % 2 == 0
    compare(plain, plain_operands(2, 12, length, states, 2, optional))


@pytest.mark.parametrize('states', [1, 2, 3, 7, 16])
@pytest.mark.parametrize(('channels', 'groups'), [(1, None), (37, None), (40, 2)])
def test_levels(level, states, channels, groups):
    compare(plain, plain_operands(2, channels, 70, states, groups))


def test_threads(threads):
    compare(plain, plain_operands(3, 200, 70, 16))
    order = scan_order.continuous_2d(7, 9).order
    operands = direction_operands(4, 63, 16, 130)
    compare(lambda backend: directions(backend, order, tap_index=order), operands)


def test_threads_without_an_openmp_runtime(threads):
    entry = library.load()._lib.mmt_set_fork_join
    entry(None)
    try:
        compare(plain, plain_operands(3, 200, 70, 4))
    finally:
        entry(library._openmp_of_torch())


def test_result_does_not_depend_on_the_number_of_threads():
    operands = plain_operands(2, 300, 50, 8)
    before = torch.get_num_threads()
    results = []
    for count in (1, 2, 2):
        torch.set_num_threads(count)
        results.append(outputs_and_gradients(plain('native'), operands, torch.float32))
    torch.set_num_threads(before)
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name
        assert torch.equal(value, results[2][name]), name


@pytest.mark.parametrize('missing', ['D', 'z', 'delta_bias'])
def test_each_optional_operand_alone_is_absent(missing):
    compare(plain, plain_operands(groups=3) | {missing: None})


def test_delta_without_softplus():
    operands = plain_operands(length=40)
    operands['delta'] = operands['delta'].abs() * 0.3
    operands['delta_bias'] = operands['delta_bias'].abs() * 0.1

    def make(backend):
        return lambda **operands: (selective_scan_fn(**operands, backend=backend),)

    compare(make, operands)


def test_b_and_c_of_different_groups():
    operands = plain_operands(groups=2)
    operands['C'] = plain_operands(groups=3, seed=1)['C']
    compare(plain, operands)
    operands['C'] = plain_operands(seed=1)['C']
    compare(plain, operands)


def test_extreme_step_sizes():
    """Large and tiny steps: softplus and exp over their whole range."""
    operands = plain_operands(length=64)
    operands['delta'] = torch.linspace(-30, 60, 64).expand(2, 12, 64).clone()
    compare(plain, operands)
    operands['delta'] = -operands['delta']
    compare(plain, operands)


@pytest.mark.parametrize('rate', [-1e37, -1e38, -3e38, -torch.inf])
def test_a_decay_too_strong_for_its_dtype_is_zero(rate):
    operands = plain_operands(length=150)
    operands['A'][:, 0] = rate
    results = outputs_and_gradients(plain('native'), operands, torch.float32)
    assert all(x.isfinite().all() for x in results.values())
    compare(plain, operands)


def test_growing_states():
    operands = plain_operands(length=20)
    operands['A'] = operands['A'].abs() * 0.2
    compare(plain, operands)


def test_nan_reaches_the_output():
    operands = plain_operands(optional=False)
    operands['delta'][1, 3, 4] = float('nan')
    y = selective_scan_fn(**operands, delta_softplus=True, backend='native')
    assert y[1, 3, 4:].isnan().all()
    assert not y[1, 3, :4].isnan().any()
    assert not y[0].isnan().any()


def test_subnormal_numbers_survive_outside_the_kernel(threads):
    """Inside, subnormal numbers are flushed; torch's threads must not keep that."""
    tiny = torch.full((1 << 20,), 1e-40)
    selective_scan_fn(**plain_operands(8, 64, 50), backend='native')
    assert (tiny * 1.5 > 0).all()


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)]
)
def test_half_precision_is_computed_in_float32(dtype, tolerance):
    operands = plain_operands(length=50, groups=2)
    operands = {name: x.to(dtype).float() for name, x in operands.items()}
    actual = outputs_and_gradients(plain('native'), operands, dtype)
    expected = outputs_and_gradients(plain('reference'), operands, torch.float64)
    assert actual['output 0'].dtype == dtype
    assert actual['output 1'].dtype == torch.float32
    # Outputs and gradients are rounded once, to the dtype of their operand.
    assert_close(actual, expected, tolerance)


def poisoned(x):
    """``x`` as the inside of a larger tensor of NaN, with gaps in every dimension."""
    buffer = torch.full([2 * n + 3 for n in x.shape], float('nan'))
    inside = buffer[tuple(slice(1, 2 * n + 1, 2) for n in x.shape)]
    inside.copy_(x)
    return inside


def channels_last(x):
    return x.transpose(-1, -2).contiguous().transpose(-1, -2) if x.dim() > 1 else x


@pytest.mark.parametrize('layout', [poisoned, channels_last])
@pytest.mark.parametrize('channels', [3, 37])
def test_layouts(level, layout, channels):
    operands = plain_operands(2, channels, 70, 5)
    expected = selective_scan_fn(**operands, delta_softplus=True, backend='native')
    laid_out = {k: layout(x).requires_grad_() for k, x in operands.items()}
    y = selective_scan_fn(**laid_out, delta_softplus=True, backend='native')
    assert torch.equal(y, expected)

    plain_leaves = {k: x.requires_grad_() for k, x in operands.items()}
    y_plain = selective_scan_fn(**plain_leaves, delta_softplus=True, backend='native')
    grad_y = layout(torch.randn(y.shape))
    grads = torch.autograd.grad(y, laid_out.values(), grad_y)
    plain_grads = torch.autograd.grad(y_plain, plain_leaves.values(), grad_y)
    for name, a, b in zip(operands, grads, plain_grads, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize('layout', [poisoned, channels_last])
@pytest.mark.parametrize('own', ['B', 'B delta', 'u delta A B C D delta_bias'])
def test_layouts_of_directions(layout, own):
    operands = direction_operands(2, 80, 5, 19, own=own)
    order = random_orders(2, 80)
    run = directions('native', order, tap_index=order[:, :9])
    laid_out = {name: layout(x).requires_grad_() for name, x in operands.items()}
    leaves = {name: x.requires_grad_() for name, x in operands.items()}
    actual, expected = run(**laid_out), run(**leaves)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])
    grads = [torch.randn(y.shape) for y in expected]
    for name, a, b in zip(
        operands,
        torch.autograd.grad(actual, list(laid_out.values()), grads),
        torch.autograd.grad(expected, list(leaves.values()), grads),
        strict=True,
    ):
        assert torch.equal(a, b), name


@pytest.mark.parametrize('count', [2, 3, 5, 7])
def test_directions_of_equal_decays_in_any_number(level, count):
    """They are scanned together, four at most."""
    order = random_orders(count, 130)
    compare(
        lambda backend: directions(
            backend, order, permute_params=False, tap_index=order[:, ::7]
        ),
        direction_operands(count, 130, 7, 19, own='B C D'),
    )


def test_expanded_operands():
    operands = plain_operands(batch=1)
    operands |= {k: operands[k].expand(3, -1, -1) for k in ('u', 'delta', 'z')}
    operands |= {k: operands[k].expand(3, -1, -1) for k in ('B', 'C')}
    y = selective_scan_fn(**operands, delta_softplus=True, backend='native')
    assert torch.equal(y[0], y[1]) and torch.equal(y[0], y[2])


def test_empty_batch():
    operands = plain_operands(batch=0)
    results = outputs_and_gradients(plain('native'), operands, torch.float32)
    assert results['output 0'].shape == (0, 12, 7)
    assert results['output 1'].shape == (0, 12, 3)
    assert results['gradient of u'].shape == (0, 12, 7)
    assert torch.equal(results['gradient of A'], torch.zeros(12, 3))


def test_only_the_gradients_that_are_needed():
    operands = plain_operands()
    names = list(operands)
    everything = outputs_and_gradients(plain('native'), operands, torch.float32)
    for name in names:
        leaves = dict(operands)
        leaves[name] = operands[name].clone().requires_grad_()
        results = plain('native')(**leaves)
        generator = torch.Generator().manual_seed(1)
        grads = [torch.randn(x.shape, generator=generator) for x in results]
        torch.autograd.backward(results, grads)
        assert torch.equal(leaves[name].grad, everything[f'gradient of {name}']), name


def test_gradient_of_the_last_state_alone():
    operands = plain_operands(length=70, optional=False)
    C = operands.pop('C')

    def make(backend):
        def last_state(u, **others):
            return plain(backend)(u=u, C=C.to(u.dtype), **others)[1:]

        return last_state

    compare(make, operands)


# Which operands each direction has for itself: PlainMamba, VMamba, Vim, none, and
# mixtures that no model has but the interface allows.
OWN = [
    'B',
    'u delta A B C D delta_bias',
    'delta A B C D delta_bias',
    '',
    'u D',
    'delta_bias C',
    'A delta',
]


@pytest.mark.parametrize('permute_params', [False, True])
@pytest.mark.parametrize('tapped', [False, True])
@pytest.mark.parametrize('own', OWN)
def test_directions(own, tapped, permute_params):
    order = scan_order.continuous_2d(9, 8).order
    generator = torch.Generator().manual_seed(2)
    taps = torch.randint(72, (4, 11), generator=generator) if tapped else None
    compare(
        lambda backend: directions(
            backend, order, permute_params=permute_params, tap_index=taps
        ),
        direction_operands(4, 72, 5, own=own),
    )


@pytest.mark.parametrize('states', [1, 16])
@pytest.mark.parametrize('permute_params', [False, True])
def test_directions_at_every_level(level, states, permute_params):
    order = random_orders(3, 130)
    compare(
        lambda backend: directions(
            backend, order, permute_params=permute_params, tap_index=order[:, ::7]
        ),
        direction_operands(3, 130, states, 37, own='B'),
    )


@pytest.mark.parametrize('permute_params', [False, True])
def test_a_single_direction_with_an_order(permute_params):
    order = random_orders(1, 70)
    compare(
        lambda backend: directions(
            backend, order, permute_params=permute_params, tap_index=order[:, :5]
        ),
        direction_operands(1, 70),
    )


def test_gradient_of_taps_alone():
    order = random_orders(2, 30)

    def make(backend):
        run = directions(backend, order, tap_index=order)
        return lambda **operands: run(**operands)[1:]

    compare(make, direction_operands(2, 30))


def test_directions_with_an_empty_batch_and_without_steps_to_tap():
    order = random_orders(2, 6)
    y, taps = directions('native', order, tap_index=order)(
        **direction_operands(2, 6, batch=0)
    )
    assert y.shape == (0, 20, 6) and taps.shape == (0, 2, 20, 6)
    none = torch.empty(2, 0, dtype=torch.int64)
    y, taps = directions('native', order, tap_index=none)(**direction_operands(2, 6))
    assert y.shape == (2, 20, 6) and taps.shape == (2, 2, 20, 0)


@pytest.mark.parametrize(
    ('order', 'taps', 'message'),
    [
        ([[0, 1, 2], [0, 1, 1]], [[0], [0]], 'row of order must be a permutation'),
        (
            [[0, 1, 2], [0, 1, 3]],
            [[0], [0]],
            'order has indices from 0 to 3',
        ),
        ([[0, 1, 2], [0, 1, -1]], [[0], [0]], 'order has indices from -1 to 2'),
        ([[0, 1, 2], [2, 1, 0]], [[3], [0]], 'tap_index has indices from 0 to 3'),
        ([[0, 1, 2], [2, 1, 0]], [[0], [-1]], 'tap_index has indices from -1 to 0'),
    ],
)
@pytest.mark.parametrize('backend', [None, 'native', 'reference', 'portable'])
def test_bad_indices_are_refused(order, taps, message, backend):
    run = directions(backend, torch.tensor(order), tap_index=torch.tensor(taps))
    with pytest.raises(ValueError, match=message):
        run(**direction_operands(2, 3))


@pytest.mark.parametrize(
    ('order', 'taps', 'message'),
    [
        ([[0, 1, 2], [0, 1, 1]], [[0], [0]], 'row of order must be a permutation'),
        ([[0, 1, 2], [0, 1, 3]], [[0], [0]], 'row of order must be a permutation'),
        ([[0, 1, 2], [2, 1, 0]], [[0], [-1]], 'tap_index holds a step outside'),
    ],
)
def test_the_kernel_reads_no_bad_index_where_values_are_not_checked(
    order, taps, message, monkeypatch
):
    monkeypatch.setattr(arguments, 'has_values', lambda index: False)
    run = directions('native', torch.tensor(order), tap_index=torch.tensor(taps))
    with pytest.raises(ValueError, match=message):
        run(**direction_operands(2, 3))


def test_what_native_leaves_to_the_reference():
    operands = plain_operands()
    doubles = {name: x.double() for name, x in operands.items()}
    with pytest.raises(ValueError, match='computes in float32, u is in torch.float64'):
        selective_scan_fn(**doubles, backend='native')
    assert selective_scan_fn(**doubles).dtype == torch.float64

    operands['B'] = torch.randn(12, 3)
    with pytest.raises(ValueError, match=r'B of shape \[D, N\], constant over time'):
        selective_scan_fn(**operands, backend='native')
    y = selective_scan_fn(**operands)
    assert torch.equal(y, selective_scan_fn(**operands, backend='reference'))
