"""The delta rule on every backend that runs here, against definitions in float64."""

import pytest
import torch
from delta_rule_cases import RULES, operands, recurrence
from scan_cases import assert_close, outputs_and_gradients

from mmtransmamba.ops import (
    backends,
    gated_delta_rule,
    gated_delta_rule_step,
    kda,
    kda_step,
)

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))
    for name, reason in backends.available('delta_rule').items()
    if name in ('native', 'chunked', 'reference')
]
every_backend = pytest.mark.parametrize('backend', BACKENDS)
both_rules = pytest.mark.parametrize('rule', RULES)
STEPS = {'gdn': gated_delta_rule_step, 'kda': kda_step}
SHAPES = {
    # length, heads of v, heads of q and k, key channels, value channels
    'one_of_everything': (1, 1, 1, 1, 1),
    'one_step': (1, 4, 2, 6, 5),
    'odd': (7, 3, 3, 5, 3),
    'grouped': (33, 6, 2, 8, 17),
    'a_chunk': (64, 2, 2, 3, 8),
    'a_chunk_and_one': (65, 4, 1, 16, 4),
    'long': (150, 2, 1, 20, 5),
}
every_shape = pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES.keys())


def run(rule, backend, **options):
    return lambda **named: RULES[rule](**named, **options, backend=backend)


def case_of(rule, shape, **options):
    length, heads, groups, keys, values = shape
    return operands(rule, 2, length, heads, groups, keys, values, **options)


def expected_of(rule, case, **options):
    return outputs_and_gradients(run(rule, 'reference', **options), case, torch.float64)


def assert_finite(results):
    for name, x in results.items():
        assert x.isfinite().all(), name


@both_rules
@pytest.mark.parametrize('state', [True, False], ids=['state', 'no_state'])
def test_reference_is_the_recurrence_written_with_matrices(rule, state):
    case = operands(rule, length=9, state=state, strongest=2.0)
    assert_close(
        outputs_and_gradients(run(rule, 'reference'), case, torch.float64),
        outputs_and_gradients(recurrence, case, torch.float64),
        1e-12,
    )


