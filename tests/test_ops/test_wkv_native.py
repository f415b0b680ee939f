"""The compiled WKV kernels against the float64 reference, outputs and gradients."""

import pytest
import torch
from scan_cases import outputs_and_gradients
from wkv_cases import random_taps, wkv6_operands, wkv_operands

from mmtransmamba.ops import backends, bi_wkv, bi_wkv6
from mmtransmamba.ops.native import library

REASON = backends.available('bi_wkv')['native']
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

LEVELS = [] if REASON else list(library.load().levels)
OPERANDS = {bi_wkv: wkv_operands, bi_wkv6: wkv6_operands}


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    """Every instruction set level this machine has."""
    monkeypatch.setattr(library.load(), 'level', request.param)


@pytest.fixture(params=[bi_wkv, bi_wkv6], ids=lambda f: f.__name__)
def function(request):
    return request.param


def results_of(function, operands, backend='native', dtype=torch.float32, taps=None):
    return outputs_and_gradients(
        lambda **leaves: function(**leaves, tap_index=taps, backend=backend),
        operands,
        dtype,
    )


def compare(function, operands, taps=None, tolerance=1e-5, tolerance_of_w=1e-5):
    """Native in float32 against the reference in float64.

    Gaps count relative to the largest value, or to 1, the size of the operands,
    because some gradients vanish exactly.
    """
    actual = results_of(function, operands, taps=taps)
    expected = results_of(function, operands, 'reference', torch.float64, taps)
    assert actual.keys() == expected.keys()
    for name, want in expected.items():
        got = actual[name]
        if want is None:  # one or two tokens: nothing ever decays
            want = torch.zeros_like(operands['w'], dtype=torch.float64)
        assert got.dtype == torch.float32 and got.shape == want.shape, name
        gap = (got.double() - want).abs().max() / want.abs().max().clamp(min=1)
        limit = tolerance_of_w if name == 'gradient of w' else tolerance
        assert gap < limit, f'{name} differs by {gap:.1e} of its maximum'


@pytest.mark.parametrize('tapped', [False, True])
@pytest.mark.parametrize('channels', [1, 16, 37])
@pytest.mark.parametrize('length', [1, 2, 7, 196])
def test_sizes(length, channels, tapped):
    operands = wkv_operands(2, length, channels, 0.1)
    compare(bi_wkv, operands, random_taps(length) if tapped else None)


@pytest.mark.parametrize('tapped', [False, True])
@pytest.mark.parametrize(('heads', 'width'), [(1, 1), (3, 20), (1, 64)])
@pytest.mark.parametrize('length', [1, 2, 7, 50])
def test_sizes_v6(length, heads, width, tapped):
    operands = wkv6_operands(2, length, heads, width)
    compare(bi_wkv6, operands, random_taps(length) if tapped else None)


def test_long_sequences():
    compare(bi_wkv, wkv_operands(1, 1000, 5, 0.01))
    compare(bi_wkv6, wkv6_operands(1, 1000, 1, 4, decay=-3.0))


def test_levels(level, function):
    compare(function, OPERANDS[function](length=33), random_taps(33))


@pytest.mark.parametrize('decay', [1.0, 10.0, 300.0])
def test_strong_decay_of_either_sign(decay):
    """Plain exponents reach thousands.

    Where a far token outweighs all others, the gradient of w is a sum over the steps
    between of differences that cancel: it loses a factor of the length, though less
    than autograd through the reference in float32.
    """
    operands = wkv_operands(1, 200, 16, decay)
    operands['w'][:2] = torch.tensor([-decay, decay])
    compare(bi_wkv, operands, random_taps(200), tolerance_of_w=1e-3)


@pytest.mark.parametrize('decay', [-30.0, 2.0, 30.0])
def test_strong_and_weak_decay_v6(decay):
    compare(bi_wkv6, wkv6_operands(1, 60, 1, 20, decay))


@pytest.mark.parametrize('shift', [-300.0, -14.0, 300.0])
def test_large_and_small_keys(shift):
    """Where the constant in the denominator decides, matters or does not count."""
    operands = wkv_operands(2, 40, 12, 0.1)
    operands['k'] += shift
    # Keys near 300 have three digits less after the point.
    compare(bi_wkv, operands, tolerance=1e-4, tolerance_of_w=1e-4)


def test_nan_stays_in_its_batch_entry_and_channel(function):
    operands = OPERANDS[function](batch=3, length=9)
    operands['k'][1, 4, 8] = float('nan')
    leaves = {name: x.requires_grad_() for name, x in operands.items()}
    y, _ = function(**leaves, backend='native')
    y[0].sum().backward(retain_graph=True)
    assert y[1].isnan().any()
    assert not y[0].isnan().any() and not y[2].isnan().any()
    assert not y[1, :, :6].isnan().any()  # other channels, the other head
    if function is bi_wkv:
        assert y[1, :, 8].isnan().all()
    leaves['v'].grad = None
    y.sum().backward()
    grad = leaves['v'].grad
    assert grad[1].isnan().any()
    assert not grad[0].isnan().any() and not grad[2].isnan().any()


