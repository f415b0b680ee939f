"""Evaluate a checkpoint with the test settings of a config file."""

import argparse
import os
import sys
from pathlib import Path

# A clean checkout needs no installation of the package itself.
_ROOT = Path(__file__).absolute().parent.parent
if (_ROOT / 'mmtransmamba' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

import mmtransmamba  # noqa: F401, I001  (first: it bridges the imports that follow)
import mmengine
from mmengine.config import Config, DictAction
from mmengine.evaluator import DumpResults
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.models.checkpoint import CheckpointError, load_pretrained
from mmtransmamba.utils import launch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a model')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--work-dir',
        help='folder for logs and metrics (default: work_dirs/NAME-OF-THE-CONFIG)',
    )
    parser.add_argument('--out', help='file for the results: .pkl, .json or .yml')
    parser.add_argument(
        '--out-item',
        choices=['pred', 'metrics'],
        default='pred',
        help='what goes into --out; predictions need .pkl (default: %(default)s)',
    )
    parser.add_argument(
        '--amp', action='store_true', help='evaluate with automatic mixed precision'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, for example '
        'test_dataloader.batch_size=32 or key="[a,b]"',
    )
    parser.add_argument(
        '--launcher',
        choices=launch.LAUNCHERS,
        default='none',
        help='who starts the processes of a distributed run',
    )
    # torch.distributed.launch, which mim calls, passes the rank as an argument.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def prepare_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the command line to it.

    Raises:
        FileNotFoundError: If the config or the checkpoint does not exist.
        ValueError: If an option does not fit the config or this machine.
    """
    cfg = launch.load_config(args.config, args.work_dir)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    cfg.load_from = launch.check_checkpoint_file(args.checkpoint)
    missing = [
        name
        for name in ('test_cfg', 'test_dataloader', 'test_evaluator')
        if cfg.get(name) is None
    ]
    if missing:
        raise ValueError(f'the config "{args.config}" has no {", ".join(missing)}')
    if args.out is not None:
        suffixes = ('.pkl',) if args.out_item == 'pred' else ('.pkl', '.json', '.yml')
        if not args.out.endswith(suffixes):
            raise ValueError(
                f'--out with --out-item {args.out_item} must end in '
                f'{" or ".join(suffixes)}, got "{args.out}"'
            )
    if args.amp:
        cfg.test_cfg.fp16 = True
    launch.accept_released_checkpoints(cfg)
    launch.set_dataloader_defaults(cfg)
    # The checkpoint of a distiller is its student's, which is tested without teacher,
    # unless the distiller is to compare the two.
    if cfg.model.get('student') is not None and not cfg.model.get('compare', False):
        # What answers for a vision-language student is the distiller's head.
        head = cfg.model.get('head')
        cfg.model = cfg.model.student
        if head is not None:
            cfg.model.head = head
    launch.init_processes(cfg, args.launcher)
    return cfg


def check_weights(runner: Runner, checkpoint: str) -> None:
    """Refuse a checkpoint that lacks weights of the model.

    mmengine loads what fits and goes on with random weights for the rest.

    Raises:
        CheckpointError: If the checkpoint does not fit the model.
    """
    if '://' in checkpoint:
        return
    model = unwrapped_model(runner)
    # Checkpoints have the names of a distiller's student, or of the transformers model.
    for part in ('student', 'lm'):
        model = getattr(model, part, model)
    load_pretrained(model, checkpoint)


def main() -> None:
    args = parse_args()
    try:
        cfg = prepare_config(args)
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        check_weights(runner, args.checkpoint)
    except (FileNotFoundError, CheckpointError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: error: {error}')
    if args.out is not None and args.out_item == 'pred':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if args.out is not None and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)
    launch.end_processes()


if __name__ == '__main__':
    main()
