"""The delta rule's compiled kernels: instruction sets, threads, memory, op checks."""

import pytest
import torch
from delta_rule_cases import RULES, operands
from memory_cases import needs_resettable_peak, peak_growth
from scan_cases import assert_close, outputs_and_gradients
from torch.utils.checkpoint import checkpoint

from mmtransmamba.ops import backends, gated_delta_rule, kda
from mmtransmamba.ops.delta_rule import native as module
from mmtransmamba.ops.native import library

REASON = backends.available('delta_rule')['native']
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

LEVELS = [] if REASON else list(library.load().levels)
SHAPES = {
    # length, heads of v, heads of q and k, key channels, value channels
    'one_of_everything': (1, 1, 1, 1, 1),
    'small': (7, 4, 2, 6, 5),
    'a_chunk_and_one': (33, 2, 2, 20, 33),
    'lanes': (64, 2, 1, 64, 64),
    'blocks_and_a_rest': (65, 3, 1, 16, 150),
    'keys_of_two_chunks': (130, 2, 1, 70, 31),
    'many_keys': (70, 1, 1, 256, 20),
}
both_rules = pytest.mark.parametrize('rule', RULES)


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    """Every instruction set level this machine has."""
    monkeypatch.setattr(library.load(), 'level', request.param)
    return request.param


@pytest.fixture
def threads():
    """Sets the number of threads until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def on(backend, rule):
    return lambda **named: RULES[rule](**named, backend=backend)


def compare(rule, case):
    """Native in float32 against plain torch in float64, outputs and all gradients."""
    assert_close(
        outputs_and_gradients(on('native', rule), case, torch.float32),
        outputs_and_gradients(on('chunked', rule), case, torch.float64),
        5e-6,
    )


@both_rules
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES.keys())
def test_levels(level, rule, shape):
    length, heads, groups, keys, values = shape
    for state in (True, False):
        compare(rule, operands(rule, 2, length, heads, groups, keys, values, state))


@both_rules
@pytest.mark.parametrize('length', [1, 31, 32, 33, 64, 96, 97])
def test_chunk_boundaries(rule, length):
    assert module._chunk(6) == 32
    compare(rule, operands(rule, 1, length))


@both_rules
def test_extremes_at_every_level(level, rule):
    case = operands(rule, 1, 40, strongest=2.0)
    case['g'][:, 3::9] = -torch.inf
    case['g'][:, 5::9] = -1e38
    case['g'][:, 7::9] = 0
    case['beta'][:, ::4] = 0
    compare(rule, case)


def test_result_does_not_depend_on_the_number_of_threads(threads):
    case = operands('kda', 3, 100, 6, 2, 10, 8)
    results = []
    for count in (1, 2, 2):
        threads(count)
        results.append(outputs_and_gradients(on('native', 'kda'), case, torch.float32))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name
        assert torch.equal(value, results[2][name]), name


@both_rules
def test_only_the_gradients_that_are_needed(rule):
    case = operands(rule, length=70)
    everything = outputs_and_gradients(on('native', rule), case, torch.float32)
    generator = torch.Generator().manual_seed(1)
    grads = [
        torch.randn(everything[f'output {i}'].shape, generator=generator)
        for i in range(2)
    ]
    for name, x in case.items():
        leaf = x.clone().requires_grad_()
        outputs = on('native', rule)(**case | {name: leaf})
        (grad,) = torch.autograd.grad(outputs, leaf, grads)
        assert torch.equal(grad, everything[f'gradient of {name}']), name


@both_rules
@pytest.mark.parametrize('state', [True, False], ids=['state', 'no_state'])
def test_opcheck(rule, state):
    case = operands(rule, length=40, state=state)
    names = ('q', 'k', 'v', 'g', 'beta', 'initial_state')
    leaves = [None if case[n] is None else case[n].requires_grad_() for n in names]
    results = torch.library.opcheck(
        torch.ops.mmtransmamba.delta_rule.default, (*leaves, 0.5, True)
    )
    assert set(results.values()) == {'SUCCESS'}


def test_activation_checkpointing():
    case = operands(length=100)

    def recomputed(**named):
        return checkpoint(on('native', 'gdn'), use_reentrant=False, **named)

    plain = outputs_and_gradients(on('native', 'gdn'), case, torch.float32)
    again = outputs_and_gradients(recomputed, case, torch.float32)
    assert_close(again, plain, 1e-12)


def test_no_states_are_kept_without_gradients():
    case = {k: x.requires_grad_() for k, x in operands(length=100).items()}
    with torch.no_grad():
        y, _ = gated_delta_rule(**case, backend='native')
    assert not y.requires_grad
    state = case.pop('initial_state')
    with pytest.raises(RuntimeError, match='states for the backward pass were not'):
        op = torch.ops.mmtransmamba.delta_rule
        op(*case.values(), state, 1.0, False)[0].sum().backward()


def test_what_native_leaves_to_plain_torch():
    case = operands('kda')
    doubles = {name: x.double() for name, x in case.items()}
    with pytest.raises(ValueError, match='in float32, v is in torch.float64'):
        kda(**doubles, backend='native')
    assert kda(**doubles)[0].dtype == torch.float64
    with pytest.raises(ValueError, match='in float32, g is in torch.float64'):
        kda(**case | {'g': case['g'].double()}, backend='native')


@needs_resettable_peak
@both_rules
@pytest.mark.parametrize('keys', [16, 128])
def test_memory_is_that_of_the_inputs_and_a_state_per_chunk(rule, keys):
    case = operands(rule, 1, 4096, 8, 8, keys, keys, state=False)
    leaves = {k: x.requires_grad_() for k, x in case.items() if x is not None}
    inputs = sum(x.numel() * 4 for x in leaves.values())

    def step():
        y, _ = on('native', rule)(**leaves)
        torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y))

    # Output, its gradient, the gradients of the inputs, the kept states. The states of
    # all steps would be 16 or 128 times ``v``.
    assert peak_growth(step) < 3 * inputs
