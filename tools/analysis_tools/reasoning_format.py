"""Report how well responses follow the format of four reasoning sections.

Reads files of responses: JSON lines with the whole response in "text", such as those
that tools/eval_vlm.py writes to OUT/predictions/responses for a model that reasons.
"""

import argparse
from pathlib import Path

from _tool import EachOnce, Parser, tool


def read_responses(path: Path) -> list[dict]:
    """The responses in a file; for each question, the last one."""
    from mmtransmamba.evaluation.vlm.files import read_rows

    found = {}
    for number, row in enumerate(read_rows(path)):
        # Without an id, every row is a separate question.
        key = row.get('question_id', number), row.get('prompt')
        found[key] = dict(text=row['text'])
    return list(found.values())


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        'files', nargs='+', action=EachOnce, type=Path, help='files of responses'
    )
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from mmtransmamba.apis.lm_comparison import distinct_names
    from mmtransmamba.evaluation.reasoning import ReasoningFormat

    columns = {}
    names = distinct_names([str(path) for path in args.files])
    for path in args.files:
        metric = ReasoningFormat()
        responses = read_responses(path)
        if not responses:
            raise ValueError(f'{path} holds no responses.')
        metric.process(None, responses)
        columns[names[str(path)]] = dict(
            responses=len(responses), **metric.compute_metrics(metric.results)
        )
    table = Table('', *columns)
    for name in dict.fromkeys(key for figures in columns.values() for key in figures):
        cells = [figures.get(name) for figures in columns.values()]
        table.add_row(name, *('–' if c is None else f'{c:.6g}' for c in cells))
    Console().print(table)


if __name__ == '__main__':
    main()