@both_rules
@pytest.mark.parametrize('backend', ['reference', 'chunked'])
def test_gradcheck(rule, backend):
    case = operands(rule, 1, 3, 2, 1, 2, 3)
    leaves = {k: x.double().requires_grad_() for k, x in case.items()}

    def scan(*tensors):
        return run(rule, backend)(**dict(zip(leaves, tensors, strict=True)))

    assert torch.autograd.gradcheck(scan, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(scan, tuple(leaves.values()))


@every_backend
@both_rules
@every_shape
def test_outputs_and_gradients(backend, rule, shape):
    for state in (True, False):
        case = case_of(rule, shape, state=state)
        assert_close(
            outputs_and_gradients(run(rule, backend), case, torch.float32),
            expected_of(rule, case),
            1e-5,
        )


@both_rules
def test_chunked_in_double_precision(rule):
    case = operands(rule, length=130)
    assert_close(
        outputs_and_gradients(run(rule, 'chunked'), case, torch.float64),
        expected_of(rule, case),
        1e-12,
    )


@every_backend
def test_equal_decays_of_all_channels_are_one_decay_of_the_head(backend):
    case = operands('gdn', length=40)
    shared = case['g'][..., None].expand(-1, -1, -1, 6)
    torch.testing.assert_close(
        kda(**case | {'g': shared}, backend=backend),
        gated_delta_rule(**case, backend=backend),
    )


@every_backend
@both_rules
@pytest.mark.parametrize('strongest', [0.0, 1.0, 2.0], ids=['zero', 'one', 'two'])
def test_strengths_from_nothing_to_reversal(backend, rule, strongest):
    case = operands(rule, length=80)
    case['beta'][:] = strongest
    results = outputs_and_gradients(run(rule, backend), case, torch.float32)
    assert_close(results, expected_of(rule, case), 3e-5)


@every_backend
@both_rules
def test_no_decay_and_growing_states(backend, rule):
    for log_decay in (0.0, 0.02):
        case = operands(rule, length=80)
        case['g'][:] = log_decay
        results = outputs_and_gradients(run(rule, backend), case, torch.float32)
        assert_close(results, expected_of(rule, case), 1e-5)


@every_backend
@both_rules
@pytest.mark.parametrize('log_decay', [-90.0, -1e5, -1e38, -torch.inf], ids=str)
@pytest.mark.parametrize('length', [5, 100])
def test_a_decay_too_strong_for_its_dtype_forgets(backend, rule, log_decay, length):
    case = operands(rule, length=length)
    case['g'][:, ::3, :2] = log_decay
    if rule == 'kda':  # and a channel that does not
        case['g'][:, :, 0, 1] = 0
    results = outputs_and_gradients(run(rule, backend), case, torch.float32)
    assert_finite(results)
    assert_close(results, expected_of(rule, case), 1e-5)


@every_backend
def test_weak_decay_behind_a_strong_one(backend):
    case = operands('gdn', 1, 60, 1, 1, 4, 4)
    case['g'][:] = -0.01
    case['g'][:, 8] = -2e4
    assert_close(
        outputs_and_gradients(run('gdn', backend), case, torch.float32),
        expected_of('gdn', case),
        1e-5,
    )


@every_backend
@both_rules
def test_padding_leaves_the_state(backend, rule):
    case = operands(rule, length=90)
    pads = torch.zeros(90, dtype=torch.bool)
    pads[:10] = pads[30:40] = pads[70:] = True
    case['g'][:, pads] = 0
    case['beta'][:, pads] = 0
    y, last_state = run(rule, backend)(**case)
    tokens = {k: x if k == 'initial_state' else x[:, ~pads] for k, x in case.items()}
    expected, expected_state = run(rule, 'reference')(**tokens)
    torch.testing.assert_close(y[:, ~pads], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last_state, expected_state, rtol=1e-5, atol=1e-5)


@every_backend
@both_rules
@pytest.mark.parametrize('cuts', [(0,), (1, 2), (3, 32, 64), (69,)], ids=str)
def test_sequences_of_a_row_do_not_see_each_other(backend, rule, cuts):
    case = operands(rule, length=70)
    begins = torch.zeros(2, 70, dtype=torch.bool)
    begins[1, list(cuts)] = True

    def apart(initial_state, **steps):
        first, state = run(rule, 'reference')(
            **{k: x[:1] for k, x in steps.items()}, initial_state=initial_state[:1]
        )
        outputs, second = [], initial_state[1:]
        for start, stop in zip((0, *cuts), (*cuts, 70), strict=True):
            if stop > start:
                part = {k: x[1:, start:stop] for k, x in steps.items()}
                second = None if start in cuts else second
                y, second = run(rule, 'reference')(**part, initial_state=second)
                outputs.append(y)
        y = torch.cat((first, torch.cat(outputs, dim=1)))
        return y, torch.cat((state, second))

    results = outputs_and_gradients(
        run(rule, backend, begins=begins), case, torch.float32
    )
    if 0 in cuts:  # nothing of its state is seen
        apart_case = case | {'initial_state': case['initial_state'].clone()}
        apart_case['initial_state'][1] = 0
        expected = outputs_and_gradients(apart, apart_case, torch.float64)
        expected['gradient of initial_state'][1] = 0
    else:
        expected = outputs_and_gradients(apart, case, torch.float64)
    # The decay of a step that forgets has no gradient, that of a first step has one.
    expected['gradient of g'][1, list(cuts)] = 0
    assert_close(results, expected, 1e-5)


@every_backend
@both_rules
@pytest.mark.parametrize('cut', [1, 64, 100])
def test_two_halves_are_the_whole(backend, rule, cut):
    case = operands(rule, length=110)

    def in_two(initial_state, **steps):
        first = {k: x[:, :cut] for k, x in steps.items()}
        second = {k: x[:, cut:] for k, x in steps.items()}
        a, state = run(rule, backend)(initial_state=initial_state, **first)
        b, state = run(rule, backend)(initial_state=state, **second)
        return torch.cat((a, b), dim=1), state

    assert_close(
        outputs_and_gradients(in_two, case, torch.float32),
        expected_of(rule, case),
        1e-5,
    )


@every_backend
@both_rules
def test_scale_and_norm_of_queries_and_keys(backend, rule):
    case = operands(rule, length=20)
    case['q'], case['k'] = 3 * case['q'], 0.5 * case['k']
    options = dict(scale=0.7, qk_l2norm=True)

    def normed(q, k, **named):
        q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
        return recurrence(q, k, **named, scale=0.7)

    assert_close(
        outputs_and_gradients(run(rule, backend, **options), case, torch.float32),
        outputs_and_gradients(normed, case, torch.float64),
        1e-5,
    )


@every_backend
@both_rules
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)], ids=str
)
def test_half_precision_is_computed_in_float32(backend, rule, dtype, tolerance):
    case = {k: x.to(dtype).float() for k, x in operands(rule, length=70).items()}
    actual = outputs_and_gradients(run(rule, backend), case, dtype)
    assert actual['output 0'].dtype == dtype
    assert actual['output 1'].dtype == torch.float32
    # Outputs and gradients are rounded once, to the dtype of their operand.
    assert_close(actual, expected_of(rule, case), tolerance)


