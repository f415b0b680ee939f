"""Train a model from a config file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from _tool import Parser, out_folder, parse_run, tool

from mmtransmamba.utils.choices import STRATEGIES

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        type=out_folder,
        help='folder for logs and checkpoints (default: work_dirs/NAME-OF-THE-CONFIG)',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from a checkpoint; without a name, from the last complete one '
        'in the work dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='train with automatic mixed precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the total batch size over '
        'auto_scale_lr.base_batch_size of the config',
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='do not evaluate during training'
    )
    parser.add_argument(
        '--strategy',
        choices=STRATEGIES,
        default='ddp',
        help='how several devices train the model: each with a whole copy (ddp, the '
        'default), or in parts (fsdp, deepspeed)',
    )
    return parse_run(parser, 'train_dataloader')


def prepare_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the command line to it.

    Raises:
        FileNotFoundError: If the config or the checkpoint does not exist.
        ValueError: If an option does not fit the config or this machine, or all
            checkpoints to resume from are damaged.
    """
    from mmtransmamba.utils import launch
    from mmtransmamba.utils.strategies import use_strategy

    cfg = launch.load_config(args.config, args.work_dir)
    launch.override(cfg, args.cfg_options)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        launch.use_amp(cfg)
    use_strategy(cfg, args.strategy, args.launcher)
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ValueError(
                '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=…) in the '
                'config: the batch size its learning rate is meant for'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume not in (None, 'auto'):
        cfg.load_from = launch.check_checkpoint_file(args.resume)
        cfg.resume = True
    elif args.resume == 'auto' or (cfg.get('resume') and not cfg.get('load_from')):
        launch.resume(cfg)
    launch.prepare(cfg)
    launch.init_processes(cfg, args.launcher)
    return cfg


@tool(parse_args, 'interrupted; --resume goes on from the last checkpoint')
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.engine.run import build_runner
    from mmtransmamba.utils import launch

    build_runner(prepare_config(args)).train()
    launch.end_processes()


if __name__ == '__main__':
    main()
