"""Implementation of ``delta_rule.py``."""

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from _race import Target, race_against_native, report, run_cases
from torch import Tensor

from mmtransmamba.ops import gated_delta_rule, kda

BATCH, LENGTH, HEADS, WIDTH = 2, 2048, 8, 64
FASTER = 20  # than the loop over the steps


def inputs(case: str) -> dict[str, Tensor]:
    """Operands as a layer makes them: keys of length one, decays near one."""
    generator = torch.Generator().manual_seed(0)
    randn = partial(torch.randn, generator=generator)
    heads = (BATCH, LENGTH, HEADS)
    gates = heads if case == 'gdn' else (*heads, WIDTH)
    named = {
        'q': F.normalize(randn(*heads, WIDTH), dim=-1),
        'k': F.normalize(randn(*heads, WIDTH), dim=-1),
        'v': randn(*heads, WIDTH),
        'g': -0.1 * F.softplus(randn(*gates)),
        'beta': randn(*heads).sigmoid(),
    }
    return {name: x.requires_grad_() for name, x in named.items()}


def with_transformers(**operands: Tensor) -> Tensor:
    """The fallback of transformers' Qwen3-Next, by chunks of 64."""
    from transformers.models.qwen3_next import modeling_qwen3_next

    q, k, v = (operands[name] for name in 'qkv')
    function = modeling_qwen3_next.torch_chunk_gated_delta_rule
    return function(q, k, v, g=operands['g'], beta=operands['beta'])[0]


def run_case(case: str, args: argparse.Namespace) -> bool:
    scan = gated_delta_rule if case == 'gdn' else kda

    def on(backend: str, **operands: Tensor) -> Tensor:
        return scan(**operands, backend=backend)[0]

    functions = {
        'native': partial(on, 'native'),
        'chunked': partial(on, 'chunked'),
        'loop': partial(on, 'reference'),
    }
    if case == 'gdn':
        functions['transformers'] = with_transformers
    return report(
        f'{case}: {BATCH} x {LENGTH} steps, {HEADS} heads of {WIDTH} channels',
        race_against_native(functions, inputs(case), args),
        [Target('native', 'loop', FASTER)],
    )


def run(args: argparse.Namespace) -> int:
    """Run the cases; the exit status."""
    return run_cases({case: partial(run_case, case) for case in args.cases}, args)
