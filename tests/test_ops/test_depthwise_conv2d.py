"""The depthwise convolution, compiled and in torch, against float64."""

import pytest
import torch
import torch.nn.functional as F

from mmtransmamba.ops import backends
from mmtransmamba.ops.causal_conv1d import causal_conv1d
from mmtransmamba.ops.depthwise_conv2d import depthwise_conv2d
from mmtransmamba.ops.native import library
from mmtransmamba.utils.flops import counted, flop_counter

REASON = backends.available('depthwise_conv2d')['native']
needs_native = pytest.mark.skipif(REASON is not None, reason=str(REASON))
LEVELS = [] if REASON else list(library.load().levels)


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    """Every instruction set level this machine has."""
    monkeypatch.setattr(library.load(), 'level', request.param)
    return request.param


def inputs(grid, channels, size, batch=2, bias=True):
    """Tokens that are a part of a wider tensor, as behind a fused projection."""
    wide = torch.randn(batch, grid[0] * grid[1], 2 * channels, requires_grad=True)
    weight = torch.randn(channels, 1, *size, requires_grad=True)
    return wide, weight, torch.randn(channels, requires_grad=True) if bias else None


def derivatives(function, operands, dtype):
    """The output and all gradients, in a dtype."""
    given = [
        None if x is None else x.detach().to(dtype).requires_grad_() for x in operands
    ]
    y = function(*given)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    leaves = [x for x in given if x is not None]
    return [y, *torch.autograd.grad(y, leaves, grad.to(dtype))]


def assert_all_close(found, expected, tolerance=2e-6):
    for a, b in zip(found, expected, strict=True):
        scale = float(b.detach().abs().max())
        torch.testing.assert_close(a.double(), b, rtol=0, atol=tolerance * scale)


