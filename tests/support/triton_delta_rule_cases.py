"""Cases of the Triton kernels of the gated delta rule, for ``interpreted``."""

import functools

import torch
from delta_rule_cases import RULES, operands
from layouts import check_layouts
from scan_cases import assert_close, outputs_and_gradients
from torch.utils.flop_counter import FlopCounterMode

from mmtransmamba.ops import backends, gated_delta_rule
from mmtransmamba.ops.delta_rule import triton as module
from mmtransmamba.ops.delta_rule import triton_plan as plan
from mmtransmamba.ops.flops import FORMULAS, delta_rule_flops

EXACT = 2e-6
CASES = {}


def case(function):
    """Add to the cases, under the name of the function as a sentence."""
    CASES[function.__name__.replace('_', ' ')] = function
    return function


def for_both_rules(function):
    """Add two cases, one for each rule."""
    for rule in RULES:
        name = f'{function.__name__.replace("_", " ")} {rule}'
        CASES[name] = functools.partial(function, rule)
    return function


def small_chunks(function):
    """Let a few steps be several chunks of one block."""

    @functools.wraps(function)
    def run(*arguments):
        kept, plan.CHUNK = plan.CHUNK, 16
        try:
            function(*arguments)
        finally:
            plan.CHUNK = kept

    return run


def on(backend, rule, **options):
    return lambda **named: RULES[rule](**named, **options, backend=backend)


def check(rule, named, tolerance=EXACT, dtype=torch.float32, **options):
    found = outputs_and_gradients(on('triton', rule, **options), named, dtype)
    exact = {k: None if x is None else x.to(dtype) for k, x in named.items()}
    expected = outputs_and_gradients(
        on('reference', rule, **options), exact, torch.float64
    )
    assert_close(found, expected, tolerance)
    for name, x in found.items():
        assert x.dtype == (torch.float32 if name == 'output 1' else dtype)


@for_both_rules
def one_step_of_one_channel(rule):
    check(rule, operands(rule, 1, 1, 1, 1, 1, 1, state=rule == 'gdn'))


@for_both_rules
@small_chunks
def several_chunks_and_heads_that_share_keys(rule):
    check(rule, operands(rule, 1, 19, 2, 1, 6, 5))


@for_both_rules
def blocks_of_a_chunk_that_is_not_full(rule):
    check(rule, operands(rule, 1, 21, 1, 1, strongest=2.0))


@for_both_rules
def more_channels_than_a_tile(rule):
    check(rule, operands(rule, 1, 3, 1, 1, 35, 20))


@for_both_rules
@small_chunks
def packed_sequences_do_not_see_each_other(rule):
    named = operands(rule, 1, 20, 1, 1)
    begins = torch.zeros(1, 20, dtype=torch.bool)
    begins[0, [3, 4, 16]] = True
    check(rule, named, begins=begins)


@for_both_rules
def extreme_decays_and_strengths(rule):
    named = operands(rule, 1, 20, 1, 1, 4, 4, strongest=2.0)
    named['g'][:] = -0.01
    named['g'][:, 2::6] = -torch.inf
    named['g'][:, 5::6] = -20
    named['beta'][:, ::5] = 0
    found = outputs_and_gradients(on('triton', rule), named, torch.float32)
    # The reference would multiply infinity by zero.
    named['g'].clamp_(min=-1000)
    expected = outputs_and_gradients(on('reference', rule), named, torch.float64)
    assert_close(found, expected, EXACT)
    assert not found['gradient of g'][:, 2::6].any()


@case
def weak_decays_behind_many_strong_ones():
    named = operands('gdn', 1, 32, 1, 1, 4, 4, state=False)
    named['g'][:] = -0.01
    named['g'][:, :24] = -60
    check('gdn', named)


@case
def equal_keys_lose_no_digits():
    named = operands('gdn', 1, 32, 1, 1, 4, 4, strongest=2.0)
    named['k'][:] = named['k'][:, :1]
    named['g'][:] = 0
    named['beta'][:] = 1.9
    # The gradient of g: 2.4e-5 with the matrix products of a CPU without AVX-512.
    check('gdn', named, tolerance=5e-5)


