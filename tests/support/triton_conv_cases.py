"""Cases of the Triton kernels of the causal convolution, for ``interpreted``."""

import torch
from layouts import part

from mmtransmamba.ops import backends
from mmtransmamba.ops.causal_conv1d import causal_conv1d
from mmtransmamba.ops.causal_conv1d import triton as module

CASES = {}


def case(function):
    """Add to the cases, under the name of the function as a sentence."""
    CASES[function.__name__.replace('_', ' ')] = function
    return function


def operands(batch=2, length=5, channels=3, width=4, directions=2):
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    return (
        randn(batch, length, channels),
        randn(directions, channels, width),
        randn(directions, channels),
    )


def results(tensors, reverse, silu, backend, lay_out=torch.clone):
    """Output and gradients; the gradient that flows in is always the same."""
    leaves = [lay_out(x).requires_grad_() for x in tensors]
    with backends.use_backend(backend):
        y = causal_conv1d(*leaves, reverse, silu=silu)
    grad = torch.linspace(-1, 2, y.numel()).view(y.shape).to(y)
    return y, *torch.autograd.grad(y, leaves, lay_out(grad))


def check(tensors, reverse=(False, True), silu=False, tolerance=2e-6):
    found = results(tensors, reverse, silu, 'triton')
    exact = results([x.double() for x in tensors], reverse, silu, 'reference')
    for one, other, x in zip(found, exact, (tensors[0], *tensors), strict=True):
        assert one.dtype == x.dtype and one.shape == other.shape
        gap = (one.double() - other).abs().max() / other.abs().max()
        assert gap < tolerance, gap


@case
def both_directions_with_and_without_silu():
    for silu in (False, True):
        check(operands(), silu=silu)


@case
def one_direction_of_either_kind():
    for reverse in ((False,), (True,)):
        check(operands(directions=1), reverse, silu=True)


@case
def sequences_shorter_than_the_kernel_and_one_tap():
    check(operands(length=1), silu=True)
    check(operands(length=2))
    check(operands(width=1), silu=True)


@case
def several_tiles_of_steps_and_of_channels():
    check(operands(1, 67, 65), silu=True)


@case
def half_precision_in_and_out():
    for dtype in (torch.bfloat16, torch.float16):
        x, weight, bias = operands()
        check((x.to(dtype), weight, bias), silu=True, tolerance=torch.finfo(dtype).eps)


@case
def any_strides_give_the_same_bits():
    def swapped(x):
        return x.detach().transpose(0, -1).contiguous().transpose(0, -1)

    expected = results(operands(), (False, True), True, 'triton')
    for lay_out in (part, swapped):
        found = results(operands(), (False, True), True, 'triton', lay_out)
        assert all(map(torch.equal, found, expected))


@case
def autocast_leaves_the_sums_alone():
    expected = results(operands(), (False, True), True, 'triton')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = results(operands(), (False, True), True, 'triton')
    assert all(map(torch.equal, found, expected))


@case
def an_empty_batch():
    y, *grads = results(operands(batch=0), (False, True), True, 'triton')
    assert y.shape == (2, 0, 5, 3)
    assert not grads[1].any() and not grads[2].any()


@case
def the_operator_passes_opcheck():
    x, weight, bias = (x.requires_grad_() for x in operands(1, 3))
    taps = weight.detach().permute(2, 0, 1).contiguous().requires_grad_()
    for silu in (False, True):
        found = torch.library.opcheck(
            torch.ops.mmtransmamba.causal_conv1d_triton.default,
            (x, taps, bias, [0, 1], silu),
            test_utils=('test_schema', 'test_faketensor', 'test_autograd_registration'),
        )
        assert set(found.values()) == {'SUCCESS'}


@case
def torch_compile_takes_it_as_one_graph():
    def run(*tensors):
        return causal_conv1d(*tensors, (False, True), silu=True)

    tensors = operands(1, 3)
    with backends.use_backend('triton'):
        compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
        torch.testing.assert_close(compiled(*tensors), run(*tensors))


@case
def it_is_the_best_backend_and_refuses_by_name():
    tensors = dict(zip(('x', 'weight', 'bias'), operands(), strict=True))
    assert backends.resolve('causal_conv1d', tensors) is module
    for name, x, reason in (
        ('weight', tensors['weight'].double(), 'weight is in torch.float64'),
        ('weight', torch.ones(2, 3, 9), 'at most 8 taps, weight has 9'),
        ('x', tensors['x'].to('meta'), 'x is on meta'),
        ('x', torch.ones(1).expand(1, 2**16, 2**15), 'fewer than 2^31'),
    ):
        assert reason in module.refuses(tensors | {name: x})


@case
def a_sequence_goes_on_from_its_state():
    x, weight, bias = operands(directions=1)
    expected = causal_conv1d(x, weight, bias, (False,), silu=True)
    found, state = [], None
    with backends.use_backend('triton'):
        for piece in x.tensor_split((3, 4), dim=1):
            given = (piece, weight, bias, (False,))
            y, state = causal_conv1d(*given, silu=True, state=state, return_state=True)
            found.append(y)
    torch.testing.assert_close(torch.cat(found, 2), expected)
    assert torch.equal(state, x[:, -3:])


@case
def the_convolution_of_language_mixers_is_the_kernel_where_it_runs():
    from mmtransmamba.models.language.mixers.causal_conv import CausalConv

    conv = CausalConv(3, 4)
    for length in (4, 6):
        x = torch.randn(2, 3, length, requires_grad=True)
        for silu in (False, True):
            found, expected = [], []
            for backend, results in (('triton', found), ('portable', expected)):
                with backends.use_backend(backend):
                    y = conv(x, silu)
                results += [y, *torch.autograd.grad(y.sin().sum(), (x, conv.weight))]
            assert 'causal_conv1d_triton' in _names(found[0].grad_fn)
            assert 'causal_conv1d_triton' not in _names(expected[0].grad_fn)
            torch.testing.assert_close(found, expected)


def _names(node):
    """Names of the functions of a graph of autograd."""
    if node is None:
        return ''
    return node.name() + ' '.join(_names(x) for x, _ in node.next_functions)