def as_conv2d(grid, silu):
    """The map's convolution, written with torch alone."""

    def function(wide, weight, bias):
        x = wide.chunk(2, dim=-1)[0].transpose(1, 2).unflatten(2, grid)
        padding = tuple(size // 2 for size in weight.shape[2:])
        y = F.conv2d(x, weight, bias, padding=padding, groups=x.shape[1])
        return (F.silu(y) if silu else y).flatten(2).transpose(1, 2)

    return function


def ours(grid, silu):
    def function(wide, weight, bias):
        return depthwise_conv2d(wide.chunk(2, dim=-1)[0], weight, bias, grid, silu=silu)

    return function


CASES = {
    'seven': ((5, 9), 19, (7, 7), True, True),
    'three': ((14, 14), 16, (3, 3), False, True),
    'oblong kernel': ((6, 4), 5, (3, 9), True, False),
    'kernel above the grid': ((2, 2), 3, (7, 7), True, True),
    'one row': ((1, 31), 33, (3, 3), True, True),
    'one column': ((31, 1), 7, (5, 1), False, False),
    'one token': ((1, 1), 2, (3, 3), True, True),
    'several bands': ((23, 410), 3, (3, 3), True, True),
}


@pytest.mark.parametrize('case', CASES)
def test_native_and_reference_are_conv2d(case):
    grid, channels, size, bias, silu = CASES[case]
    operands = inputs(grid, channels, size, bias=bias)
    expected = derivatives(as_conv2d(grid, silu), operands, torch.float64)
    exact = derivatives(ours(grid, silu), operands, torch.float64)
    assert_all_close(exact, expected, 1e-12)
    assert_all_close(derivatives(ours(grid, silu), operands, torch.float32), expected)


@needs_native
@pytest.mark.parametrize('case', ['seven', 'kernel above the grid', 'one row'])
def test_every_level(level, case):
    grid, channels, size, bias, silu = CASES[case]
    operands = inputs(grid, channels, size, bias=bias)
    assert_all_close(
        derivatives(ours(grid, silu), operands, torch.float32),
        derivatives(as_conv2d(grid, silu), operands, torch.float64),
    )


@needs_native
@pytest.mark.parametrize('length, width', [(197, 4), (4, 4), (2, 4), (1, 4), (9, 1)])
@pytest.mark.parametrize('silu', [False, True])
def test_the_causal_convolution_at_every_level(level, length, width, silu):
    operands = (
        torch.randn(2, length, 2 * 19),
        torch.randn(2, 19, width),
        torch.randn(2, 19),
    )

    def function(wide, weight, bias):
        x = wide.chunk(2, dim=-1)[1]
        return causal_conv1d(x, weight, bias, (False, True), silu=silu)

    assert_all_close(
        derivatives(function, operands, torch.float32),
        derivatives(function, operands, torch.float64),
    )


@needs_native
def test_result_does_not_depend_on_the_number_of_threads():
    operands = inputs((12, 10), 40, (7, 7), batch=3)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(derivatives(ours((12, 10), True), operands, torch.float32))
    torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@needs_native
def test_channels_first_and_expanded_tokens_are_read_in_place():
    weight, bias = torch.randn(6, 1, 3, 3), torch.randn(6)
    first = torch.randn(2, 6, 20).transpose(1, 2)
    one = torch.randn(1, 20, 6).expand(2, 20, 6)
    for x in (first, one):
        y = depthwise_conv2d(x, weight, bias, (4, 5))
        assert torch.equal(y, depthwise_conv2d(x.contiguous(), weight, bias, (4, 5)))
        assert y.is_contiguous()


@needs_native
def test_only_the_gradients_that_are_wanted():
    grid = (4, 5)
    operands = inputs(grid, 6, (3, 3))
    everything = derivatives(ours(grid, True), operands, torch.float32)[1:]
    for i, expected in enumerate(everything):
        given = [x.detach() for x in operands]
        given[i].requires_grad_()
        y = ours(grid, True)(*given)
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        y.backward(grad)
        torch.testing.assert_close(given[i].grad, expected)


@needs_native
def test_half_precision_is_rounded_once():
    wide, weight, bias = (x.detach() for x in inputs((4, 5), 6, (3, 3)))
    y = ours((4, 5), True)(wide.bfloat16(), weight, bias)
    exact = ours((4, 5), True)(wide.bfloat16().float(), weight, bias)
    assert torch.equal(y, exact.bfloat16())


@needs_native
def test_an_empty_batch_has_no_gradient_but_its_shape():
    operands = inputs((4, 5), 6, (3, 3), batch=0)
    y, *gradients = derivatives(ours((4, 5), True), operands, torch.float32)
    assert y.shape == (0, 20, 6)
    assert [g.shape for g in gradients] == [x.shape for x in operands]
    assert not any(g.abs().sum() for g in gradients)


@needs_native
def test_compiles_and_passes_opcheck():
    operands = inputs((4, 5), 6, (3, 3))
    compiled = torch.compile(ours((4, 5), True), backend='aot_eager', fullgraph=True)
    assert_all_close(
        derivatives(compiled, operands, torch.float32),
        derivatives(as_conv2d((4, 5), True), operands, torch.float64),
    )
    taps = torch.randn(2, 1, 3, 6, requires_grad=True)
    torch.library.opcheck(
        torch.ops.mmtransmamba.depthwise,
        (torch.randn(2, 20, 6), taps, None, 4, 0, [-2, 0], [1, 0], True),
    )


@needs_native
@pytest.mark.parametrize('grid', [(4, 5), (1, 20)])
def test_flops_do_not_depend_on_the_backend(grid):
    x, weight = torch.randn(2, 20, 6), torch.randn(6, 1, 3, 3)
    kernels = torch.randn(2, 6, 4)
    for function in (
        lambda: depthwise_conv2d(x, weight, None, grid),
        lambda: causal_conv1d(x, kernels, None, (False, True)),
    ):
        found = []
        for backend in ('native', 'reference'):
            with backends.use_backend(backend), flop_counter() as counter:
                function()
            found.append(counted(counter))
        assert found[0] == found[1] > 0


@pytest.mark.parametrize(
    'shapes, message',
    [
        (((2, 21, 3), (3, 1, 3, 3), (3,)), r'x has shape \[2, 21, 3\].*4, 5'),
        (((20, 3), (3, 1, 3, 3), (3,)), r'x has shape \[20, 3\]'),
        (((2, 20, 3), (3, 1, 2, 3), (3,)), r'weight has shape \[3, 1, 2, 3\].*odd'),
        (((2, 20, 3), (3, 3, 3, 3), (3,)), r'weight has shape \[3, 3, 3, 3\]'),
        (((2, 20, 3), (3, 1, 3, 3), (1,)), r'bias has shape \[1\].*\[3\]'),
    ],
)
def test_bad_shapes(shapes, message):
    with pytest.raises(ValueError, match=message):
        depthwise_conv2d(*map(torch.zeros, shapes), (4, 5))


@pytest.mark.parametrize('which', range(3))
@pytest.mark.parametrize('backend', ['native', 'reference'])
def test_integers_are_refused(which, backend):
    tensors = [torch.ones(2, 20, 3), torch.ones(3, 1, 3, 3), torch.ones(3)]
    tensors[which] = tensors[which].long()
    name = ('x', 'weight', 'bias')[which]
    with backends.use_backend(backend):
        with pytest.raises(ValueError, match=f'{name} has dtype torch.int64; accepted'):
            depthwise_conv2d(*tensors, (4, 5))
