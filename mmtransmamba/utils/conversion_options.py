"""Options of the command lines that convert a language model. No heavy imports."""

from __future__ import annotations

import argparse
import re
from typing import Any

from .choices import POSITIONS
from .command import KeyValues, Parser
from .numbers import real

_INDICES = r'-?\d+(,-?\d+)*'


class MixerFields(KeyValues):
    """Reads ``TYPE KEY=VALUE …``, the type being optional."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        first, *rest = values
        first = first if '=' in first else f'type={first}'
        super().__call__(parser, namespace, [first, *rest], option_string)


def add_layer_options(parser: Parser, layers: str | None, ratio: str) -> None:
    """Add ``--layers`` and ``--ratio``.

    Args:
        parser: The parser.
        layers: Default of ``--layers``; None for that of a recipe.
        ratio: Default of ``--ratio``, for its help.
    """
    parser.add_argument(
        '--layers',
        default=layers,
        metavar='WHERE',
        help=f'{", ".join(POSITIONS)}, auto, indices such as 0,2,3 (from the end: '
        '--layers=-2,-1), or the file of a ranking; default: '
        f'{layers or "that of the recipe"}',
    )
    parser.add_argument(
        '--ratio',
        type=real(above=0, most=1),
        help=f'share of Mamba layers, where --layers names none (default: {ratio})',
    )


def read_layer_options(parser: Parser, args: argparse.Namespace) -> None:
    """Turn indices in ``args.layers`` into a list."""
    if args.layers is not None and re.fullmatch(_INDICES, args.layers):
        if args.ratio is not None:
            parser.error(f'--layers {args.layers} names the layers; leave out --ratio')
        args.layers = [int(i) for i in args.layers.split(',')]


def read_conversion_options(parser: Parser, args: argparse.Namespace) -> None:
    """Check and complete what the tools that convert have in common."""
    if args.init != 'calibrate' and args.calibration_steps is not None:
        parser.error(f'--calibration-steps goes with --init calibrate, not {args.init}')
    if getattr(args, 'calibration_tokens', None) is not None and not args.calibration:
        parser.error('--calibration-tokens goes with --calibration FILE')
    if getattr(args, 'ranking', None) is not None and args.layers != 'auto':
        parser.error(f'--ranking goes with --layers auto, not {args.layers}')
    read_layer_options(parser, args)
    if args.ratio is None:
        args.ratio = 1.0


def add_mixer_options(parser: Parser, default: str) -> None:
    """Add ``--mixer`` and ``--imports``."""
    parser.add_argument(
        '--mixer',
        nargs='+',
        action=MixerFields,
        metavar=('TYPE', 'KEY=VALUE'),
        help='registered mixer and its fields, such as Mamba2 d_conv=2; default: '
        f'{default}',
    )
    parser.add_argument(
        '--imports',
        nargs='+',
        default=[],
        metavar='MODULE',
        help='Python modules that register mixers of your own',
    )
