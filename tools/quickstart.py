"""From a Transformer to a Mamba in minutes, on digits that ship with scikit-learn.

Trains a small DeiT teacher on all 1,200 training digits, then the same PlainMamba
student twice on 30 of them: from scratch, and with transfer from the teacher. Prints a
table and draws the curves. Finished parts are not trained again.
"""

import argparse
import json
from pathlib import Path

from _tool import Parser, out_folder, seed_number, tool

CONFIGS = Path(__file__).resolve().parent.parent / 'configs' / 'quickstart'
RUNS = {'teacher': 'DeiT teacher', 'scratch': 'from scratch', 'transfer': 'transfer'}

TEACHER_EPOCHS = 75


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        '--work-dir',
        type=out_folder,
        default='work_dirs/quickstart',
        help='results',
    )
    parser.add_argument(
        '--seed', type=seed_number, default=0, help="the students' seed"
    )
    return parser.parse_args()


def train(work_dir: Path, seed: int) -> dict:
    """Results of the three runs by name."""
    from mmtransmamba.apis import run_experiment
    from mmtransmamba.utils.checkpoint_files import find_resumable

    results = {}
    for name in RUNS:
        if name == 'teacher':
            folder = work_dir / name
            # Half of the config's schedule, to finish within minutes.
            options = {'train_cfg.max_epochs': TEACHER_EPOCHS}
        else:
            folder = work_dir / f'{name}_seed{seed}'
            options = {'randomness.seed': seed}
        if name == 'transfer':
            last = find_resumable(results['teacher'].work_dir)
            options['model.teacher.checkpoint'] = last
        results[name] = run_experiment(CONFIGS / f'digits_{name}.py', folder, options)
    return results


def report(results: dict) -> list[dict]:
    """Rows of the table; epochs are the student's."""
    target = results['scratch'].scalars.best
    rows = []
    for name, label in RUNS.items():
        result = results[name]
        reached = None if name == 'teacher' else result.scalars.epochs_to(target)
        rows.append(
            {
                'model': label,
                'top-1 (%)': round(result.scalars.final, 2),
                'best (%)': round(result.scalars.best, 2),
                f"epochs to scratch's best ({target:.2f}%)": reached,
                'parameters': result.parameters,
                'training time (s)': result.seconds and round(result.seconds),
            }
        )
    return rows


def print_table(rows: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title='Test digits by other writers than the training digits')
    for column in rows[0]:
        table.add_column(column, justify='left' if column == 'model' else 'right')
    for row in rows:
        table.add_row(
            *(
                '-' if v is None else f'{v:,}' if isinstance(v, int) else str(v)
                for v in row.values()
            )
        )
    Console().print(table)


@tool(parse_args, 'interrupted; the same command goes on from the last checkpoint')
def main(args: argparse.Namespace) -> None:
    print(f'Trains {", ".join(RUNS.values())} in {args.work_dir}', flush=True)
    from mmtransmamba.visualization import plot_layer_weights, plot_runs

    results = train(args.work_dir, args.seed)
    rows = report(results)
    print_table(rows)

    curves = args.work_dir / f'curves_seed{args.seed}.png'
    weights = args.work_dir / f'layer_weights_seed{args.seed}.png'
    plot_runs(
        {RUNS[name]: results[name].scalars for name in ('scratch', 'transfer')},
        curves,
        'PlainMamba on 30 digits',
        reference=('teacher, on 1,200 digits', results['teacher'].scalars.final),
    )
    plot_layer_weights(results['transfer'].scalars, weights)
    table = args.work_dir / f'results_seed{args.seed}.json'
    table.write_text(json.dumps(rows, indent=2))
    print(f'Curves: {curves}\nLayer weights: {weights}\nTable: {table}')


if __name__ == '__main__':
    main()
