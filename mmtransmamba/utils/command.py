"""Shared parts of the command lines: the parser, and one-line errors.

This module imports only the standard library, so that ``--help`` and wrong arguments
respond at once. A tool imports its dependencies after its arguments are parsed.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from .choices import LAUNCHERS
from .error_lines import describe, log_traceback
from .key_values import parse_value


class Parser(argparse.ArgumentParser):
    """A parser with a hand-formatted description and the option ``--debug``."""

    def __init__(self, description: str | None = None, **options: Any) -> None:
        options.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, **options)
        self.add_argument(
            '--debug',
            action='store_true',
            # A default would undo the option if it is given before a subcommand.
            default=argparse.SUPPRESS,
            help='show the traceback of an error',
        )

    def error(self, message: str) -> NoReturn:
        """End with one line; ``--help`` shows the usage."""
        self.exit(2, f'{self.prog}: error: {message} (see --help)\n')


class KeyValues(argparse.Action):
    """Reads ``KEY=VALUE …`` into a dictionary, by :func:`parse_value`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for pair in values:
            key, equals, text = pair.partition('=')
            if not key or not equals:
                raise argparse.ArgumentError(
                    self, f'"{pair}" must have the form KEY=VALUE'
                )
            try:
                options[key] = parse_value(text)
            except ValueError as error:
                raise argparse.ArgumentError(self, f'{key}: {error}') from error
        setattr(namespace, self.dest, options)


class EachOnce(argparse.Action):
    """Stores the values of a list, each one once, in their order."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, list(dict.fromkeys(values)))


def parse_run(parser: Parser, dataloader: str) -> argparse.Namespace:
    """Parse the command line of a tool that runs a config in one or more processes.

    Args:
        parser: Has the tool's own options.
        dataloader: Name of the dataloader in the example of ``--cfg-options``.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='override settings of the config, for example '
        f'{dataloader}.batch_size=32 or key="[a,b]"',
    )
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='none',
        help='who starts the processes of a distributed run',
    )
    # torch.distributed.launch, which mim calls, passes the rank as an argument.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def tool(
    parse_args: Callable[[], argparse.Namespace], interrupted: str = 'interrupted'
) -> Callable[[Callable[[argparse.Namespace], Any]], Callable[[], Any]]:
    """Decorator that turns a function of parsed arguments into a command.

    An error ends the process with status 1 and one line, ``NAME.py: error: …``; with
    ``--debug`` it is raised. If a run has started a log, the log gets the traceback in
    any case.

    Args:
        parse_args: Reads the command line, with a :class:`Parser`.
        interrupted: The last line after Ctrl-C.
    """

    def decorate(work: Callable[[argparse.Namespace], Any]) -> Callable[[], Any]:
        @functools.wraps(work)
        def main() -> Any:
            args = parse_args()
            if getattr(args, 'debug', False):
                return work(args)
            name = os.path.basename(sys.argv[0])
            try:
                return work(args)
            except KeyboardInterrupt:
                print(f'\n{name}: {interrupted}', file=sys.stderr)
                sys.exit(130)
            except BrokenPipeError:
                # The reader of the output has closed it, as ``head`` does. Without
                # another target, Python would fail again at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            except Exception as error:
                line, clear = describe(error)
                log = log_traceback(error)
                if not clear:
                    where = f'in {log}, or with --debug' if log else 'with --debug'
                    line += f' (the traceback: {where})'
                sys.exit(f'{name}: error: {line}')

        return main

    return decorate
