"""The depthwise causal convolution against its formula."""

import interpreted
import pytest
import torch
import torch.nn.functional as F
from triton_conv_cases import CASES

from mmtransmamba.ops import backends
from mmtransmamba.ops.causal_conv1d import causal_conv1d
from mmtransmamba.ops.causal_conv1d import triton as module

NO_INTERPRETER = interpreted.why_not()


def inputs(length=7, width=4, directions=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    return draw(2, length, 3), draw(directions, 3, width), draw(directions, 3)


def formula(x, weight, bias, reverse):
    """One product at a time, in float64."""
    x, weight, bias = (t.detach().double() for t in (x, weight, bias))
    B, L, D = x.shape
    W = weight.shape[-1]
    y = torch.zeros(len(reverse), B, L, D, dtype=torch.float64)
    for k, backwards in enumerate(reverse):
        for t in range(L):
            for lag in range(W):
                step = t + lag if backwards else t - lag
                if 0 <= step < L:
                    y[k, :, t] += weight[k, :, W - 1 - lag] * x[:, step]
        y[k] += bias[k]
    return y


@pytest.mark.parametrize('length, width', [(7, 4), (4, 4), (2, 4), (1, 4), (9, 1)])
@pytest.mark.parametrize('reverse', [(False,), (True,), (False, True)])
def test_is_the_formula(length, width, reverse):
    arguments = inputs(length, width, len(reverse))
    y = causal_conv1d(*arguments, reverse)
    torch.testing.assert_close(y, formula(*arguments, reverse))
    assert y.is_contiguous()


def test_is_conv1d_and_conv1d_of_the_flipped_sequence():
    x, weight, bias = inputs(dtype=torch.float32)
    y = causal_conv1d(x, weight, bias, (False, True))

    def conv1d(x, k):
        padded = F.pad(x.transpose(1, 2), (3, 0))
        return F.conv1d(padded, weight[k][:, None], bias[k], groups=3).transpose(1, 2)

    expected = torch.stack((conv1d(x, 0), conv1d(x.flip(1), 1).flip(1)))
    torch.testing.assert_close(y, expected)
    grad = torch.randn(y.shape)
    arguments = (x, weight, bias)
    for ours, theirs in zip(
        torch.autograd.grad(y, arguments, grad),
        torch.autograd.grad(expected, arguments, grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_reads_a_part_of_a_wider_tensor():
    x, weight, bias = inputs()
    wide = torch.cat((x, x), dim=-1)[..., :3]
    assert not wide.is_contiguous()
    reverse = (False, True)
    torch.testing.assert_close(
        causal_conv1d(wide, weight, bias, reverse),
        causal_conv1d(x, weight, bias, reverse),
    )


@pytest.mark.parametrize('length', [5, 2])
def test_first_and_second_derivatives(length):
    def run(*arguments):
        return causal_conv1d(*arguments, (False, True))

    assert torch.autograd.gradcheck(run, inputs(length))
    assert torch.autograd.gradgradcheck(run, inputs(length))


def test_no_bias_and_half_precision():
    x, weight, _ = inputs(dtype=torch.float32)
    zeros = torch.zeros(2, 3)
    reverse = (False, True)
    full = causal_conv1d(x, weight, None, reverse)
    torch.testing.assert_close(full, causal_conv1d(x, weight, zeros, reverse))
    half = causal_conv1d(x.bfloat16(), weight, None, reverse)
    assert half.dtype == torch.bfloat16
    # one rounding of the input and one of the output, none in between
    exact = causal_conv1d(x.bfloat16().float(), weight, None, reverse)
    assert torch.equal(half, exact.bfloat16())


@pytest.mark.parametrize('backend', ['native', 'reference', 'portable'])
def test_silu_of_half_precision_is_rounded_once(backend):
    x, weight, bias = inputs(dtype=torch.float32)
    x = x.detach().bfloat16()
    with backends.use_backend(backend):
        y = causal_conv1d(x, weight, bias, (False, True), silu=True)
        exact = causal_conv1d(x.float(), weight, bias, (False, True))
    assert torch.equal(y, F.silu(exact).bfloat16())


def test_triton_is_the_first_choice_and_leaves_the_cpu_to_others():
    assert list(backends.available('causal_conv1d')) == [
        'triton',
        'native',
        'reference',
        'portable',
    ]
    x, weight, bias = inputs()
    tensors = dict(x=x, weight=weight, bias=bias)
    assert module.refuses(tensors) == 'it runs on a GPU, x is on cpu'


@pytest.mark.parametrize('name', ['chunked', 'mamba_ssm', 'reference'])
def test_a_backend_that_other_ops_have_is_left_to_them(name):
    arguments = inputs()
    expected = causal_conv1d(*arguments, (False, True))
    with backends.use_backend(name):
        assert torch.equal(causal_conv1d(*arguments, (False, True)), expected)


@pytest.mark.skipif(NO_INTERPRETER is not None, reason=str(NO_INTERPRETER))
@pytest.mark.parametrize('case', CASES)
def test_in_the_interpreter(tmp_path_factory, case):
    reason = interpreted.outcomes('triton_conv_cases', tmp_path_factory)[case]
    assert reason is None, reason


@pytest.mark.parametrize(
    'shapes, message',
    [
        (((2, 7, 3), (1, 3, 4), (2, 3)), r'weight \[1, 3, 4\]; accepted'),
        (((2, 7, 5), (2, 3, 4), (2, 3)), r'x has shape \[2, 7, 5\]'),
        (((7, 3), (2, 3, 4), (2, 3)), r'x has shape \[7, 3\]'),
        (((2, 7, 3), (2, 3, 4), (3,)), r'bias has shape \[3\].*\[2, 3\]'),
    ],
)
def test_bad_shapes(shapes, message):
    with pytest.raises(ValueError, match=message):
        causal_conv1d(*map(torch.zeros, shapes), (False, True))


def test_compiles():
    compiled = torch.compile(
        lambda *a: causal_conv1d(*a, (False, True)), backend='aot_eager', fullgraph=True
    )
    arguments = inputs()
    y, expected = compiled(*arguments), causal_conv1d(*arguments, (False, True))
    torch.testing.assert_close(y, expected)
    for a, b in zip(
        torch.autograd.grad(y.square().sum(), arguments),
        torch.autograd.grad(expected.square().sum(), arguments),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('cuts', [(3, 5), (1, 2, 3), (6,)])
@pytest.mark.parametrize('backend', ['reference', 'portable'])
def test_a_sequence_goes_on_from_its_state(cuts, backend):
    x, weight, bias = inputs(directions=1)
    expected = causal_conv1d(x, weight, bias, (False,), silu=True)
    found, state = [], None
    with backends.use_backend(backend):
        for piece in x.tensor_split(cuts, dim=1):
            y, state = causal_conv1d(
                *(piece, weight, bias, (False,)),
                silu=True,
                state=state,
                return_state=True,
            )
            found.append(y)
            assert state.shape == (2, 3, 3) and y.shape[2] == piece.shape[1]
    torch.testing.assert_close(torch.cat(found, 2), expected)
    torch.testing.assert_close(state, x[:, -3:])
    grads = [
        torch.autograd.grad(y.sum(), (x, weight))
        for y in (expected, torch.cat(found, 2))
    ]
    torch.testing.assert_close(*grads)


def test_a_single_step_from_a_state_in_another_dtype():
    x, weight, bias = (t.detach() for t in inputs(directions=1, dtype=torch.float32))
    _, state = causal_conv1d(x[:, :-1], weight, bias, (False,), return_state=True)
    y = causal_conv1d(x[:, -1:], weight, bias, (False,), state=state.double())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, causal_conv1d(x, weight, bias, (False,))[:, :, -1:])


@pytest.mark.parametrize(
    'shape, reverse, message',
    [
        (
            (2, 4, 3),
            (False,),
            r'shape \[2, 4, 3\]; accepted: .* = \[2, 3, 3\]',
        ),
        ((1, 3, 3), (False,), r'state has shape \[1, 3, 3\]'),
        ((2, 3, 3), (True,), 'no reversed directions'),
        (None, (True,), 'no reversed directions'),
    ],
)
def test_a_state_that_does_not_fit_is_refused(shape, reverse, message):
    state = None if shape is None else torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        causal_conv1d(*inputs(directions=1), reverse, state=state, return_state=True)


@pytest.mark.parametrize('which', range(3))
def test_integers_are_refused(which):
    tensors = list(inputs())
    tensors[which] = tensors[which].long()
    name = ('x', 'weight', 'bias')[which]
    with pytest.raises(ValueError, match=f'{name} has dtype torch.int64; accepted'):
        causal_conv1d(*tensors, (False, True))


def test_float64_anywhere_is_computed_in_float64():
    x, weight, bias = (tensor.detach().float() for tensor in inputs())
    exact = causal_conv1d(x.double(), weight.double(), bias.double(), (False, True))
    found = causal_conv1d(x, weight.double(), bias, (False, True))
    assert torch.equal(found, exact.float())
