"""The page of the study of ``vision.py``, from the rows that there are."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _vision_figures import plot_accuracies, plot_curves, plot_weights
from _vision_gradients import Series, gradient_rows, plot_gradients
from _vision_plan import BY_NAME, FAMILIES, ROWS, Row
from _vision_rows import Finished

from mmtransmamba.utils.seed_statistics import mean_and_spread, paired

COMMAND = 'MMTRANSMAMBA_DATA=data nice python tools/studies/vision.py'


def differences(runs: list[Finished], row: str, other: str) -> list[float]:
    """Accuracy of ``row`` minus that of ``other`` for each seed that both have."""
    of_other = {run.seed: run.top1 for run in runs if run.row == other}
    return [
        run.top1 - of_other[run.seed]
        for run in runs
        if run.row == row and run.seed in of_other
    ]


def difference(runs: list[Finished], row: str, other: str) -> str:
    """Paired difference with its interval; marked if zero lies outside."""
    return '–' if row == other else paired(differences(runs, row, other))


def step_reaching(run: Finished, accuracy: float) -> int | None:
    """First validated step with at least this accuracy, None without."""
    return next((s for s, v in sorted(run.curve.items()) if v >= accuracy), None)


def _of(runs: list[Finished], row: str) -> list[Finished]:
    return sorted((r for r in runs if r.row == row), key=lambda r: r.seed)


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    rows = [head, ['---'] * len(head), *lines]
    return ['| ' + ' | '.join(row) + ' |' for row in rows] + ['']


def _measured(
    head: Iterable[str], lines: Iterable[tuple[str, Iterable[str] | None]]
) -> list[str]:
    """A table of what there is, and the names of the lines that are not there yet."""
    lines = list(lines)
    found = [(name, *cells) for name, cells in lines if cells is not None]
    missing = [name for name, cells in lines if cells is None]
    text = _table(head, found) if found else []
    return text + ([f'Not measured yet: {"; ".join(missing)}.', ''] if missing else [])


def _compared(runs: list[Finished], rows: list[Row], prefix: str = '') -> list[str]:
    others = (f'{prefix}baseline', f'{prefix}logits')

    def cells(row: Row) -> Iterable[str] | None:
        found = [r.top1 for r in _of(runs, row.name)]
        gains = (difference(runs, row.name, other) for other in others)
        return (str(len(found)), mean_and_spread(found), *gains) if found else None

    return _measured(
        ('student learns from', 'seeds', 'top-1', 'minus baseline', 'minus logits'),
        ((row.title, cells(row)) for row in rows),
    )


def _families(runs: list[Finished]) -> list[str]:
    names = ('baseline', 'hook_balanced', 'full_75pct')
    lines = []
    for family in ('', *FAMILIES):
        rows = [f'{family}_{name}' if family else name for name in names]
        scores = (mean_and_spread([r.top1 for r in _of(runs, row)]) for row in rows)
        gains = (difference(runs, row, rows[0]) for row in rows[1:])
        found = any(_of(runs, row) for row in rows)
        lines.append((family or 'plain_mamba', (*scores, *gains) if found else None))
    head = ('baseline', 'balanced', 'full, 75 %')
    return _measured(
        ('student', *head, *(f'{name} minus baseline' for name in head[1:])), lines
    )


def _fewer(runs: list[Finished]) -> list[str]:
    lines = []
    for part in (25, 50, 75, 100):
        suffix = '' if part == 100 else f'_{part}pct'
        names = [name + suffix for name in ('baseline', 'logits', 'full')]
        scores = (mean_and_spread([r.top1 for r in _of(runs, n)]) for n in names)
        pairs = ((names[2], names[0]), (names[2], names[1]), (names[2], 'baseline'))
        gains = (difference(runs, row, other) for row, other in pairs)
        found = any(_of(runs, name) for name in names)
        lines.append((f'{part} %', (*scores, *gains) if found else None))
    return _measured(
        (
            *('images', 'baseline', 'logits', 'full', 'full minus baseline'),
            *('full minus logits', 'full minus baseline on 100 %'),
        ),
        lines,
    )


def _sooner(runs: list[Finished], rows: list[Row]) -> list[str]:
    base = {r.seed: r for r in _of(runs, 'baseline')}

    def cells(row: Row) -> Iterable[str] | None:
        ratios, steps = [], []
        for run in _of(runs, row.name):
            if run.seed not in base or row.name == 'baseline':
                continue
            best = max(base[run.seed].curve.values())
            own = step_reaching(run, best)
            steps.append('–' if own is None else str(own))
            if own is not None:
                ratios.append(step_reaching(base[run.seed], best) / own)
        seconds = [r.seconds for r in _of(runs, row.name) if r.seconds is not None]
        if not _of(runs, row.name):
            return None
        return (
            ', '.join(steps) or '–',
            # A mean over the runs that arrive would leave out the slowest.
            mean_and_spread(ratios) if len(ratios) == len(steps) else '–',
            f'{statistics.median(seconds):.0f}' if seconds else '–',
        )

    return _measured(
        (
            'student learns from',
            "steps to the baseline's best, by seed",
            'times sooner',
            'seconds a run (median)',
        ),
        ((row.title, cells(row)) for row in rows),
    )


def _swept(runs: list[Finished]) -> list[str]:
    alphas = sorted({r.alpha for r in runs if r.alpha is not None})
    return _table(
        ('student learns from', *(f'α = {alpha}' for alpha in alphas)),
        (
            (
                row.title,
                *(
                    mean_and_spread([r.top1 for r in _of(runs, name) if r.alpha == a])
                    for a in alphas
                ),
            )
            for name, row in BY_NAME.items()
            if _of(runs, name)
        ),
    )


def write_page(
    out: Path,
    runs: list[Finished],
    sweep: list[Finished],
    gradients: list[Series],
    planned: int,
    teacher: dict[str, Any] | None,
    cifar10_top1: float | None = None,
) -> None:
    """Write ``vision.md`` and its pictures.

    Args:
        out: Folder of the page; the pictures go to ``vision/`` in it.
        runs: Finished runs.
        sweep: Those of the sweep.
        gradients: What the runs recorded of their terms' gradients.
        planned: How many runs the whole study has.
        teacher: What the teacher scores, None if it was not recorded yet.
        cifar10_top1: Accuracy of the teacher on CIFAR-10 in percent, None without it.
    """
    pictures = out / 'vision'
    pictures.mkdir(parents=True, exist_ok=True)
    decisive, terms = ROWS['decisive'], ROWS['terms']
    lines = [
        '# Imagenette: which part of the distillation pays?',
        '',
        f'**{len(runs) + len(sweep)} of {planned} runs** are in these tables. Each row',
        'has as many seeds as its column says; one seed has no spread.',
        '',
        _SETTING,
        *_about_teacher(teacher),
        '```bash',
        COMMAND,
        '```',
        '',
        _READING,
        '## Table VII in miniature',
        '',
        *_compared(runs, [*decisive, *terms]),
    ]
    if runs:
        elsewhere = {row.name for row in ROWS['cifar10']}
        accuracies = {
            name: [r.top1 for r in _of(runs, name)]
            for name in BY_NAME
            if name not in elsewhere
        }
        plot_accuracies(
            {n: v for n, v in accuracies.items() if v}, pictures / 'accuracy.png'
        )
        plot_curves(
            {row.title: [r.curve for r in _of(runs, row.name)] for row in decisive},
            pictures / 'curves.png',
        )
        lines += [
            '![Accuracy of every row](vision/accuracy.png)',
            '',
            '![Accuracy over the steps](vision/curves.png)',
            '',
        ]
    lines += ['## Do schedule and balance of the terms matter?', '', _SCHEDULES]
    lines += _compared(runs, [terms[1], *ROWS['schedules'], decisive[-1]])
    lines += ['## Inherited weights', '', _INHERITED]
    lines += _compared(runs, [*ROWS['subclone'], *ROWS['inherited']])
    lines += ['## Rivals', '', *_compared(runs, ROWS['rivals'])]
    lines += ['## Fewer images (Tables VIII and X)', '', _FEWER, *_fewer(runs)]
    last = decisive[-1]
    lines += ['## Which teacher layer (Table IX)', '']
    lines += _compared(runs, [*ROWS['layers'], last])
    lines += ['## Other students (Tables IV and X)', '', _FAMILIES, *_families(runs)]
    lines += ['## The same on CIFAR-10', '', *_about_cifar10(cifar10_top1)]
    lines += _compared(runs, ROWS['cifar10'], 'cifar10_')
    lines += ['## How much sooner (Fig. 5)', '', _SOONER]
    rows = [*decisive, terms[0], *ROWS['schedules'], *ROWS['subclone']]
    lines += _sooner(runs, rows)
    weighed = [r.weights for r in _of(runs, 'full') if r.weights]
    if weighed:
        plot_weights(weighed, pictures / 'weights.png')
        lines += ['## What the adaptive weights learn', '']
        lines += [_WEIGHTS, '![Weights of the layers](vision/weights.png)', '']
    if gradients:
        plot_gradients(gradients, pictures / 'gradients.png')
        seeds = f'{len(gradients)} seed{"s" if len(gradients) > 1 else ""}'
        lines += ['## Do the terms agree?', '', _GRADIENTS.format(seeds=seeds)]
        lines += _table(
            (
                *('loss', 'norm, first third', 'norm, last third'),
                'cosine with the task (below 0)',
                'cosine with the logits (below 0)',
            ),
            gradient_rows(gradients),
        )
        lines += ['![Gradients of the terms](vision/gradients.png)', '']
    lines += ['## The sweep', '', _SWEEP, *(_swept(sweep) if sweep else ())]
    (out / 'vision.md').write_text('\n'.join(lines).rstrip() + '\n')


def _about_teacher(teacher: dict[str, Any] | None) -> list[str]:
    if teacher is None:
        return []
    return [
        f'The teacher is right in {teacher["views_top1"]:.1f} % of the '
        f'{teacher["views"]:,} recorded views, and in',
        f'{teacher["val_top1"]:.1f} % of the first {teacher["val_images"]} validation '
        'images, all enlarged from 96 to 224',
        'pixels.',
        '',
    ]


def _about_cifar10(top1: float | None) -> list[str]:
    said = '' if top1 is None else f', {top1:.1f} % of which this teacher has right'
    return [
        _CIFAR10.rstrip(),
        f'The test is on all 10,000 images{said}.',
        '',
    ]


_SETTING = """\
Teacher: DeiT-Tiny of ImageNet-1k, whose logits are cut to the ten classes of
Imagenette. Student: a PlainMamba of width 192, as PMamba-T, with six blocks instead of
twelve, images of 72 pixels and 36 tokens, from random weights. It learns from 2,000 of
the 9,469 training images for 400 steps of 32, the same for every row, and is tested on
all 3,925 validation images after the last step. The curves are on an eighth of these.

