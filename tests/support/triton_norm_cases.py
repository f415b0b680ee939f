"""Cases of the Triton kernels of the gated norm, for ``interpreted``."""

import itertools

import torch
from layouts import part

from mmtransmamba.ops import backends
from mmtransmamba.ops.gated_norm import gated_norm
from mmtransmamba.ops.gated_norm import triton as module

CASES = {}
# All channels, heads, and groups of heads.
SHAPES = (((2, 5), 24, 24), ((3,), 24, 8), ((2, 1, 3), 30, 5), ((70,), 6, 3))


def case(function):
    """Add to the cases, under the name of the function as a sentence."""
    CASES[function.__name__.replace('_', ' ')] = function
    return function


def operands(rows=(2, 5), channels=12, dtype=torch.float32, gate=True):
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    y, z = (randn(*rows, channels).to(dtype) for _ in 'yz')
    return y, z if gate else None, randn(channels)


def results(tensors, backend, lay_out=torch.clone, **kind):
    """Output and gradients; the gradient that flows in is always the same."""
    leaves = [None if x is None else lay_out(x).requires_grad_() for x in tensors]
    with backends.use_backend(backend):
        out = gated_norm(*leaves, **kind)
    grad = torch.linspace(-1, 2, out.numel()).view(out.shape).to(out)
    given = [x for x in leaves if x is not None]
    return out, *torch.autograd.grad(out, given, lay_out(grad))


def check(tensors, tolerance=2e-6, dtype=None, **kind):
    kind = dict(eps=1e-5) | kind
    found = results(tensors, 'triton', dtype=dtype, **kind)
    exact = [None if x is None else x.double() for x in tensors]
    exact = results(exact, 'reference', **kind)
    given = [x.dtype for x in tensors if x is not None]
    dtypes = [dtype or torch.float32, *given]
    for one, other, expected in zip(found, exact, dtypes, strict=True):
        assert one.dtype == expected and one.shape == other.shape
        gap = (one.double() - other).abs().max() / other.abs().max()
        assert gap < tolerance, gap


KINDS = [
    dict(gate_first=first, activation=name)
    for first, name in itertools.product((False, True), ('silu', 'sigmoid'))
]


@case
def all_kinds_of_gates_and_groups():
    for rows, channels, group in SHAPES:
        for kind in KINDS:
            check(operands(rows, channels), group=group, **kind)


@case
def no_gate():
    for rows, channels, group in SHAPES[:2]:
        check(operands(rows, channels, gate=False), group=group)


@case
def half_precision_in_and_out():
    for dtype in (torch.bfloat16, torch.float16):
        eps = torch.finfo(dtype).eps
        for out in (None, dtype):
            for first in (False, True):
                check(
                    operands(dtype=dtype),
                    tolerance=eps,
                    dtype=out,
                    group=4,
                    gate_first=first,
                )
    y, z, weight = operands()
    check((y, z.bfloat16(), weight.bfloat16()), tolerance=1e-2, group=12)


@case
def large_small_and_zero_values():
    y, z, weight = operands()
    for factor in (1e15, 1e-15, 0.0):
        kind = dict(group=4, eps=1e-6)
        found = results((factor * y, 30 * z, weight), 'triton', **kind)
        exact = results(
            [x.double() for x in (factor * y, 30 * z, weight)], 'reference', **kind
        )
        for one, other in zip(found, exact, strict=True):
            assert one.isfinite().all()
            gap = (one.double() - other).abs().max()
            assert gap <= 3e-6 * other.abs().max(), (factor, gap)


@case
def many_tokens_a_program():
    from mmtransmamba.ops.gated_norm import triton_plan

    before = triton_plan.PROGRAMS, triton_plan.ELEMENTS
    triton_plan.PROGRAMS, triton_plan.ELEMENTS = 4, 8
    try:
        for rows in (1, 31, 32):
            check(operands((rows,), 8), group=4, gate_first=True)
    finally:
        triton_plan.PROGRAMS, triton_plan.ELEMENTS = before


@case
def any_strides_give_the_same_bits():
    def swapped(x):
        return x.detach().transpose(0, -1).contiguous().transpose(0, -1)

    kind = dict(group=4, eps=1e-5)
    expected = results(operands(), 'triton', **kind)
    for lay_out in (part, swapped):
        found = results(operands(), 'triton', lay_out, **kind)
        assert all(map(torch.equal, found, expected))


@case
def an_empty_batch():
    out, dy, dz, dw = results(operands((0, 5)), 'triton', group=4, eps=1e-5)
    assert out.shape == dy.shape == dz.shape == (0, 5, 12)
    assert not dw.any()


@case
def the_operator_passes_opcheck():
    for gate in (True, False):
        y, z, weight = operands((3,), gate=gate)
        leaves = [x if x is None else x.requires_grad_() for x in (y, z, weight)]
        found = torch.library.opcheck(
            torch.ops.mmtransmamba.gated_norm_triton.default,
            (*leaves, 4, 1e-5, True, True, torch.float32),
            test_utils=('test_schema', 'test_faketensor', 'test_autograd_registration'),
        )
        assert set(found.values()) == {'SUCCESS'}


@case
def torch_compile_takes_it_as_one_graph():
    def run(y, z, weight):
        return gated_norm(y, z, weight, group=4, eps=1e-5, dtype=torch.bfloat16)

    tensors = operands()
    with backends.use_backend('triton'):
        compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
        torch.testing.assert_close(compiled(*tensors), run(*tensors))


@case
def autocast_changes_nothing():
    tensors = operands()
    kind = dict(group=4, eps=1e-5)
    expected = results(tensors, 'triton', **kind)
    with torch.autocast('cpu', torch.bfloat16):
        found = results(tensors, 'triton', **kind)
    assert all(map(torch.equal, found, expected))


@case
def it_is_the_best_backend_and_refuses_by_name():
    y, z, weight = operands()
    tensors = dict(y=y, z=z, weight=weight, group=y)
    assert backends.resolve('gated_norm', tensors) is module
    for name, x, reason in (
        ('weight', weight.double(), 'weight is in torch.float64'),
        ('y', y.to('meta'), 'y is on meta'),
        ('group', torch.ones(1).expand(1, 2**12 + 1), 'at most 4096 channels'),
    ):
        assert reason in module.refuses(tensors | {name: x})


@case
def language_mixers_use_it_where_it_runs():
    from language_models import make_teacher

    from mmtransmamba.registry import DECODER_MIXERS

    config = make_teacher().config
    for name, options in (
        ('Mamba2', dict(norm='gated')),
        ('Mamba2', dict(norm='per_head', gate=False)),
        ('KDA', {}),
    ):
        mixer = DECODER_MIXERS.get(name)(config, 0, **options)
        hidden = torch.randn(1, 1, config.hidden_size)
        y = torch.randn(1, 1, mixer.d_inner, requires_grad=True)
        found, expected = [], []
        for backend, outputs in (('triton', found), ('reference', expected)):
            with backends.use_backend(backend):
                out = mixer.gate(y, hidden)
            leaves = [y, mixer.norm.weight]
            outputs += [out, *torch.autograd.grad(out.sin().sum(), leaves)]
        assert 'gated_norm_triton' in _names(found[0].grad_fn), name
        assert 'gated_norm_triton' not in _names(expected[0].grad_fn)
        torch.testing.assert_close(found, expected)


def _names(node):
    """Names of the functions of a graph of autograd."""
    if node is None:
        return ''
    return node.name() + ' '.join(_names(x) for x, _ in node.next_functions)
