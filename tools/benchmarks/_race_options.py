"""Command line of the benchmarks in which implementations race in turns."""

from collections.abc import Sequence

from _tool import Parser, positive


def race_parser(doc: str, cases: Sequence[str], repeat: int, slow: str) -> Parser:
    """The parser of such a benchmark.

    Args:
        doc: Its description.
        cases: The cases it has.
        repeat: Default number of runs.
        slow: Who runs fewer times.
    """
    parser = Parser(doc)
    parser.add_argument(
        '--cases', nargs='+', choices=cases, default=cases, help='default: all'
    )
    parser.add_argument(
        '--repeat', type=positive, default=repeat, help=f'runs, default {repeat}'
    )
    parser.add_argument(
        '--slow-repeat', type=positive, default=3, help=f'runs of {slow}, default 3'
    )
    parser.add_argument('--threads', type=positive, help='default: as torch decides')
    return parser