Every image has three fixed random views (crop of 35 to 100 % of the area, flip). The
teacher has seen each of them once at 224 pixels; its outputs are read from disk, and
all rows learn from the same pixels. A step of 32 images takes 0.62 s of processor time
with the student alone, 0.65 s with logits and 0.95 s with the full method; running the
teacher would add 0.9 s. There is no mixup, which recorded outputs cannot follow.

One thread of a shared core of an Intel Xeon (AVX-512) or an AMD EPYC (AVX2), float32.
Seconds depend on the machine and on what else that core does; steps do not.
"""
_READING = """\
Top-1 in percent, mean ± standard deviation over seeds. Differences are paired by seed,
with the half width of their 95 % t-interval; **bold** ones exclude zero. With three
seeds such an interval is wide: 2.5 times the standard deviation of the differences. No
correction is made for the number of comparisons.

Settings are those of the [digits](digits.md), taken over **untuned** and equal for all
rows: α = 0.2, temperature 1, layer and direction terms as means over layers and
directions, feature, layer and direction terms fading out until 60 % of the steps where
logits take over. "Full" has adaptive weights in a layer term and in the direction term.
Only the rows that say so start from inherited weights.
"""
_SCHEDULES = """\
The terms that fade out leave the end to logits and labels, whose gradients point the
same way and are larger than those of the others ([below](#do-the-terms-agree)). So the
others are kept to the end here, with their weights and with weights that make their
gradients as large as that of the logits in the first third of the steps.
"""
_INHERITED = """\
Students that start from DeiT-Tiny's first six blocks
([subcloning](../subcloning.md)); the steps, the images and the terms are those of the
rows above. 10.9 % of the parameters are inherited, mostly output projections, besides
norms and the position embedding; the other weights of the blocks are drawn by the rules
of `SubcloneInitializer` instead of the backbone's. The last rows take these apart: the
rules with nothing inherited, those for dt (Mamba's step sizes of 0.001 to 0.1, where
PlainMamba begins with 0.69 everywhere), and what is inherited without the rules. What
is inherited was trained on ImageNet, to which these photographs belong.
"""
_FEWER = """\
The same number of steps for every part. The paper compares 75 % of the images by
transfer with 100 % from scratch (Table X): the last column at 75 %.
"""
_FAMILIES = """\
The same settings and steps for Vim and Vision-RWKV with six blocks of width 192, and
for VMamba with five blocks of width 32 to 256. "Balanced" is the best row of the
PlainMamba, feature and logits with `TermBalanceHook`; "full, 75 %" has 1,500 images
against the baseline's 2,000.
"""
_CIFAR10 = """\
A student of the same width and depth for images of 32 pixels (64 tokens) learns from
2,000 of the 50,000, 200 of each class, with the same settings and steps, random crops
and flips. The teacher is a ViT of six blocks that saw all 50,000
(`tools/studies/cifar10_teacher.py`); it sees what the student sees.
"""
_SOONER = """\
First validated step (every 50th) at which a run reaches the best validation accuracy of
the baseline of its seed, and how many times sooner than that baseline where every seed
reaches it. The paper's figure is 2.7.
"""
_WEIGHTS = """\
The last weights of layer and direction term in the full method before both have faded
out; 1 is a layer that counts as much as the others.
"""
_GRADIENTS = """\
Every 20th step of the full method ({seeds}), each loss is differentiated alone with
respect to all parameters of the student, times the weight with which it enters the sum
(`TermGradientsHook`). Mean norms, and mean cosines with the share of the steps in which
the two pull apart. A term that has faded out has neither.
"""
_SWEEP = """\
One other seed (100), 1,000 training images that no student learns from: a check of
whether another α would have favoured a row. The runs above do not use it; weights and
schedules of the terms are compared above, with seeds.
"""
