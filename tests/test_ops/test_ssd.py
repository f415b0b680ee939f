"""SSD on every backend that runs here, against definitions in float64."""

import pytest
import torch
from scan_cases import assert_close, outputs_and_gradients
from ssd_cases import attention, operands, recurrence

from mmtransmamba.ops import backends, ssd_scan, ssd_step

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))
    for name, reason in backends.available('ssd').items()
    if name in ('native', 'chunked', 'reference')
]
every_backend = pytest.mark.parametrize('backend', BACKENDS)
SHAPES = [
    # length, heads, channels, groups, states
    (1, 1, 1, 1, 1),
    (7, 4, 6, 2, 5),
    (64, 4, 3, 4, 8),
    (65, 6, 16, 1, 4),
    (200, 2, 5, 1, 20),
    (200, 6, 17, 3, 16),
]


def run(backend):
    return lambda **named: ssd_scan(**named, backend=backend)


def test_reference_is_the_recurrence():
    for optional in (True, False):
        case = operands(length=9, optional=optional)
        assert_close(
            outputs_and_gradients(run('reference'), case, torch.float64),
            outputs_and_gradients(recurrence, case, torch.float64),
            1e-12,
        )


@pytest.mark.parametrize('backend', ['reference', 'chunked'])
def test_gradcheck(backend):
    for optional in (True, False):
        case = operands(1, 3, 4, 2, 2, 3, optional=optional)
        leaves = {
            k: x.double().requires_grad_() for k, x in case.items() if x is not None
        }

        def scan(*tensors, names=tuple(leaves)):
            return ssd_scan(**dict(zip(names, tensors, strict=True)), backend=backend)

        assert torch.autograd.gradcheck(scan, tuple(leaves.values()))
        assert torch.autograd.gradgradcheck(scan, tuple(leaves.values()))


@every_backend
@pytest.mark.parametrize('optional', [True, False])
@pytest.mark.parametrize('shape', SHAPES)
def test_outputs_and_gradients(backend, shape, optional):
    length, heads, width, groups, states = shape
    case = operands(2, length, heads, width, groups, states, optional)
    assert_close(
        outputs_and_gradients(run(backend), case, torch.float32),
        outputs_and_gradients(run('reference'), case, torch.float64),
        1e-5,
    )


def test_chunked_in_double_precision():
    case = operands(length=130)
    assert_close(
        outputs_and_gradients(run('chunked'), case, torch.float64),
        outputs_and_gradients(run('reference'), case, torch.float64),
        1e-12,
    )


@every_backend
def test_the_quadratic_form(backend):
    case = operands(length=70)
    y, _ = ssd_scan(**case | {'initial_state': None}, backend=backend)
    case = {k: x.double() for k, x in case.items() if k != 'initial_state'}
    assert_close({'y': y}, {'y': attention(**case)}, 1e-5)


@every_backend
def test_without_decay_it_is_linear_attention(backend):
    case = operands(length=130, heads=2, groups=2, optional=False)
    case |= {'A': torch.zeros(2), 'dt': torch.ones(2, 130, 2)}
    y, last_state = ssd_scan(**case, backend=backend)
    q, k, v = (case[name].double().transpose(1, 2) for name in 'CBx')
    expected = {
        'y': ((q @ k.transpose(-1, -2)).tril() @ v).transpose(1, 2),
        'state': v.transpose(-1, -2) @ k,
    }
    assert_close({'y': y, 'state': last_state}, expected, 1e-5)


@every_backend
@pytest.mark.parametrize('cut', [1, 64, 100])
def test_two_halves_are_the_whole(backend, cut):
    case = operands(length=150)

    def in_two(initial_state, A, D, **steps):
        first = {k: x[:, :cut] for k, x in steps.items()}
        second = {k: x[:, cut:] for k, x in steps.items()}
        a, state = run(backend)(A=A, D=D, initial_state=initial_state, **first)
        b, state = run(backend)(A=A, D=D, initial_state=state, **second)
        return torch.cat((a, b), dim=1), state

    assert_close(
        outputs_and_gradients(in_two, case, torch.float32),
        outputs_and_gradients(run('reference'), case, torch.float64),
        1e-5,
    )


