"""Train several configs over several seeds and tabulate them.

Each run is a separate process with its own folder. Finished runs are not trained again
and interrupted ones are resumed, so the command can be stopped and repeated.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from _tool import EachOnce, KeyValues, Parser, out_folder, positive, seed_number, tool

if TYPE_CHECKING:
    from mmtransmamba.apis.experiment import ExperimentResult


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        'configs', nargs='+', action=EachOnce, type=Path, help='one row each'
    )
    parser.add_argument(
        '--seeds', nargs='+', action=EachOnce, type=seed_number, default=[0, 1, 2]
    )
    parser.add_argument('--work-dir', type=out_folder, default='work_dirs/ablation')
    parser.add_argument(
        '--jobs', type=positive, default=1, help='runs at the same time'
    )
    parser.add_argument(
        '--baseline',
        default='scratch',
        help='config whose name contains this sets what is to be reached: for each '
        'seed, the best of its run',
    )
    parser.add_argument(
        '--metric',
        default='accuracy/top1',
        help='validation metric of the tables, such as mIoU; default: accuracy/top1',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=KeyValues, help='override every config'
    )
    parser.add_argument('--one', help=argparse.SUPPRESS)
    args = parser.parse_args()
    names: dict[str, Path] = {}
    for config in args.configs:
        if config.stem in names:
            parser.error(
                f'{names[config.stem]} and {config} would share the name '
                f'{config.stem}; rename one'
            )
        names[config.stem] = config
    return args


def train(args: argparse.Namespace, config: Path, seed: int) -> ExperimentResult:
    from mmtransmamba.apis.experiment import run_experiment
    from mmtransmamba.utils.config_data import parse_dumped_config
    from mmtransmamba.visualization.records import validation_metrics

    options = dict(args.cfg_options or {})
    if args.one is not None:
        options = parse_dumped_config(f'options = {args.one}')['options']
    options |= {'randomness.seed': seed}
    folder = args.work_dir / f'{config.stem}_seed{seed}'
    result = run_experiment(config, folder, options, metric=args.metric)
    if not result.scalars.accuracy:
        raise ValueError(
            f'--metric {args.metric}: no validation of {folder} has it; theirs are '
            f'{", ".join(validation_metrics(folder)) or "none"}'
        )
    return result


def train_in_process(args: argparse.Namespace, config: Path, seed: int) -> None:
    """Run this script for one config and seed; its output goes to a log file."""
    command = [sys.executable, __file__, str(config), '--seeds', str(seed)]
    command += ['--one', repr(dict(args.cfg_options or {}))]
    command += ['--work-dir', str(args.work_dir), '--metric', args.metric]
    threads = str(max(1, len(os.sched_getaffinity(0)) // args.jobs))
    args.work_dir.mkdir(parents=True, exist_ok=True)
    log = args.work_dir / f'{config.stem}_seed{seed}.log'
    with log.open('w') as output:
        code = subprocess.call(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={'OMP_NUM_THREADS': threads} | os.environ,
        )
    if code:
        raise SystemExit(f'{config.name}, seed {seed} failed, see {log}')
    print(f'{config.stem}, seed {seed}: done', flush=True)


# As tables name them.
METRICS = {'accuracy/top1': 'top-1', 'coco/bbox_mAP': 'mAP'}


def _seconds(runs: list[ExperimentResult]) -> str:
    values = [run.seconds for run in runs if run.seconds is not None]
    return f'{statistics.median(values):.0f}' if values else '-'


def tabulate(args: argparse.Namespace) -> str:
    """Markdown table with a row per config."""
    from mmtransmamba.utils.seed_statistics import mean_and_spread

    rows = {
        config.stem: [train(args, config, seed) for seed in args.seeds]
        for config in args.configs
    }
    # Runs of one seed see the same data, so each is compared with its own.
    baseline = next((name for name in rows if args.baseline in name), None)
    targets = [run.scalars.best for run in rows.get(baseline, [])]
    reach = f'reaches the best of {baseline or "a baseline"} at'
    name = METRICS.get(args.metric, args.metric)
    # Accuracies are percentages, mAP is a share.
    shares = all(run.scalars.best <= 1 for runs in rows.values() for run in runs)
    digits = 4 if shares else 2
    lines = [
        f'| config | final {name} | best {name} | {reach} | seconds |',
        '|---|---|---|---|---|',
    ]
    for name, runs in rows.items():
        epochs = [
            run.scalars.epochs_to(target)
            for run, target in zip(runs, targets, strict=False)
        ]
        lines.append(
            f'| {name} '
            f'| {mean_and_spread([run.scalars.final for run in runs], digits)} '
            f'| {mean_and_spread([run.scalars.best for run in runs], digits)} '
            f'| {", ".join("-" if e is None else str(e) for e in epochs)} '
            f'| {_seconds(runs)} |'
        )
    return '\n'.join(lines)


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    if args.one is not None:
        train(args, args.configs[0], args.seeds[0])
        return
    from mmtransmamba.utils.launch import read_config

    # Before the first of many processes.
    for config in args.configs:
        read_config(config, args.cfg_options)
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [
            pool.submit(train_in_process, args, config, seed)
            for seed in args.seeds
            for config in args.configs
        ]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            # A failure, or Ctrl-C: nothing more is started.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    table = tabulate(args)
    (args.work_dir / 'table.md').write_text(table + '\n')
    print(table)


if __name__ == '__main__':
    main()