def poisoned(x):
    """``x`` as the inside of a larger tensor of NaN, with gaps in every dimension."""
    buffer = torch.full([2 * n + 3 for n in x.shape], float('nan'))
    inside = buffer[tuple(slice(1, 2 * n + 1, 2) for n in x.shape)]
    inside.copy_(x)
    return inside


def channels_first(x):
    return x.transpose(1, 2).contiguous().transpose(1, 2) if x.dim() == 3 else x


@pytest.mark.parametrize('layout', [poisoned, channels_first])
@pytest.mark.parametrize('length', [3, 37])
def test_layouts(level, function, layout, length):
    operands = OPERANDS[function](length=length)
    leaves = {name: x.clone().requires_grad_() for name, x in operands.items()}
    expected, _ = function(**leaves, backend='native')
    laid_out = {name: layout(x).requires_grad_() for name, x in operands.items()}
    y, _ = function(**laid_out, backend='native')
    assert torch.equal(y, expected)

    grad_y = layout(torch.randn(y.shape))
    grads = torch.autograd.grad(y, laid_out.values(), grad_y)
    wanted = torch.autograd.grad(expected, leaves.values(), grad_y)
    for name, got, want in zip(operands, grads, wanted, strict=True):
        assert torch.equal(got, want), name


def test_expanded_operands(function):
    operands = OPERANDS[function](batch=1)
    expanded = {
        name: x.expand(3, -1, -1) if x.dim() == 3 else x for name, x in operands.items()
    }
    y, _ = function(**expanded, backend='native')
    assert torch.equal(y[2], y[0])
    assert torch.equal(y[:1], function(**operands, backend='native')[0])
    # The gradient of a sum is one number seen through strides of 0.
    leaf = operands['v'].requires_grad_()
    function(**operands, backend='native')[0].sum().backward()
    want, leaf.grad = leaf.grad, None
    y, _ = function(**operands, backend='native')
    y.backward(torch.ones_like(y))
    assert torch.equal(leaf.grad, want)


def test_empty_batch(function):
    operands = OPERANDS[function](batch=0)
    results = results_of(function, operands, taps=random_taps(7))
    assert results['output 0'].shape == (0, 7, 12)
    assert results['output 1'].shape == (0, 2, 5, 12)
    assert results['gradient of k'].shape == (0, 7, 12)
    assert results['gradient of u'].abs().max() == 0


def test_result_does_not_depend_on_the_number_of_threads(function):
    operands = OPERANDS[function](batch=5, length=30)
    before = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(results_of(function, operands, taps=random_taps(30)))
    torch.set_num_threads(before)
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name
        assert torch.equal(value, results[2][name]), name


@pytest.mark.parametrize('separate', [False, True])
def test_opcheck(separate):
    leaves = [x.requires_grad_() for x in wkv_operands().values()]
    op = torch.ops.mmtransmamba.bi_wkv.default
    results = torch.library.opcheck(op, (*leaves, separate))
    assert set(results.values()) == {'SUCCESS'}

    r, k, v, w, _ = wkv6_operands().values()
    leaves = [x.requires_grad_() for x in (r, k, v, w.sigmoid())]
    op = torch.ops.mmtransmamba.bi_wkv6.default
    results = torch.library.opcheck(op, (*leaves, 2, separate))
    assert set(results.values()) == {'SUCCESS'}


def test_compile_fullgraph(function):
    taps = random_taps(9)

    def double_keys(k, **operands):
        return function(k=2 * k, **operands, tap_index=taps)

    operands = OPERANDS[function](length=9)
    compiled = torch.compile(double_keys, fullgraph=True)
    actual = outputs_and_gradients(compiled, operands, torch.float32)
    expected = outputs_and_gradients(double_keys, operands, torch.float32)
    for name, want in expected.items():
        torch.testing.assert_close(actual[name], want, msg=name)


def test_autocast_changes_nothing(function):
    operands = OPERANDS[function]()
    expected = results_of(function, operands, taps=random_taps(7))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        actual = results_of(function, operands, taps=random_taps(7))
    for name, want in expected.items():
        assert torch.equal(actual[name], want), name


def test_float64_goes_to_the_reference(function):
    operands = {name: x.double() for name, x in OPERANDS[function]().items()}
    assert function(**operands)[0].dtype == torch.float64
    with pytest.raises(ValueError, match='computes in float32, . is in torch.float64'):
        function(**operands, backend='native')


def test_use_backend_reaches_both_ops(function):
    operands = OPERANDS[function](length=30)
    with backends.use_backend('reference'):
        expected, _ = function(**operands)
    native, _ = function(**operands)
    assert torch.equal(native, function(**operands, backend='native')[0])
    assert torch.equal(expected, function(**operands, backend='reference')[0])
    torch.testing.assert_close(native, expected, rtol=1e-4, atol=1e-5)
