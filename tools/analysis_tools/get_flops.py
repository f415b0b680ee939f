"""Count parameters and FLOPs of a config's model, including scans.

For a distiller, the student is counted. A multiplication and its addition are one FLOP,
as papers on vision models report them. A scan takes 9 B K L D N, plus B K L D for the
skip, as the authors of Mamba and VMamba count. Norms, activations and sums are not
counted. Nothing is computed, so any size takes about a second.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from _tool import KeyValues, Parser, natural, positive, tool

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmtransmamba.utils.flops import Complexity


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=positive,
        nargs='+',
        metavar='SIZE',
        help='side of the images, height and width, or frames, height and width; by '
        "default the backbone's img_size, or 224",
    )
    parser.add_argument(
        '--depth',
        type=natural,
        default=0,
        help='table of the modules down to this depth',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=KeyValues, help='override the config'
    )
    return parser.parse_args()


def model_config(cfg: Config) -> dict:
    """The config of the model to count.

    Raises:
        ValueError: The config has no model.
    """
    from mmtransmamba.engine.student import student_config

    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename} has no model.')
    return student_config(cfg.model)


def print_modules(count: Complexity, depth: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table('module', 'parameters', 'FLOPs')
    for column in table.columns[1:]:
        column.justify = 'right'
    for name, (params, flops) in count.modules.items():
        level = name.count('.') + 1 if name else 0
        if level <= depth and (params or flops):
            label = '  ' * level + (name.rsplit('.', 1)[-1] or 'model')
            table.add_row(label, f'{params:,}', f'{flops:,}')
    Console().print(table)


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmtransmamba.registry import MODELS
    from mmtransmamba.utils.flops import count_complexity
    from mmtransmamba.utils.launch import read_config
    from mmtransmamba.utils.model_config import input_shape

    cfg = read_config(args.config, args.cfg_options)
    config = model_config(cfg)
    shape = (1, *input_shape(config, args.shape))
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    stage = {}
    if 'cls_head' in config:
        # A recogniser of mmaction2 expects several clips of a video, and stops before
        # its head unless configured otherwise.
        shape, stage = (1, *shape), dict(stage='head')
    count = count_complexity(MODELS.build(config), shape, **stage)
    if args.depth:
        print_modules(count, args.depth)
    print(f'input       {" x ".join(map(str, shape))}')
    print(f'parameters  {count.params:,} ({count.params / 1e6:.2f} M)')
    share = count.scan_flops / max(1, count.flops)
    print(
        f'FLOPs       {count.flops:,} ({count.flops / 1e9:.3f} G), '
        f'{share:.1%} of them in scans'
    )


if __name__ == '__main__':
    main()
