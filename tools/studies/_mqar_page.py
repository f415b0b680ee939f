"""The page of ``mqar.py``, from the rows that there are."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path

from _mqar_plan import (
    BATCH,
    HEADS,
    HIDDEN,
    LAYERS,
    LEARNING_RATES,
    LENGTH,
    MIXERS,
    PAIRS,
    VOCAB,
    Run,
)
from _tables import read_table

HEAD = f"""# Recall after conversion

A Llama of {LAYERS} layers (hidden size {HIDDEN}, {HEADS} heads of size K) learns
multi-query associative recall (`MQARTokens`): {PAIRS} pairs, {LENGTH} tokens, {VOCAB}
ids. A teacher that has not learned it in {{steps:,}} steps starts again with a lower
rate.
The attention of all layers is then replaced (`init='mimic'`), and the student is
distilled on fresh sequences, {BATCH} a step, with KL and forced layers; all parameters
are trained. A layer's state has {HEADS} K² numbers for each mixer, so the window keeps
K / 2 tokens. Recurrent models learn recall only in a narrow band of learning rates
([arXiv:2508.19029](https://arxiv.org/abs/2508.19029)), so every row has the same
{len(LEARNING_RATES)} rates, and the best is reported with all others below. Seconds are
elapsed time and include waiting for a busy core.

```bash
python tools/studies/mqar.py
```
"""


def write_page(out: Path, runs: list[Run], teacher_steps: int) -> None:
    """Write the page, with the runs of other sizes and seeds that there are.

    Args:
        out: Folder of the page ``mqar.md`` and of the tables in ``mqar/``.
        runs: All runs that are planned.
        teacher_steps: At most how many a teacher has at each rate.
    """
    rows = {row['key']: row for row in read_table(out / 'mqar' / 'students.csv')}
    teachers = read_table(out / 'mqar' / 'teachers.csv')
    done = [_run_of(row) for row in rows.values()]
    missing = len(set(runs) - set(done))
    text = HEAD.format(steps=teacher_steps) + (
        f'\n**{len(runs) - missing} of {len(runs)} runs of the first command are '
        'done.** It goes on with the others.\n'
        if missing
        else ''
    )
    if teachers:
        text += (
            '\n## Teachers\n\n| K | seed | rate | steps | accuracy | minutes |\n'
            + '|---' * 6
            + '|\n'
        )
        for row in teachers:
            text += (
                f'| {row["head_dim"]} | {row["seed"]} | {row["rate"]} | {row["steps"]} '
                f'| {100 * float(row["accuracy"]):.1f} % '
                f'| {float(row["seconds"]) / 60:.1f} |\n'
            )
    if done:
        text += _best(done, rows, teachers) + _all(done, rows)
    path = out / 'mqar.md'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _run_of(row: dict[str, str]) -> Run:
    size, rate, seed = (row[name] for name in ('head_dim', 'rate', 'seed'))
    return Run(row['mixer'], int(size), float(rate), int(seed))


def _best(
    done: list[Run], rows: dict[str, dict[str, str]], teachers: list[dict[str, str]]
) -> str:
    """Accuracy by size of the state and mixer, at the best learning rate."""
    sizes = sorted({run.head_dim for run in done})
    found: dict[tuple, dict[float, dict[int, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for run in done:
        score = float(rows[run.key]['accuracy'])
        found[run.mixer, run.head_dim][run.rate][run.seed] = score
    heads = ' | '.join(f'{HEADS * size**2} (K = {size})' for size in sizes)
    text = (
        '\n## Accuracy by size of the state\n\nQueries answered correctly, in percent, '
        f'at the best learning rate: mean over the seeds, lowest to highest. A guess '
        f'among the values of a row is right in {100 / PAIRS:.1f} %.\n\n'
        f'| mixer | {heads} |\n' + '|---' * (1 + len(sizes)) + '|\n'
    )
    learned = defaultdict(list)
    for row in teachers:
        learned[int(row['head_dim'])].append(float(row['accuracy']))
    cells = [_range(learned[size]) if learned[size] else '–' for size in sizes]
    text += f'| the teacher | {" | ".join(cells)} |\n'
    for mixer in MIXERS:
        cells = []
        for size in sizes:
            rates = found.get((mixer, size))
            cells.append(_cell(rates) if rates else '–')
        text += f'| {mixer} | {" | ".join(cells)} |\n'
    return text


def _cell(rates: dict[float, dict[int, float]]) -> str:
    # Only rates that all seeds have can be compared.
    most = max(len(seeds) for seeds in rates.values())
    means = {
        rate: statistics.fmean(seeds.values())
        for rate, seeds in rates.items()
        if len(seeds) == most
    }
    best = max(means, key=means.get)
    tried = f', {len(means)} of {len(LEARNING_RATES)} rates'
    scores = _range(list(rates[best].values()))
    return f'{scores}, at {best:g}{tried if len(means) < 3 else ""}'


def _range(scores: list[float]) -> str:
    """Mean of accuracies in percent, lowest to highest, and how many seeds."""
    text, count = f'{100 * statistics.mean(scores):.1f}', len(scores)
    if count > 1:
        text += f' ({100 * min(scores):.1f} to {100 * max(scores):.1f})'
    return f'{text}, {count} seed{"s" if count > 1 else ""}'


def _all(done: list[Run], rows: dict[str, dict[str, str]]) -> str:
    text = (
        '\n## All runs\n\n| mixer | K | rate | seed | before | after | steps | seconds '
        '|\n' + '|---' * 8 + '|\n'
    )
    for run in sorted(done, key=lambda run: (run.head_dim, run.seed)):
        row = rows[run.key]
        text += (
            f'| {run.mixer} | {run.head_dim} | {run.rate:g} | {run.seed} '
            f'| {100 * float(row["before"]):.1f} % '
            f'| {100 * float(row["accuracy"]):.1f} % | {row["steps"]} '
            f'| {row["seconds"]} |\n'
        )
    return text
