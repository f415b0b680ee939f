"""Text-video retrieval from a Transformer to a Mamba in minutes, on generated clips.

Trains a small CLIP4Clip on 4,096 clips of moving shapes, then the same VideoMamba twice
on 1,024 of them: from scratch, and with transfer from CLIP4Clip. Both students read
captions with CLIP4Clip's text encoder. Prints the retrieval table for clips of other
combinations and draws the results of some queries. Finished parts are not trained
again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from _tool import EachOnce, Parser, out_folder, seed_number, tool

if TYPE_CHECKING:
    from mmtransmamba.apis import ExperimentResult

CONFIGS = Path(__file__).resolve().parent.parent / 'configs' / 'quickstart'
RUNS = {'teacher': 'CLIP4Clip', 'scratch': 'from scratch', 'transfer': 'transfer'}
DIRECTIONS = {'t2v': 'text to video', 'v2t': 'video to text'}
METRICS = ('R@1', 'R@5', 'R@10', 'MdR', 'MeanR')
NUM_QUERIES, NUM_ANSWERS = 8, 5


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--work-dir',
        type=out_folder,
        default='work_dirs/quickstart_retrieval',
        help='results',
    )
    parser.add_argument(
        '--seeds',
        type=seed_number,
        nargs='+',
        action=EachOnce,
        default=[0],
        help="the students' seeds",
    )
    return parser.parse_args()


def last_checkpoint(result: ExperimentResult) -> str:
    from mmtransmamba.utils.checkpoint_files import find_resumable

    return find_resumable(result.work_dir)


def train(
    work_dir: Path, seeds: list[int]
) -> tuple[ExperimentResult, dict[str, list[ExperimentResult]]]:
    """Results of the teacher, and of the students of each seed by name."""
    from mmtransmamba.apis import run_experiment

    teacher = run_experiment(CONFIGS / 'retrieval_teacher.py', work_dir / 'teacher')
    checkpoint = last_checkpoint(teacher)
    students = {'scratch': [], 'transfer': []}
    for seed in seeds:
        for name, results in students.items():
            options = {'randomness.seed': seed}
            if name == 'scratch':
                options['model.text_checkpoint'] = checkpoint
            else:
                options['model.student.text_checkpoint'] = checkpoint
                options['model.teacher.checkpoint'] = checkpoint
            folder = work_dir / f'{name}_seed{seed}'
            config = CONFIGS / f'retrieval_{name}.py'
            results.append(run_experiment(config, folder, options))
    return teacher, students


def final(result: ExperimentResult, direction: str) -> dict[str, float]:
    """The last validation's metrics."""
    curves = result.scalars.retrieval
    return {name: curves[f'{direction}_{name}'][-1][1] for name in METRICS}


def report(rows: dict[str, list[ExperimentResult]]) -> list[dict]:
    """One record for each model, direction and seed."""
    return [
        dict(
            model=RUNS[name],
            run=result.work_dir.name,
            direction=direction,
            parameters=result.parameters,
            seconds=result.seconds and round(result.seconds),
            **final(result, direction),
        )
        for direction in DIRECTIONS
        for name, results in rows.items()
        for result in results
    ]


def print_tables(records: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    from mmtransmamba.utils.seed_statistics import mean_and_spread

    console = Console()
    for direction, title in DIRECTIONS.items():
        table = Table(title=title)
        table.add_column('model')
        for metric in METRICS:
            table.add_column(metric, justify='right')
        for name in RUNS.values():
            chosen = [
                r for r in records if (r['direction'], r['model']) == (direction, name)
            ]
            values = ([record[metric] for record in chosen] for metric in METRICS)
            table.add_row(name, *(mean_and_spread(each, 1) for each in values))
        console.print(table)
    for record in records:
        if record['direction'] == 't2v':
            seconds = record['seconds']
            time = f'{seconds} s' if seconds else 'interrupted'
            print(f'{record["run"]}: {record["parameters"]:,} parameters, {time}')


def draw_answers(config: Path, checkpoint: str, path: Path) -> None:
    """Draw the top clips for the first caption of some test clips."""
    import torch
    from mmengine.config import Config

    from mmtransmamba.apis import Retriever
    from mmtransmamba.registry import DATASETS
    from mmtransmamba.visualization import FoundClip, plot_contact_sheet

    retriever = Retriever(config, checkpoint)
    clips = DATASETS.build(Config.fromfile(config).test_dataloader.dataset)
    features = torch.cat(
        [
            retriever.embed_videos(torch.stack([clips.video(i) for i in part.tolist()]))
            for part in torch.arange(len(clips)).split(64)
        ]
    )
    answers = {}
    for number in torch.linspace(0, len(clips) - 1, NUM_QUERIES).long().tolist():
        query = clips.caption(number, 0)
        found = (features @ retriever.embed_texts([query])[0]).topk(NUM_ANSWERS)
        answers[query] = [
            FoundClip(
                clips.video(i).permute(1, 2, 3, 0).numpy(),
                f'{place}. cosine {cosine:.2f}',
                right=i == number,
            )
            for place, (cosine, i) in enumerate(
                zip(found.values.tolist(), found.indices.tolist(), strict=True), 1
            )
        ]
    plot_contact_sheet(answers, path)


@tool(parse_args, 'interrupted; the same command goes on from the last checkpoint')
def main(args: argparse.Namespace) -> None:
    print(f'Trains {", ".join(RUNS.values())} in {args.work_dir}', flush=True)
    teacher, students = train(args.work_dir, args.seeds)
    records = report({'teacher': [teacher], **students})
    print_tables(records)
    table = args.work_dir / 'results.json'
    table.write_text(json.dumps(records, indent=2))
    sheet = args.work_dir / 'top5.png'
    transferred = students['transfer'][0]
    draw_answers(CONFIGS / 'retrieval_transfer.py', last_checkpoint(transferred), sheet)
    print(f'Top {NUM_ANSWERS} clips of the transferred student: {sheet}')
    print(f'Table: {table}')


if __name__ == '__main__':
    main()