@every_backend
def test_steps_without_size_leave_the_state(backend):
    case = operands(length=90)
    case['dt'][:, 30:] = 0
    _, last_state = ssd_scan(**case, backend=backend)
    before = {
        k: x[:, :30] if k in ('x', 'dt', 'B', 'C') else x for k, x in case.items()
    }
    _, expected = ssd_scan(**before, backend='reference')
    torch.testing.assert_close(last_state, expected, rtol=1e-5, atol=1e-5)


@every_backend
def test_strong_decay(backend):
    """Sums of a thousand and more, which only their differences survive."""
    case = operands(length=150, decay=1.0)
    case['A'] = torch.tensor([-1e4, -200.0, -1.0, -1e-3])
    case['dt'][:, ::5] *= 30
    results = outputs_and_gradients(run(backend), case, torch.float32)
    assert all(x.isfinite().all() for x in results.values())
    expected = outputs_and_gradients(run('reference'), case, torch.float64)
    assert_close(results, expected, 1e-5)


@every_backend
@pytest.mark.parametrize('rate', [-1e37, -1e38, -3e38, -torch.inf])
@pytest.mark.parametrize('length', [5, 150])
def test_a_decay_too_strong_for_its_dtype_is_zero(backend, rate, length):
    case = operands(length=length)
    case['A'][0] = rate
    # Beside it a rate whose product with the step overflows.
    case['A'][1] = -1e20
    case['dt'][0, 3, 1] = 1e25
    case['x'][0, 3, 1] = 0
    results = outputs_and_gradients(run(backend), case, torch.float32)
    assert all(x.isfinite().all() for x in results.values())
    expected = outputs_and_gradients(run('reference'), case, torch.float64)
    assert_close(results, expected, 1e-5)


@every_backend
def test_a_step_without_duration_keeps_the_state_whatever_the_rate(backend):
    case = operands(length=5)
    case['A'][:] = -torch.inf
    case['dt'][:, 2:] = 0
    _, last = ssd_scan(**case, backend=backend)
    case['dt'][:, 2:] = 1
    case['A'][:] = 0
    case['x'][:, 2:] = 0
    case['x'][:, 0] = 0
    case['initial_state'][:] = 0
    torch.testing.assert_close(last, ssd_scan(**case, backend='reference')[1])


def test_a_step_with_a_rate_of_minus_infinity_forgets_the_state():
    case = operands(length=1)
    case['A'][:] = -torch.inf
    step = {k: v[:, 0] for k, v in case.items() if k in ('x', 'dt', 'B', 'C')}
    for state in (case['initial_state'], torch.zeros_like(case['initial_state'])):
        y, last = ssd_step(state, **step, A=case['A'], D=case['D'])
        expected = ssd_step(torch.zeros_like(state), **step, A=case['A'], D=case['D'])
        torch.testing.assert_close((y, last), expected)


@every_backend
def test_weak_decay_behind_a_strong_one(backend):
    case = operands(1, 60, 1, 4, 1, 4, optional=False)
    case['A'] = torch.tensor([-1.0])
    case['dt'] = torch.full((1, 60, 1), 0.01)
    case['dt'][:, 8] = 2e4
    assert_close(
        outputs_and_gradients(run(backend), case, torch.float32),
        outputs_and_gradients(run('reference'), case, torch.float64),
        1e-5,
    )


@every_backend
def test_growing_states(backend):
    case = operands(length=80)
    case['A'] = case['A'].abs() * 0.02
    assert_close(
        outputs_and_gradients(run(backend), case, torch.float32),
        outputs_and_gradients(run('reference'), case, torch.float64),
        1e-5,
    )


@every_backend
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)]
)
def test_half_precision_is_computed_in_float32(backend, dtype, tolerance):
    case = {k: x.to(dtype).float() for k, x in operands(length=70).items()}
    actual = outputs_and_gradients(run(backend), case, dtype)
    assert actual['output 0'].dtype == dtype
    assert actual['output 1'].dtype == torch.float32
    # Outputs and gradients are rounded once, to the dtype of their operand.
    expected = outputs_and_gradients(run('reference'), case, torch.float64)
    assert_close(actual, expected, tolerance)


@every_backend
def test_autocast_keeps_float32(backend):
    case = operands(length=70)
    expected = ssd_scan(**case, backend=backend)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        actual = ssd_scan(**case, backend=backend)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


