"""The compiled SSD kernels: instruction sets, threads, memory, and torch's tools."""

import pytest
import torch
from memory_cases import needs_resettable_peak, peak_growth
from scan_cases import assert_close, outputs_and_gradients
from ssd_cases import operands
from torch.utils.checkpoint import checkpoint

from mmtransmamba.ops import backends, ssd_scan
from mmtransmamba.ops.native import library
from mmtransmamba.ops.ssd import native as module

REASON = backends.available('ssd')['native']
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

LEVELS = [] if REASON else list(library.load().levels)


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


def native(**named):
    return ssd_scan(**named, backend='native')


def chunked(**named):
    return ssd_scan(**named, backend='chunked')


def compare(case):
    """Native in float32 against plain torch in float64, outputs and all gradients."""
    assert_close(
        outputs_and_gradients(native, case, torch.float32),
        outputs_and_gradients(chunked, case, torch.float64),
        3e-6,
    )


@pytest.mark.parametrize('optional', [True, False])
@pytest.mark.parametrize(
    'shape',
    [
        # length, heads, channels, groups, states
        (1, 1, 1, 1, 1),
        (7, 4, 6, 2, 5),
        (33, 2, 20, 2, 33),
        (64, 2, 8, 1, 64),
        (65, 3, 16, 3, 16),
        (150, 2, 31, 1, 70),
        (300, 2, 64, 2, 128),
    ],
)
def test_levels(level, shape, optional):
    length, heads, width, groups, states = shape
    compare(operands(2, length, heads, width, groups, states, optional))


@pytest.mark.parametrize('heads', [4, 9, 22])
def test_heads_of_a_group_in_segments(heads):
    assert module._segments(1, 1, heads) == heads // 4
    compare(operands(1, 70, heads, 5, 1, 6))


@pytest.mark.parametrize('length', [1, 31, 32, 33, 64, 96, 97])
def test_chunk_boundaries(length):
    compare(operands(1, length, 2, 5, 1, 6))


def test_result_does_not_depend_on_the_number_of_threads(threads):
    case = operands(3, 100, 12, 10, 2, 8)
    results = []
    for count in (1, 2, 2):
        threads(count)
        results.append(outputs_and_gradients(native, case, torch.float32))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name
        assert torch.equal(value, results[2][name]), name


def test_subnormal_numbers_survive_outside_the_kernel(threads):
    """Inside, subnormal numbers are flushed; torch's threads must not keep that."""
    threads(2)
    tiny = torch.full((1 << 20,), 1e-40)
    native(**operands(8, 50))
    assert (tiny * 1.5 > 0).all()


def test_only_the_gradients_that_are_needed():
    case = operands(length=70)
    everything = outputs_and_gradients(native, case, torch.float32)
    generator = torch.Generator().manual_seed(1)
    grads = [
        torch.randn(everything[f'output {i}'].shape, generator=generator)
        for i in range(2)
    ]
    for name, x in case.items():
        leaf = x.clone().requires_grad_()
        outputs = native(**case | {name: leaf})
        (grad,) = torch.autograd.grad(outputs, leaf, grads)
        assert torch.equal(grad, everything[f'gradient of {name}']), name


def test_opcheck():
    for optional in (True, False):
        case = operands(length=70, optional=optional)
        leaves = [None if x is None else x.requires_grad_() for x in case.values()]
        results = torch.library.opcheck(
            torch.ops.mmtransmamba.ssd.default, (*leaves, True)
        )
        assert set(results.values()) == {'SUCCESS'}


def test_activation_checkpointing():
    case = operands(length=150)

    def recomputed(**named):
        return checkpoint(native, use_reentrant=False, **named)

    plain = outputs_and_gradients(native, case, torch.float32)
    again = outputs_and_gradients(recomputed, case, torch.float32)
    assert_close(again, plain, 1e-12)


def test_no_states_are_kept_without_gradients():
    case = {k: x.requires_grad_() for k, x in operands(length=200).items()}
    with torch.no_grad():
        y, _ = native(**case)
    assert not y.requires_grad
    with pytest.raises(RuntimeError, match='states for the backward pass were not'):
        torch.ops.mmtransmamba.ssd(*case.values(), False)[0].sum().backward()


def test_what_native_leaves_to_plain_torch():
    case = operands()
    doubles = {name: x.double() for name, x in case.items()}
    with pytest.raises(ValueError, match='in float32, x is in torch.float64'):
        native(**doubles)
    assert ssd_scan(**doubles)[0].dtype == torch.float64
    with pytest.raises(ValueError, match='in float32, A is in torch.float64'):
        native(**case | {'A': case['A'].double()})


@needs_resettable_peak
@pytest.mark.parametrize('states', [16, 128])
def test_memory_is_that_of_the_inputs_and_a_state_per_chunk(states):
    case = operands(1, 8192, 8, 64, 1, states, optional=False)
    leaves = {k: x.requires_grad_() for k, x in case.items() if x is not None}
    inputs = sum(x.numel() * 4 for x in leaves.values())

    def step():
        y, _ = native(**leaves)
        torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y))

    # Output, its gradient, the gradients of the inputs, partial ones of B and C, the
    # kept states. The states of all steps would be 16 or 128 times ``x``.
    assert peak_growth(step) < 6 * inputs
