"""What ``vqa.py`` does: train and ask what is missing, report."""

from __future__ import annotations

import argparse
from pathlib import Path

import _tables
import torch
from _process import call_logged
from _tables import read_table
from mmengine.registry import DefaultScope

from mmtransmamba.apis.configs import read_config
from mmtransmamba.apis.vqa_answers import agreement, evaluate
from mmtransmamba.apis.vqa_runs import QuestionSet, train_students
from mmtransmamba.datasets.easy_vqa import words_of
from mmtransmamba.datasets.shapes_vqa import words
from mmtransmamba.models.folders import load_vlm
from mmtransmamba.registry import DATASETS, MODELS
from mmtransmamba.utils.seed_statistics import mean_and_spread, paired

CONFIGS = Path(__file__).absolute().parents[2] / 'configs'
COLUMNS = ('set', 'seed', 'model', 'accuracy', 'agreement', 'questions')
TITLES = {
    'teacher': 'teacher',
    'hybrid': 'hybrid, one of four layers attention',
    'pure': 'pure Mamba-2',
    'pure_gdn': 'pure Gated DeltaNet',
    'scratch': 'pure Mamba-2 from the labels alone',
}
HEADINGS = {'shapes': 'Shapes', 'easy_vqa': 'easy-VQA'}
HEAD = """# Questions about pictures, with seeds

Correct answers to all test questions in percent, mean ± standard deviation over the
seeds; each seed draws other weights for tower, teacher, students and control, and the
questions stay the same. Settings, and what they were chosen by, are on the pages of the
[shapes](shapes_vqa.md) and of [easy-VQA](easy_vqa.md). Differences are paired by seed,
with the half width of their 95 % t-interval; **bold** ones exclude zero. A seed of the
shapes is what `tools/quickstart_vqa.py --seed` trains.

```bash
MMTRANSMAMBA_DATA=data python tools/studies/vqa.py
```
"""


def questions(name: str, data: Path) -> QuestionSet:
    """The set of a name."""
    if name == 'shapes':
        configs = str(CONFIGS / 'quickstart' / 'vqa_{}.py')
        return QuestionSet(configs, words(), image_size=36, patch_size=12)
    root = data / 'easy_vqa'
    return QuestionSet(
        str(CONFIGS / 'multimodal' / 'easy_vqa' / 'easy_vqa_{}.py'),
        words_of(root),
        image_size=64,
        patch_size=16,
        dataset=dict(data_root=str(root)),
    )


def table_of(args: argparse.Namespace) -> Path:
    """File of the table."""
    return args.out / 'vqa' / 'runs.csv'


def rows_of(args: argparse.Namespace) -> list[dict[str, str]]:
    """The rows of the table, none without the file."""
    return read_table(table_of(args))


def measured(name: str, seed: int, args: argparse.Namespace) -> set[str]:
    """The models of one seed of a set that have rows."""
    run = (name, str(seed))
    return {r['model'] for r in rows_of(args) if (r['set'], r['seed']) == run}


def add_rows(args: argparse.Namespace, rows: list[dict]) -> None:
    """Add rows to the table, in place of earlier ones of the same models."""
    _tables.add_rows(table_of(args), COLUMNS, *rows, keys=('set', 'seed', 'model'))


def train_and_ask(name: str, seed: int, args: argparse.Namespace) -> None:
    """One seed of one set.

    Students that have rows are asked again, as a teacher trained anew is another one.
    """
    torch.set_num_threads(args.threads)
    asked = questions(name, args.data)
    work_dir = args.work_dir / name
    chosen = (measured(name, seed, args) | {*args.students}) - {'teacher', 'scratch'}
    students = [model for model in TITLES if model in chosen]
    folders = train_students(asked, work_dir, seed, students)
    cfg = read_config(asked.config('teacher'))
    start = dict(processor=str(work_dir / f'start_seed{seed}'))
    with DefaultScope.overwrite_default_scope('mmengine'):
        test = DATASETS.build(cfg.test_dataloader.dataset | start | asked.dataset)
        head = MODELS.build(cfg.model.head)
    results = {
        model: evaluate(load_vlm(folder), test, head)
        for model, folder in folders.items()
    }
    add_rows(
        args,
        [
            {
                'set': name,
                'seed': seed,
                'model': model,
                'accuracy': f'{result.record["accuracy"]:.2f}',
                'agreement': '{:.2f}'.format(
                    agreement(result.answers, results['teacher'].answers)
                ),
                'questions': len(test),
            }
            for model, result in results.items()
        ],
    )


def run(args: argparse.Namespace) -> None:
    """The whole study, or one of its runs."""
    if args.one is not None:
        name, _, seed = args.one.rpartition('_seed')
        train_and_ask(name, int(seed), args)
        return
    wanted = {*args.students, 'teacher', 'scratch'}
    missing = []
    for name in args.sets:
        for seed in args.seeds:
            if wanted - measured(name, seed, args):
                missing.append(f'{name}_seed{seed}')
    page(args)
    for number, key in enumerate(missing[: args.max_runs], 1):
        in_process(key, args)
        page(args)
        print(f'{key}: done, {number} of {len(missing)}', flush=True)


def in_process(key: str, args: argparse.Namespace) -> None:
    """Do a run in a process of its own, whose output goes to a log file.

    Raises:
        SystemExit: It failed.
    """
    arguments = ['--one', key, '--students', *args.students]
    for name in ('data', 'work_dir', 'out', 'threads'):
        arguments += [f'--{name.replace("_", "-")}', str(getattr(args, name))]
    args.work_dir.mkdir(parents=True, exist_ok=True)
    call_logged('vqa.py', arguments, key, args)


def page(args: argparse.Namespace) -> None:
    """Write the page from the rows that there are."""
    rows = rows_of(args)
    text = HEAD
    for name, heading in HEADINGS.items():
        text += section(heading, [row for row in rows if row['set'] == name])
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'vqa_seeds.md').write_text(text)


def section(heading: str, rows: list[dict[str, str]]) -> str:
    """The table of one set, empty without rows."""
    if not rows:
        return ''
    seeds = sorted({int(row['seed']) for row in rows})
    found = {(r['model'], int(r['seed'])): float(r['accuracy']) for r in rows}
    heads = ' | '.join(f'seed {seed}' for seed in seeds)
    text = (
        f'\n## {heading}\n\n{int(rows[0]["questions"]):,} questions.\n\n'
        f'| model | {heads} | mean | minus control |\n'
        + '|---' * (3 + len(seeds))
        + '|\n'
    )
    for model, title in TITLES.items():
        values = [found[model, s] for s in seeds if (model, s) in found]
        if not values:
            continue
        cells = [
            f'{found[model, s]:.1f}' if (model, s) in found else '–' for s in seeds
        ]
        gains = [
            found[model, s] - found['scratch', s]
            for s in seeds
            if (model, s) in found and ('scratch', s) in found
        ]
        gain = '–' if model == 'scratch' else paired(gains, digits=1)
        score = mean_and_spread(values, digits=1)
        text += f'| {title} | {" | ".join(cells)} | {score} | {gain} |\n'
    return text
