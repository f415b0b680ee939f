"""Score a vision-language model, or files of its answers, on its benchmarks.

    eval_vlm.py MODEL --benchmarks pope mme          # a folder, or a name on the hub
    eval_vlm.py CONFIG CHECKPOINT --benchmarks pope  # of a training run
    eval_vlm.py --predictions FOLDER --benchmarks pope

A model's answers are written to OUT/predictions/NAME.jsonl as they arrive. After an
interruption, the same command continues where it stopped. Files of predictions are JSON
lines with question_id (or id, index), text (or prediction) and, optionally, the prompt.
--predictions takes the file of a single benchmark, NAME=FILE for each, or a folder with
NAME.jsonl for each. Questions and images are read from DATA_ROOT/FOLDER, in their
published layout (docs/evaluation.md).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _tool import EachOnce, Parser, out_folder, positive, tool

from mmtransmamba.utils.choices import VLM_BENCHMARKS
from mmtransmamba.utils.text_files import read_json

if TYPE_CHECKING:
    from mmtransmamba.evaluation.vlm import Benchmark, Result

HEADS = {'answer': 'AnswerHead', 'reasoning': 'ReasoningHead'}


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        'model', nargs='*', metavar='MODEL | CONFIG CHECKPOINT', help='the model'
    )
    parser.add_argument(
        '--benchmarks',
        nargs='+',
        required=True,
        action=EachOnce,
        choices=VLM_BENCHMARKS,
        metavar='NAME',
        help=f'one or more of {", ".join(VLM_BENCHMARKS)}',
    )
    parser.add_argument(
        '--predictions',
        nargs='+',
        metavar='PATH',
        help='instead of a model its answers: FILE, NAME=FILE …, or FOLDER',
    )
    parser.add_argument(
        '--data-root',
        type=Path,
        default=Path('data/vlm_eval'),
        help='folder of the benchmarks (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        type=out_folder,
        default='work_dirs/eval_vlm',
        help="folder for scores.json, a model's answers and files to submit "
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--limit',
        type=positive,
        help='use only the first questions of each benchmark; mme needs them all',
    )
    parser.add_argument(
        '--grades', type=Path, help="for mm_vet: the grader's file on these answers"
    )
    group = parser.add_argument_group('a model')
    group.add_argument(
        '--image-root',
        nargs='+',
        default=[],
        metavar='PATH',
        help='where the images are, if not in DATA_ROOT: a folder of the same layout, '
        'or NAME=FOLDER for the images of a benchmark',
    )
    group.add_argument(
        '--batch-size', type=positive, default=1, help='questions answered at once'
    )
    group.add_argument(
        '--device', default='auto', help='default: the GPU if there is one'
    )
    group.add_argument('--dtype', help="such as bfloat16; default: the folder's own")
    group.add_argument(
        '--max-new-tokens',
        type=positive,
        help="default: that of each benchmark's protocol",
    )
    group.add_argument(
        '--head',
        choices=list(HEADS),
        help='what of the text is the answer: all, or the conclusion of reasoning '
        "(default: the config's, else all)",
    )
    group.add_argument(
        '--template', help='chat template by name, for a model without its own'
    )
    group.add_argument(
        '--processor', help="folder of the processor, if not the model's"
    )
    args = parser.parse_args()
    if len(args.model) > 2 or bool(args.model) == bool(args.predictions):
        parser.error('give MODEL, or CONFIG CHECKPOINT, or --predictions')
    if args.grades is not None and 'mm_vet' not in args.benchmarks:
        parser.error('--grades is for mm_vet, which --benchmarks does not name')
    if args.grades is not None and not args.grades.is_file():
        parser.error(f'--grades: there is no file {args.grades}')
    given = [action for action in group._group_actions if _is_given(args, action)]
    if args.predictions and given:
        parser.error(
            f'{given[0].option_strings[0]} is for a model, but --predictions has its '
            'answers'
        )
    return args


def _is_given(args: argparse.Namespace, action: argparse.Action) -> bool:
    return getattr(args, action.dest) != action.default


def image_folders(args: argparse.Namespace) -> Callable[[Benchmark], list[Path]]:
    """A function that returns the folders of a benchmark's images.

    Raises:
        ValueError: A folder is for a benchmark that is not run, or there are two.
    """
    pairs = dict(path.split('=', 1) for path in args.image_root if '=' in path)
    roots = [path for path in args.image_root if '=' not in path] or [args.data_root]
    unknown = [name for name in pairs if name not in args.benchmarks]
    if unknown or len(roots) > 1:
        raise ValueError(
            '--image-root takes one folder and NAME=FOLDER for benchmarks among '
            f'{", ".join(args.benchmarks)}, got {" ".join(args.image_root)}'
        )

    def folders(benchmark: Benchmark) -> list[Path]:
        if benchmark.name in pairs:
            return [Path(pairs[benchmark.name])]
        return benchmark.image_folders(roots[0])

    return folders


def answers_of_model(args: argparse.Namespace) -> Callable:
    """Answers of the model, after a check that all images exist."""
    from mmtransmamba.evaluation.vlm import BENCHMARKS, find_images

    folders = image_folders(args)
    for name in args.benchmarks:
        benchmark = BENCHMARKS[name]
        samples = benchmark.load(args.data_root / benchmark.folder)[: args.limit]
        try:
            find_images(samples, folders(benchmark))
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f'{name}: {error}') from error
    from mmtransmamba.apis.vlm import VisionLanguageChat
    from mmtransmamba.apis.vlm_benchmarks import from_chat
    from mmtransmamba.models.folders.identity import describe_files
    from mmtransmamba.utils.claims import claim

    generation = {}
    if args.max_new_tokens is not None:
        generation['max_new_tokens'] = args.max_new_tokens
    make = VisionLanguageChat
    if len(args.model) == 2:
        make = VisionLanguageChat.from_config
    chat = make(
        *args.model,
        processor=args.processor,
        device=args.device,
        dtype=args.dtype,
        head=dict(type=HEADS[args.head]) if args.head else None,
        template=args.template,
    )
    claim(
        args.out / 'predictions' / 'model.json',
        dict(
            model=[
                str(Path(p).resolve()) if Path(p).exists() else p for p in args.model
            ],
            processor=args.processor and str(Path(args.processor).resolve()),
            files=[
                describe_files(p)
                for p in (*args.model, args.processor)
                if p is not None and Path(p).exists()
            ],
            dtype=args.dtype,
            head=args.head,
            template=args.template,
            max_new_tokens=args.max_new_tokens,
        ),
        results='*.jsonl',
        what='answers',
    )
    return from_chat(
        chat, args.out / 'predictions', folders, args.batch_size, **generation
    )


def prediction_files(paths: list[str], names: list[str]) -> dict[str, Path]:
    """The file of each benchmark.

    Raises:
        ValueError: A benchmark has no file.
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
                f'{path} is not a folder, and there are {len(names)} benchmarks: give '
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
    from mmtransmamba.evaluation.vlm import BENCHMARKS

    if not BENCHMARKS[name].takes_submission:
        return {}
    options = dict(submission=args.out / BENCHMARKS[name].submission_name)
    if name == 'mm_vet':
        options['grades'] = args.grades
    return options


