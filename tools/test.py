"""Evaluate a checkpoint with the test settings of a config file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from _tool import Parser, out_file, out_folder, parse_run, tool

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--work-dir',
        type=out_folder,
        help='its folder test gets logs and metrics (default: '
        'work_dirs/NAME-OF-THE-CONFIG)',
    )
    parser.add_argument(
        '--out', type=out_file, help='file for the results: .pkl, .json or .yml'
    )
    parser.add_argument(
        '--out-item',
        choices=['pred', 'metrics'],
        default='pred',
        help='what goes into --out; predictions need .pkl (default: %(default)s)',
    )
    parser.add_argument(
        '--amp', action='store_true', help='evaluate with automatic mixed precision'
    )
    return parse_run(parser, 'test_dataloader')


def prepare_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the command line to it.

    Raises:
        FileNotFoundError: If the config or the checkpoint does not exist.
        ValueError: If an option does not fit the config or this machine.
    """
    from mmtransmamba.engine.student import is_distiller, student_config
    from mmtransmamba.utils import launch

    cfg = launch.load_config(args.config, args.work_dir)
    launch.override(cfg, args.cfg_options)
    # The Runner writes its config, which is not that of the training run.
    cfg.work_dir = str(Path(cfg.work_dir) / 'test')
    cfg.load_from = launch.check_checkpoint_file(args.checkpoint)
    # The config that a resumed run wrote says True, and would resume the training.
    cfg.resume = False
    missing = [name for name in launch.TESTING if cfg.get(name) is None]
    if missing:
        raise ValueError(f'the config "{args.config}" has no {", ".join(missing)}')
    if args.out is not None:
        suffixes = ('.pkl',) if args.out_item == 'pred' else ('.pkl', '.json', '.yml')
        if args.out.suffix not in suffixes:
            raise ValueError(
                f'--out with --out-item {args.out_item} must end in '
                f'{" or ".join(suffixes)}, got "{args.out}"'
            )
    if args.amp:
        cfg.test_cfg.fp16 = True
    launch.prepare(cfg)
    # A distiller's checkpoint holds the student, which is tested without the teacher,
    # unless the distiller should compare the two.
    if is_distiller(cfg.model) and not cfg.model.get('compare', False):
        cfg.model = student_config(cfg.model)
    launch.init_processes(cfg, args.launcher)
    return cfg


def check_weights(runner: Runner, checkpoint: str) -> None:
    """Refuse a checkpoint that lacks weights of the model.

    mmengine loads whatever fits and continues with random weights for the rest.

    Raises:
        CheckpointError: If the checkpoint does not fit the model.
    """
    from mmtransmamba.engine.student import trained_part
    from mmtransmamba.engine.unwrap import unwrapped_model
    from mmtransmamba.models.checkpoint import load_pretrained

    if '://' in checkpoint:
        return
    model = trained_part(unwrapped_model(runner))
    # A language model's checkpoint uses the names of the inner transformers model.
    load_pretrained(getattr(model, 'lm', model), checkpoint)


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmengine import dump
    from mmengine.evaluator import DumpResults

    from mmtransmamba.engine.run import build_runner
    from mmtransmamba.utils import launch
    from mmtransmamba.utils.metrics import plain_metrics

    runner = build_runner(prepare_config(args))
    check_weights(runner, args.checkpoint)
    if args.out is not None and args.out_item == 'pred':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=str(args.out)))
    metrics = runner.test()
    if args.out is not None and args.out_item == 'metrics':
        dump(plain_metrics(metrics), args.out)
    launch.end_processes()


if __name__ == '__main__':
    main()
