"""Score the answers of a vision-language model on its benchmarks.

Answers come from files of predictions: JSON lines with question_id (or id, index), text
(or prediction) and, if there, the prompt. --predictions takes the file of the one
benchmark, NAME=FILE for each, or a folder with NAME.jsonl for each. The questions are
read from DATA_ROOT/FOLDER, in the files they are published in (docs/evaluation.md).
"""

import argparse
import json
import sys
from pathlib import Path

# A clean checkout needs no installation of the package itself.
_ROOT = Path(__file__).absolute().parent.parent
if (_ROOT / 'mmtransmamba' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

import mmtransmamba  # noqa: F401, I001  (first: it bridges the imports that follow)
from rich.console import Console
from rich.table import Table

from mmtransmamba.evaluation.vlm import BENCHMARKS, Result, from_files, run_benchmark


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--benchmarks',
        nargs='+',
        required=True,
        choices=list(BENCHMARKS),
        metavar='NAME',
        help=f'one or more of {", ".join(BENCHMARKS)}',
    )
    parser.add_argument(
        '--predictions',
        nargs='+',
        required=True,
        metavar='PATH',
        help='FILE, NAME=FILE …, or FOLDER',
    )
    parser.add_argument(
        '--data-root',
        type=Path,
        default=Path('data/vlm_eval'),
        help='folder of the benchmarks (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/eval_vlm'),
        help='folder for scores.json and files to submit (default: %(default)s)',
    )
    parser.add_argument(
        '--limit',
        type=int,
        help='use only the first questions of each benchmark; mme needs them all',
    )
    parser.add_argument(
        '--grades', type=Path, help="for mm_vet: the grader's file on these answers"
    )
    return parser.parse_args()


def prediction_files(paths: list[str], names: list[str]) -> dict[str, Path]:
    """The file of each benchmark.

    Raises:
        ValueError: A benchmark has none.
    """
    pairs = dict(path.split('=', 1) for path in paths if '=' in path)
    files = {name: Path(path) for name, path in pairs.items()}
    for path in (Path(path) for path in paths if '=' not in path):
        if path.is_dir():
            found = {name: path / f'{name}.jsonl' for name in names}
            files = {n: f for n, f in found.items() if f.is_file()} | files
        elif len(names) == 1:
            files[names[0]] = path
        else:
            raise ValueError(
                f'{path} is no folder, and there are {len(names)} benchmarks: give '
                f'NAME=FILE for each'
            )
    missing = [name for name in names if name not in files]
    if missing:
        raise ValueError(f'--predictions has no file for {", ".join(missing)}')
    unknown = [name for name in files if name not in names]
    if unknown:
        raise ValueError(
            f'--predictions has files for {", ".join(unknown)}, but --benchmarks does '
            'not name them'
        )
    return files


def metric_args(name: str, args: argparse.Namespace) -> dict:
    if not BENCHMARKS[name].takes_submission:
        return {}
    options = dict(submission=args.out / f'{name}_submission.json')
    if name == 'mm_vet':
        options['grades'] = args.grades
    return options


def print_table(results: list[Result]) -> None:
    table = Table(title='Percent; MME in points')
    for column in ('benchmark', 'questions', 'figure', 'value'):
        right = column in ('questions', 'value')
        table.add_column(column, justify='right' if right else 'left')
    for result in results:
        for figure, value in result.headline.items():
            table.add_row(
                result.benchmark.title,
                str(result.count),
                figure,
                str(value) if isinstance(value, int) else f'{value:.4f}',
            )
    Console().print(table)


def save(results: list[Result], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = {
        result.benchmark.name: dict(questions=result.count, **result.figures)
        for result in results
    }
    path.write_text(json.dumps(scores, indent=2, ensure_ascii=False))


def main() -> None:
    args = parse_args()
    results = []
    try:
        answers = from_files(prediction_files(args.predictions, args.benchmarks))
        for name in args.benchmarks:
            options = metric_args(name, args)
            result = run_benchmark(
                BENCHMARKS[name], args.data_root, answers, args.limit, **options
            )
            results.append(result)
            if result.note:
                print(f'{name}: {result.note}')
            # After each one, so that a later failure loses nothing.
            save(results, args.out / 'scores.json')
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: error: {error}')
    print_table(results)
    print(f'All figures: {args.out / "scores.json"}')


if __name__ == '__main__':
    main()