def spread(x):
    """``x`` as the inside of a larger tensor of NaN, with gaps in every dimension."""
    buffer = torch.full([2 * n + 3 for n in x.shape], float('nan'))
    inside = buffer[tuple(slice(1, 2 * n + 1, 2) for n in x.shape)]
    inside.copy_(x)
    return inside


def steps_last(x):
    return x.transpose(1, -1).contiguous().transpose(1, -1) if x.dim() > 1 else x


@every_backend
@pytest.mark.parametrize('layout', [spread, steps_last])
def test_layouts(backend, layout):
    case = operands(length=70)
    expected = outputs_and_gradients(run(backend), case, torch.float32)
    # The gradients of strided leaves are compared as well.
    leaves = {k: layout(x).requires_grad_() for k, x in case.items()}
    outputs = ssd_scan(**leaves, backend=backend)
    generator = torch.Generator().manual_seed(1)
    grads = [layout(torch.randn(x.shape, generator=generator)) for x in outputs]
    torch.autograd.backward(outputs, grads)
    actual = {f'output {i}': x.detach() for i, x in enumerate(outputs)}
    actual |= {f'gradient of {k}': x.grad for k, x in leaves.items()}
    assert_close(actual, expected, 1e-6)


@every_backend
def test_views_of_one_projection(backend):
    """As models call it: x, B and C are parts of one tensor, heads share the rest."""
    packed = torch.randn(3, 40, 4 * 8 + 2 * 2 * 5)
    x, B, C = packed.split((32, 10, 10), dim=-1)
    case = operands(1, 40, optional=False)
    case = {
        'x': x.unflatten(-1, (4, 8)),
        'B': B.unflatten(-1, (2, 5)),
        'C': C.unflatten(-1, (2, 5)),
        'dt': case['dt'].expand(3, -1, -1),
        'A': case['A'][:1].expand(4),
    }
    y, last_state = ssd_scan(**case, backend=backend)
    expected = ssd_scan(**{k: x.double() for k, x in case.items()}, backend='reference')
    assert_close(
        {'y': y, 'state': last_state},
        dict(zip(('y', 'state'), expected, strict=True)),
        1e-5,
    )


@every_backend
def test_empty_batch(backend):
    results = outputs_and_gradients(run(backend), operands(batch=0), torch.float32)
    assert results['output 0'].shape == (0, 7, 4, 6)
    assert results['output 1'].shape == (0, 4, 6, 5)
    assert results['gradient of x'].shape == (0, 7, 4, 6)
    assert torch.equal(results['gradient of A'], torch.zeros(4))


@every_backend
@pytest.mark.parametrize('alone', ['y', 'state'])
def test_gradient_of_one_output_alone(backend, alone):
    case = operands(length=70)
    fixed = {} if alone == 'y' else {'C': case.pop('C'), 'D': case.pop('D')}

    def one(backend):
        def function(**named):
            cast = {k: x.to(named['x'].dtype) for k, x in fixed.items()}
            return run(backend)(**named, **cast)[alone == 'state' :][:1]

        return function

    assert_close(
        outputs_and_gradients(one(backend), case, torch.float32),
        outputs_and_gradients(one('reference'), case, torch.float64),
        1e-5,
    )


@pytest.mark.parametrize('backend', ['chunked', None])
def test_compile_fullgraph(backend):
    case = operands(length=70)
    # Graph capture is what can fail; generating code from it takes a minute.
    compiled = torch.compile(run(backend), fullgraph=True, backend='aot_eager')
    assert_close(
        outputs_and_gradients(compiled, case, torch.float32),
        outputs_and_gradients(run('reference'), case, torch.float64),
        1e-5,
    )


def test_meta_device_gives_shapes():
    case = {k: x.to('meta') for k, x in operands(length=70).items()}
    y, last_state = ssd_scan(**case)
    assert y.shape == (2, 70, 4, 6) and last_state.shape == (2, 4, 6, 5)


def step_by_step(x, dt, A, B, C, D=None, initial_state=None, step=ssd_step):
    outputs, state = [], initial_state
    for t in range(x.shape[1]):
        y, state = step(state, x[:, t], dt[:, t], A, B[:, t], C[:, t], D)
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


