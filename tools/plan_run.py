"""Estimate the memory and the time of a training before it starts.

Runs a few steps of small batches on the CPU, measures what autograd saves, and scales
it to the config's batch size. Weights are random where they can be. A model of several
billion parameters needs the memory and the time of such a step on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from typing import TYPE_CHECKING

from _tool import KeyValues, Parser, positive, real, tool

if TYPE_CHECKING:
    from mmtransmamba.apis.run_plan import RunPlan

GIB = 2**30


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--gpus', type=positive, default=1, help='number of devices (default: 1)'
    )
    parser.add_argument(
        '--strategy',
        choices=('ddp', 'fsdp'),
        default='ddp',
        help='a whole model on each device, or parts (default: ddp)',
    )
    parser.add_argument(
        '--mfu',
        type=real(above=0, most=1),
        default=0.3,
        help="part of the devices' peak rate that is reached (default: 0.3)",
    )
    parser.add_argument(
        '--peak-tflops',
        type=real(above=0),
        default=989.0,
        help='peak rate of a device in TFLOP/s (default: 989, an H100 in bfloat16)',
    )
    parser.add_argument(
        '--device-memory',
        type=real(above=0),
        default=80.0,
        help='memory of a device in GiB (default: 80)',
    )
    parser.add_argument(
        '--samples',
        type=positive,
        help='size of the data set of images, if its files are not on this machine',
    )
    parser.add_argument('--json', action='store_true', help='print the figures as JSON')
    parser.add_argument(
        '--cfg-options', nargs='+', action=KeyValues, help='override the config'
    )
    return parser.parse_args()


def print_plan(plan: RunPlan, device_memory: float) -> None:
    costs = plan.costs
    rows = {
        'trained parameters': f'{costs.trained:,}',
        'frozen parameters': f'{costs.frozen:,}',
        "teacher's parameters": f'{costs.teacher:,}',
        "student's FLOPs per sample": f'{costs.student_flops / 1e9:.3f} G forward',
        "teacher's FLOPs per sample": f'{costs.teacher_flops / 1e9:.3f} G forward',
        'samples': f'{plan.samples:,}',
    }
    if plan.tokens:
        rows['tokens'] = f'{plan.tokens:,}'
    rows |= {
        f'memory for {name}': f'{size / GIB:.3f} GiB'
        for name, size in plan.memory.items()
    }
    fits = plan.total <= device_memory
    rows['memory of each device'] = (
        f'{plan.total / GIB:.3f} GiB of {device_memory / GIB:g} GiB: '
        f'{"fits" if fits else "does not fit"}'
    )
    rows['batch size'] = (
        f'{plan.batch_size} per device; at most about '
        f'{plan.largest_batch(device_memory):,}'
    )
    rows['operations'] = f'{plan.flops:.3g} FLOP'
    rows['time'] = f'{plan.hours:.3g} hours on {plan.gpus} device(s)'
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f'{name:{width}}  {value}')


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    # The profiler would announce each of its measurements.
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')
    from mmtransmamba.apis.run_plan import plan_run
    from mmtransmamba.utils.launch import prepare, read_config

    cfg = read_config(args.config, args.cfg_options)
    if not cfg.get('train_cfg'):
        raise ValueError(f'the config "{args.config}" trains nothing: no train_cfg')
    prepare(cfg)
    logging.disable(logging.WARNING)  # of building a model, which is not of interest
    try:
        with contextlib.redirect_stdout(sys.stderr):
            plan = plan_run(
                cfg,
                args.gpus,
                args.mfu,
                args.peak_tflops * 1e12,
                args.strategy,
                args.samples,
            )
    finally:
        logging.disable(logging.NOTSET)
    if args.json:
        print(json.dumps(plan.as_dict(), indent=1))
    else:
        print_plan(plan, args.device_memory * GIB)


if __name__ == '__main__':
    main()