def print_table(results: list[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title='Percent; MME in points')
    for column in ('benchmark', 'questions', 'figure', 'value'):
        right = column in ('questions', 'value')
        table.add_column(column, justify='right' if right else 'left')
    for result in results:
        figures = dict(result.headline)
        if result.unread is not None:
            figures['unread, %'] = result.unread
        for figure, value in figures.items():
            table.add_row(
                result.benchmark.title,
                str(result.count),
                figure,
                str(value) if isinstance(value, int) else f'{value:.4f}',
            )
    Console().print(table)


def earlier_scores(folder: Path) -> dict[str, Any]:
    """Figures of the benchmarks that the folder has answers of the model to."""
    path = folder / 'scores.json'
    found = read_json(path) if path.is_file() else {}
    answers = folder / 'predictions'
    return {n: v for n, v in found.items() if (answers / f'{n}.jsonl').is_file()}


def save(results: list[Result], path: Path, earlier: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = earlier | {
        result.benchmark.name: dict(questions=result.count, **result.figures)
        for result in results
    }
    path.write_text(json.dumps(scores, indent=2, ensure_ascii=False))


@tool(parse_args, 'interrupted; the same command goes on from here')
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.evaluation.vlm import BENCHMARKS, from_files, run_benchmark
    from mmtransmamba.utils.claims import claim

    results = []
    record = args.out / 'predictions.json'
    if args.model:
        if record.is_file():
            raise ValueError(
                f'{args.out} has scores of --predictions; choose another --out'
            )
        answers = answers_of_model(args)
        earlier = earlier_scores(args.out)
    else:
        files = prediction_files(args.predictions, args.benchmarks)
        answers = from_files(files)
        folders = sorted({str(path.resolve().parent) for path in files.values()})
        claim(record, dict(predictions=folders), 'scores.json', 'scores')
        path = args.out / 'scores.json'
        earlier = read_json(path) if path.is_file() else {}
    for name in args.benchmarks:
        options = metric_args(name, args)
        result = run_benchmark(
            BENCHMARKS[name], args.data_root, answers, args.limit, **options
        )
        results.append(result)
        if result.note:
            print(f'{name}: {result.note}')
        if 'answers to submit' in result.headline:
            print(f'{name}: {result.count} answers in {options["submission"]}')
        # After each benchmark, so that a later failure loses nothing.
        save(results, args.out / 'scores.json', earlier)
    print_table(results)
    print(f'All figures: {args.out / "scores.json"}')


if __name__ == '__main__':
    main()