@every_backend
def test_autocast_keeps_float32(backend):
    case = operands(length=70)
    expected = gated_delta_rule(**case, backend=backend)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        actual = gated_delta_rule(**case, backend=backend)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


def spread(x):
    """``x`` as the inside of a larger tensor of NaN, with gaps in every dimension."""
    buffer = torch.full([2 * n + 3 for n in x.shape], float('nan'))
    inside = buffer[tuple(slice(1, 2 * n + 1, 2) for n in x.shape)]
    inside.copy_(x)
    return inside


def steps_last(x):
    return x.transpose(1, -1).contiguous().transpose(1, -1)


@every_backend
@both_rules
@pytest.mark.parametrize('layout', [spread, steps_last])
def test_layouts(backend, rule, layout):
    case = operands(rule, length=40)
    expected = outputs_and_gradients(run(rule, backend), case, torch.float32)
    # The gradients of strided leaves are compared as well.
    leaves = {k: layout(x).requires_grad_() for k, x in case.items()}
    outputs = run(rule, backend)(**leaves)
    generator = torch.Generator().manual_seed(1)
    grads = [layout(torch.randn(x.shape, generator=generator)) for x in outputs]
    torch.autograd.backward(outputs, grads)
    actual = {f'output {i}': x.detach() for i, x in enumerate(outputs)}
    actual |= {f'gradient of {k}': x.grad for k, x in leaves.items()}
    assert_close(actual, expected, 1e-6)


@every_backend
@both_rules
def test_empty_batch(backend, rule):
    case = operands(rule, batch=0)
    results = outputs_and_gradients(run(rule, backend), case, torch.float32)
    assert results['output 0'].shape == (0, 7, 4, 5)
    assert results['output 1'].shape == (0, 4, 6, 5)
    for name, x in case.items():
        assert results[f'gradient of {name}'].shape == x.shape


@every_backend
@pytest.mark.parametrize('alone', ['y', 'state'])
def test_gradient_of_one_output_alone(backend, alone):
    case = operands(length=70)
    # The first state is still seen at the end.
    case['g'] *= 0.05
    case['beta'] *= 0.1
    fixed = {} if alone == 'y' else {'q': case.pop('q')}

    def one(backend):
        def function(**named):
            cast = {k: x.to(named['v'].dtype) for k, x in fixed.items()}
            return run('gdn', backend)(**named, **cast)[alone == 'state' :][:1]

        return function

    assert_close(
        outputs_and_gradients(one(backend), case, torch.float32),
        outputs_and_gradients(one('reference'), case, torch.float64),
        1e-5,
    )


@pytest.mark.parametrize('backend', ['chunked', None])
def test_compile_fullgraph(backend):
    case = operands('kda', length=20)
    # Graph capture is what can fail; generating code from it takes a minute.
    compiled = torch.compile(run('kda', backend), fullgraph=True, backend='aot_eager')
    assert_close(
        outputs_and_gradients(compiled, case, torch.float32),
        expected_of('kda', case),
        1e-5,
    )


@both_rules
def test_meta_device_gives_shapes(rule):
    case = {k: x.to('meta') for k, x in operands(rule, length=70).items()}
    y, last_state = RULES[rule](**case)
    assert y.shape == (2, 70, 4, 5) and last_state.shape == (2, 4, 6, 5)


def step_by_step(rule, initial_state, step=None, **steps):
    outputs, state = [], initial_state
    for t in range(steps['v'].shape[1]):
        now = {k: x[:, t] for k, x in steps.items()}
        y, state = (step or STEPS[rule])(state, **now)
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


@both_rules
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str
)
def test_steps_are_the_scan(rule, dtype, tolerance):
    case = operands(rule, length=20)
    case['g'][:, 5] = -torch.inf
    results = outputs_and_gradients(
        lambda **named: step_by_step(rule, **named), case, dtype
    )
    assert_close(results, expected_of(rule, case), tolerance)


def test_step_in_half_precision_keeps_a_float32_state():
    case = operands(length=1)
    half = {k: x.bfloat16() for k, x in case.items()}
    half['initial_state'] = case['initial_state']
    y, state = step_by_step('gdn', **half)
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    single = {k: x.float() for k, x in half.items()}
    expected, expected_state = step_by_step('gdn', **single)
    assert torch.equal(y, expected.bfloat16())
    assert torch.equal(state, expected_state)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(step_by_step('gdn', **single)[0], expected)


