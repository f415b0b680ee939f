"""Questions about pictures, from a LLaVA to a pure Mamba in minutes.

Trains a vision tower on generated pictures of coloured shapes, and around it a small
LLaVA, the teacher. Its language model then becomes a hybrid (the first of every four
layers keeps attention) and a pure Mamba, each with mmMamba's three stages. The control
is the same pure Mamba trained from the labels alone. Prints accuracy by category,
agreement with the teacher, speed and the size of the state, and draws pictures with the
answers. Finished parts are not trained again. A third student, pure_gdn, has Gated
DeltaNet in place of all attention.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _tool import EachOnce, Parser, out_folder, seed_number, tool

if TYPE_CHECKING:
    from torch import nn

    from mmtransmamba.apis.vqa_answers import Evaluated

_ROOT = Path(__file__).absolute().parents[1]
CONFIGS = _ROOT / 'configs' / 'quickstart'
STUDENTS = {'hybrid': 'hybrid', 'pure': 'pure Mamba', 'pure_gdn': 'pure Gated DeltaNet'}


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--work-dir',
        type=out_folder,
        default='work_dirs/quickstart_vqa',
        help='results',
    )
    parser.add_argument('--seed', type=seed_number, default=0, help='of all trainings')
    parser.add_argument(
        '--students',
        nargs='+',
        action=EachOnce,
        choices=list(STUDENTS),
        default=['hybrid', 'pure'],
        help='which are made of the teacher; default: hybrid pure',
    )
    parser.add_argument(
        '--no-scratch', action='store_true', help='leave out the control from scratch'
    )
    return parser.parse_args()


def train(
    work_dir: Path, seed: int, students: list[str], scratch: bool
) -> dict[str, Path]:
    """Folders of the trained models by name."""
    from mmtransmamba.apis.vqa_runs import QuestionSet, train_students
    from mmtransmamba.datasets.shapes_vqa import words

    shapes = QuestionSet(
        str(CONFIGS / 'vqa_{}.py'), words(), image_size=36, patch_size=12
    )
    return train_students(shapes, work_dir, seed, students, scratch)


def converted(teacher: Path, name: str) -> nn.Module:
    """A student directly after conversion."""
    from mmengine.config import Config

    from mmtransmamba.transfer.convert import convert

    cfg = Config.fromfile(CONFIGS / f'vqa_{name}_stage1.py')
    return convert(teacher, **cfg.model.student.convert)[0]


def report(
    results: dict[str, Evaluated], baseline: dict[str, float], categories: list[str]
) -> list[dict]:
    """One record for each model; the first is the most frequent answer."""
    from rich.console import Console
    from rich.table import Table

    from mmtransmamba.apis.vqa_answers import CONTEXT, agreement

    records = [dict(model='most frequent answer', **baseline)]
    for name, result in results.items():
        records.append(
            dict(
                model=name,
                agreement=agreement(result.answers, results['teacher'].answers),
                **result.record,
            )
        )
    console = Console(width=150)
    table = Table(title='Test questions answered right, in percent')
    table.add_column('model')
    for name in ('all', *categories, 'malformed', 'as teacher'):
        table.add_column(name, justify='right')
    for record in records:
        keys = ['accuracy', *categories, 'malformed', 'agreement']
        table.add_row(record['model'], *(_shown(record.get(key)) for key in keys))
    console.print(table)
    table = Table(title='Speed and size')
    table.add_column('model')
    titles = {
        'parameters': 'parameters',
        'answers_per_second': 'answers/s',
        'ms_per_token': f'ms/token after {CONTEXT}',
        'state_kib_question': 'KiB of state after a question',
        'state_kib_long': f'after {CONTEXT} tokens',
    }
    for title in titles.values():
        table.add_column(title, justify='right')
    for record in records[1:]:
        table.add_row(record['model'], *(_shown(record[key]) for key in titles))
    console.print(table)
    return records


def _shown(value: float | None) -> str:
    if value is None:
        return '–'
    return f'{value:,}' if isinstance(value, int) else f'{value:.1f}'


def draw(
    results: dict[str, Evaluated], students: list[str], dataset: Any, path: Path
) -> None:
    """Two questions of each category: the first, and the first that a student
    misses."""
    import numpy as np

    from mmtransmamba.visualization import AnsweredQuestion, plot_answers

    shown = {
        name: result.answers
        for name, result in results.items()
        if name in ('teacher', *students)
    }
    chosen = []
    for category in sorted({q.category for q in dataset.questions}):
        numbers = [i for i, q in enumerate(dataset.questions) if q.category == category]
        wrong = [
            i
            for i in numbers[1:]
            if any(not _right(shown[n][i], dataset, i) for n in students)
        ]
        chosen += [numbers[0], *(wrong or numbers[1:])[:1]]
    page = []
    for i in chosen:
        asked = dataset.questions[i]
        answers = {
            name: (said[i], _right(said[i], dataset, i)) for name, said in shown.items()
        }
        picture = np.asarray(dataset.picture(asked.picture))
        page.append(AnsweredQuestion(picture, asked.question, asked.answer, answers))
    plot_answers(page, path)


def _right(said: str, dataset: Any, number: int) -> bool:
    from mmtransmamba.evaluation.answer_accuracy import normalise

    return normalise(said) == normalise(dataset.questions[number].answer)


@tool(parse_args, 'interrupted; the same command goes on from the last checkpoint')
def main(args: argparse.Namespace) -> None:
    print(f'Trains a LLaVA and its students in {args.work_dir}', flush=True)
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    from mmtransmamba.apis.vqa_answers import evaluate, majority
    from mmtransmamba.models.folders import load_vlm
    from mmtransmamba.registry import DATASETS, MODELS

    begin = time.perf_counter()
    students = {name: STUDENTS[name] for name in args.students}
    folders = train(args.work_dir, args.seed, args.students, not args.no_scratch)
    minutes = (time.perf_counter() - begin) / 60
    cfg = Config.fromfile(CONFIGS / 'vqa_teacher.py')
    start = str(args.work_dir / f'start_seed{args.seed}')
    with DefaultScope.overwrite_default_scope('mmengine'):
        test, train_set = (
            DATASETS.build(cfg[part].dataset | dict(processor=start))
            for part in ('test_dataloader', 'train_dataloader')
        )
        head = MODELS.build(cfg.model.head)
    results = {'teacher': evaluate(load_vlm(folders['teacher']), test, head)}
    for name, title in students.items():
        untrained = converted(folders['teacher'], name)
        results[f'{title}, only converted'] = evaluate(untrained, test, head)
    for name, title in students.items():
        results[title] = evaluate(load_vlm(folders[name]), test, head)
    if 'scratch' in folders:
        scratch = evaluate(load_vlm(folders['scratch']), test, head)
        results['pure Mamba, from scratch'] = scratch
    categories = sorted({q.category for q in test.questions})
    records = report(results, majority(train_set, test), categories)
    path = args.work_dir / f'results_seed{args.seed}.json'
    path.write_text(json.dumps(records, indent=2))
    page = args.work_dir / f'answers_seed{args.seed}.png'
    draw(results, list(students.values()), test, page)
    print(
        f'{len(test)} questions about {len(test.scenes)} scenes that no training has.'
    )
    print(f'Trained in {minutes:.1f} minutes.' if minutes > 0.5 else 'Trained before.')
    print(f'Pictures, questions and answers: {page}\nTable: {path}')


if __name__ == '__main__':
    main()