def test_steps_are_the_scan():
    case = operands(length=20)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        assert_close(
            outputs_and_gradients(step_by_step, case, dtype),
            outputs_and_gradients(run('reference'), case, torch.float64),
            tolerance,
        )


def test_step_in_half_precision_keeps_a_float32_state():
    case = operands(length=1)
    half = {k: x.bfloat16() for k, x in case.items()}
    half['initial_state'] = case['initial_state']
    y, state = step_by_step(**half)
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    single = {k: x.float() for k, x in half.items()}
    expected, expected_state = step_by_step(**single)
    assert torch.equal(y, expected.bfloat16())
    assert torch.equal(state, expected_state)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(step_by_step(**single)[0], expected)


def test_step_leaves_its_state_alone_and_compiles():
    case = operands(length=3)
    state = case['initial_state'].clone()
    compiled = torch.compile(ssd_step, fullgraph=True)
    y, last_state = step_by_step(**case, step=compiled)
    assert torch.equal(case['initial_state'], state)
    expected = step_by_step(**case)
    torch.testing.assert_close(y, expected[0])
    torch.testing.assert_close(last_state, expected[1])


@every_backend
def test_transformers_gives_the_same(backend):
    modeling = pytest.importorskip('transformers.models.mamba2.modeling_mamba2')
    if not hasattr(modeling, 'mamba2_chunk_scan'):
        pytest.skip('this version of transformers has no function for the scan alone')
    case = operands(length=150, heads=6, groups=3)
    initial_state = case.pop('initial_state')
    expected = modeling.mamba2_chunk_scan.__wrapped__(
        *(case[name] for name in ('x', 'dt', 'A', 'B', 'C')),
        chunk_size=32,
        D=case['D'],
        initial_states=initial_state,
        return_final_states=True,
    )
    actual = ssd_scan(**case, initial_state=initial_state, backend=backend)
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(actual[1], expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('name', 'shape', 'message'),
    [
        ('x', (2, 7, 24), r'x has shape \[2, 7, 24\]; accepted: \[B, L, H, P\]'),
        ('x', (2, 0, 4, 6), 'x has L = 0 steps'),
        ('x', (2, 7, 0, 6), 'x has H = 0 heads of P = 6 channels'),
        ('dt', (2, 7, 1), r'dt has shape \[2, 7, 1\]; accepted: \[B, L, H\] with'),
        ('A', (4, 5), r'A has shape \[4, 5\]; accepted: \[H\]'),
        ('B', (2, 7, 3, 5), 'B has 3 groups, which do not divide the 4 heads'),
        ('B', (2, 7, 2, 0), r'B has no states \(N = 0\)'),
        ('C', (2, 7, 1, 5), r'C has shape \[2, 7, 1, 5\]; .* G = 2'),
        ('D', (6,), r'D has shape \[6\]; accepted: \[H\]'),
        ('initial_state', (2, 4, 5, 6), r'accepted: \[B, H, P, N\] with'),
    ],
)
def test_wrong_shapes_are_named(name, shape, message):
    with pytest.raises(ValueError, match=message):
        ssd_scan(**operands() | {name: torch.zeros(shape)})


def test_wrong_step_shapes_are_named():
    case = operands(length=1)
    state = case.pop('initial_state')
    steps = {k: x[:, 0] if k in ('x', 'dt', 'B', 'C') else x for k, x in case.items()}
    with pytest.raises(ValueError, match=r'state has shape \[2, 4, 5, 6\]; accepted'):
        ssd_step(state.mT, **steps)
    with pytest.raises(ValueError, match=r'x has shape \[2, 1, 4, 6\]; accepted'):
        ssd_step(state, **case)


def test_wrong_dtypes_and_devices_are_named():
    case = operands()
    with pytest.raises(ValueError, match='dt has dtype torch.int64; accepted'):
        ssd_scan(**case | {'dt': case['dt'].long()})
    with pytest.raises(ValueError, match='B is on meta, but x is on cpu'):
        ssd_scan(**case | {'B': case['B'].to('meta')})
    with pytest.raises(ValueError, match="ssd has no backend 'nope'"):
        ssd_scan(**case, backend='nope')
