"""One step of the selective scan: the scan's own values, one token at a time."""

import pytest
import torch
from scan_cases import assert_close, outputs_and_gradients, plain_operands

from mmtransmamba.ops import backends, selective_scan_fn, selective_scan_step
from mmtransmamba.ops.selective_scan import triton_step

PER_STEP = ('u', 'delta', 'B', 'C', 'z')


def one_step(seed=0, **sizes):
    """Operands of ``selective_scan_step`` with a state that is not zero."""
    tensors = plain_operands(length=1, seed=seed, **sizes)
    for name in PER_STEP:
        if tensors[name] is not None:
            tensors[name] = tensors[name][..., 0]
    state = torch.randn(len(tensors['u']), *tensors['A'].shape)
    return dict(state=state, **tensors)


def step_by_step(step=selective_scan_step, softplus=True, **operands):
    u, A = operands['u'], operands['A']
    state = u.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for t in range(u.shape[-1]):
        now = {
            k: x[..., t] if k in PER_STEP and x is not None else x
            for k, x in operands.items()
        }
        y, state = step(state, **now, delta_softplus=softplus)
        outputs.append(y)
    return torch.stack(outputs, dim=-1), state


@pytest.mark.parametrize('optional', [True, False])
@pytest.mark.parametrize('groups', [None, 1, 3])
def test_steps_are_the_scan(groups, optional):
    operands = plain_operands(groups=groups, optional=optional)

    def scan(**operands):
        return selective_scan_fn(
            **operands, delta_softplus=True, return_last_state=True, backend='reference'
        )

    expected = outputs_and_gradients(scan, operands, torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        found = outputs_and_gradients(step_by_step, operands, dtype)
        assert_close(found, expected, tolerance)


def test_B_and_C_may_have_different_numbers_of_groups_and_delta_no_softplus():
    operands = plain_operands(groups=4, optional=False)
    operands['C'] = operands['C'][:, 0]
    found = step_by_step(**operands, softplus=False)
    expected = selective_scan_fn(**operands, return_last_state=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_half_precision_keeps_a_float32_state_also_under_autocast():
    operands = one_step()
    half = {k: x if k == 'state' else x.bfloat16() for k, x in operands.items()}
    exact = {k: x.float() for k, x in half.items()}
    y, state = selective_scan_step(**half, delta_softplus=True)
    expected, expected_state = selective_scan_step(**exact, delta_softplus=True)
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert torch.equal(y, expected.bfloat16()) and torch.equal(state, expected_state)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y, _ = selective_scan_step(**exact, delta_softplus=True)
    assert torch.equal(y, expected)


def test_it_leaves_its_state_alone_and_compiles_to_one_graph():
    operands = one_step(batch=1, channels=4)
    before = operands['state'].clone()
    compiled = torch.compile(selective_scan_step, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(**operands), selective_scan_step(**operands))
    assert torch.equal(operands['state'], before)


def test_a_rate_of_minus_infinity_forgets_the_state_and_no_step_keeps_it():
    operands = one_step(batch=1, channels=2, optional=False)
    operands['A'] = torch.full_like(operands['A'], -torch.inf)
    operands['delta'] = torch.tensor([[1.0, 0.0]])
    y, state = selective_scan_step(**operands)
    assert y.isfinite().all()
    drive = operands['u'][0, 0] * operands['B'][0]
    torch.testing.assert_close(state[0], torch.stack([drive, operands['state'][0, 1]]))


def test_triton_comes_first_and_leaves_the_cpu_to_plain_torch():
    assert list(backends.available('selective_scan_step')) == ['triton', 'portable']
    assert backends.resolve('selective_scan_step', one_step()) is not triton_step
    assert triton_step.refuses(one_step()) == 'it runs on a GPU, u is on cpu'


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('u', torch.zeros(2, 12, 1), r'u has shape \[2, 12, 1\]; accepted: \[B, D\]'),
        ('state', torch.zeros(2, 12), r'state has shape .*accepted: \[B, D, N\]'),
        ('delta', torch.zeros(2, 11), r'delta has shape \[2, 11\]'),
        ('A', torch.zeros(12, 0), r'A has shape \[12, 0\]; at least one'),
        ('A', torch.zeros(11, 3), r'A has shape \[11, 3\]; accepted: \[D, N\]'),
        ('B', torch.zeros(2, 4), r'B has shape \[2, 4\]; accepted: \[B, N\] with'),
        ('B', torch.zeros(2, 1, 3, 1), r'accepted: \[B, N\] or \[B, G, N\]'),
        ('C', torch.zeros(2, 5, 3), 'C has 5 groups .* do not divide the 12 channels'),
        ('C', torch.zeros(2, 4, 2), r'C has shape .*accepted: \[B, G, N\]'),
        ('D', torch.zeros(11), r'D has shape \[11\]; accepted: \[D\]'),
        ('z', torch.zeros(1, 12), r'z has shape \[1, 12\]; accepted: \[B, D\]'),
        ('delta_bias', torch.zeros(12, device='meta'), 'delta_bias is on meta'),
        ('state', torch.zeros(2, 12, 3, dtype=torch.long), 'state has dtype torch.int'),
    ],
)
def test_bad_operand_is_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        selective_scan_step(**one_step() | {name: value})