def test_step_with_options_leaves_its_state_alone_and_compiles():
    case = operands(length=3)
    state = case['initial_state'].clone()
    options = dict(scale=0.5, qk_l2norm=True)

    def step(*args, **named):
        return gated_delta_rule_step(*args, **named, **options)

    compiled = torch.compile(step, fullgraph=True, backend='aot_eager')
    y, last_state = step_by_step('gdn', **case, step=compiled)
    assert torch.equal(case['initial_state'], state)
    expected = gated_delta_rule(**case, **options)
    torch.testing.assert_close(y, expected[0])
    torch.testing.assert_close(last_state, expected[1])


@every_backend
@pytest.mark.parametrize('form', ['chunk', 'recurrent'])
def test_transformers_gives_the_same(backend, form):
    modeling = pytest.importorskip('transformers.models.qwen3_next.modeling_qwen3_next')
    function = getattr(modeling, f'torch_{form}_gated_delta_rule')
    case = operands(length=150, heads=4, groups=4, keys=16, values=8)
    case['q'], case['k'] = 3 * case['q'], 2 * case['k']
    actual = gated_delta_rule(**case, qk_l2norm=True, backend=backend)
    steps = [case[name] for name in ('q', 'k', 'v')]
    expected = function(
        *steps,
        g=case['g'],
        beta=case['beta'],
        initial_state=case['initial_state'],
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actual[1], expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('name', 'shape', 'message'),
    [
        ('q', (2, 7, 12), r'q has shape \[2, 7, 12\]; accepted: \[B, L, G, K\]'),
        ('q', (2, 7, 3, 6), 'q has 3 heads, which do not divide the 4 heads of v'),
        ('q', (2, 7, 2, 0), r'q has no channels \(K = 0\)'),
        ('q', (2, 6, 2, 6), r'q has shape \[2, 6, 2, 6\]; .* L = 7'),
        ('k', (2, 7, 4, 6), r'k has shape \[2, 7, 4, 6\]; .* G = 2'),
        ('v', (2, 7, 20), r'v has shape \[2, 7, 20\]; accepted: \[B, L, H, V\]'),
        ('v', (2, 0, 4, 5), 'v has L = 0 steps'),
        ('v', (2, 7, 4, 0), 'v has H = 4 heads of V = 0 channels'),
        ('g', (2, 7, 4, 6), r'g has shape \[2, 7, 4, 6\]; accepted: \[B, L, H\]'),
        ('beta', (2, 7, 1), r'beta has shape \[2, 7, 1\]; accepted: \[B, L, H\] with'),
        ('initial_state', (2, 4, 5, 6), r'accepted: \[B, H, K, V\] with'),
    ],
)
def test_wrong_shapes_are_named(name, shape, message):
    with pytest.raises(ValueError, match=message):
        gated_delta_rule(**operands() | {name: torch.zeros(shape)})


def test_decays_of_the_other_rule_are_refused():
    with pytest.raises(ValueError, match=r'g has .*; accepted: \[B, L, H, K\]'):
        kda(**operands('gdn'))
    step = {k: x[:, 0] for k, x in operands('kda').items() if k != 'initial_state'}
    state = torch.zeros(2, 4, 6, 5)
    with pytest.raises(ValueError, match=r'g has .*; accepted: \[B, H\]'):
        gated_delta_rule_step(state, **step)
    with pytest.raises(ValueError, match=r'state has shape \[2, 4, 5, 6\]; accepted'):
        kda_step(state.mT, **step)


def test_wrong_dtypes_devices_and_boundaries_are_named():
    case = operands()
    with pytest.raises(ValueError, match='beta has dtype torch.int64; accepted'):
        gated_delta_rule(**case | {'beta': case['beta'].long()})
    with pytest.raises(ValueError, match='k is on meta, but v is on cpu'):
        gated_delta_rule(**case | {'k': case['k'].to('meta')})
    with pytest.raises(ValueError, match="delta_rule has no backend 'nope'"):
        gated_delta_rule(**case, backend='nope')
    with pytest.raises(ValueError, match='begins has dtype torch.float32; accepted'):
        gated_delta_rule(**case, begins=torch.zeros(2, 7))
    with pytest.raises(ValueError, match=r'begins has shape \[7\]; accepted: \[B, L\]'):
        gated_delta_rule(**case, begins=torch.zeros(7, dtype=torch.bool))