@for_both_rules
def half_precision_in_and_out_without_a_copy_in_float32(rule):
    from mmtransmamba.ops.delta_rule import triton_launch

    seen = []
    prepare = triton_launch._prepare

    def watch(*tensors, keep):
        seen.append({x.dtype for x in tensors[:5]})
        return prepare(*tensors, keep=keep)

    triton_launch._prepare = watch
    try:
        dtype = torch.bfloat16 if rule == 'gdn' else torch.float16
        named = operands(rule, 1, 5, 1, 1)
        check(rule, named, 2 * torch.finfo(dtype).eps, dtype)
        assert seen == [{dtype}] * 2
    finally:
        triton_launch._prepare = prepare


@for_both_rules
def options_of_the_interface(rule):
    named = operands(rule, 1, 5, 1, 1)
    check(rule, named, scale=0.7, qk_l2norm=True)


@for_both_rules
def any_strides_give_the_same_bits(rule):
    check_layouts(on('triton', rule), operands(rule, 1, 2, 1, 1))


@case
def one_output_alone_has_gradients():
    for output, fixed in ((slice(1), ()), (slice(1, 2), ('q',))):

        def alone(backend, dtype, output=output, fixed=fixed):
            named = operands('gdn', 1, 3, 1, 1)
            kept = {name: named.pop(name).to(dtype) for name in fixed}
            return outputs_and_gradients(
                lambda **x: on(backend, 'gdn')(**x, **kept)[output], named, dtype
            )

        expected = alone('reference', torch.float64)
        assert_close(alone('triton', torch.float32), expected, EXACT)


@for_both_rules
def an_empty_batch(rule):
    named = operands(rule, batch=0)
    found = outputs_and_gradients(on('triton', rule), named, torch.float32)
    assert found['output 0'].shape == (0, 7, 4, 5)
    assert found['output 1'].shape == (0, 4, 6, 5)
    for name, x in named.items():
        assert found[f'gradient of {name}'].shape == x.shape


@case
def autocast_leaves_the_scan_alone():
    named = operands('gdn', 1, 2, 1, 1)
    expected = on('triton', 'gdn')(**named)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = on('triton', 'gdn')(**named)
        low, state = on('triton', 'gdn')(**named | {'v': named['v'].bfloat16()})
    assert all(map(torch.equal, found, expected))
    assert low.dtype == torch.bfloat16 and state.dtype == torch.float32


@case
def the_operator_passes_opcheck():
    named = operands('kda', 1, 2, 1, 1).values()
    results = torch.library.opcheck(
        torch.ops.mmtransmamba.delta_rule_triton.default,
        (*(x.requires_grad_() for x in named), 0.5),
        test_utils=('test_schema', 'test_faketensor', 'test_autograd_registration'),
    )
    assert set(results.values()) == {'SUCCESS'}


@case
def torch_compile_takes_it_as_one_graph():
    named = operands('kda', 1, 2, 1, 1)
    run = on('triton', 'kda')
    compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
    assert_close(
        outputs_and_gradients(compiled, named, torch.float32),
        outputs_and_gradients(run, named, torch.float32),
        1e-6,
    )


@case
def its_operations_are_counted():
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        on('triton', 'gdn')(**operands('gdn', 1, 2, 1, 1))
    assert counter.get_total_flops() == delta_rule_flops(1, 2, 1, 6, 5)


@case
def it_is_chosen_and_refuses_by_name():
    named = operands()
    assert backends.resolve('delta_rule', named) is module
    for name, x, reason in (
        ('beta', named['beta'].double(), 'beta is in torch.float64'),
        ('q', torch.ones(2, 7, 2, 257), 'at most 256 key channels, q has 257'),
        ('v', named['v'].to('meta'), 'v is on meta'),
    ):
        assert reason in module.refuses(named | {name: x})
    try:
        gated_delta_rule(**named | {'g': named['g'].double()}, backend='triton')
    except ValueError as error:
        assert 'float32 state, g is in torch.float64' in str(error)
    else:
        raise AssertionError('no error')
