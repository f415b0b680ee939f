"""The page about a finished transfer."""

from __future__ import annotations

from html import escape
from pathlib import Path

from mmtransmamba.apis.recipes.plan import TransferPlan
from mmtransmamba.transfer.convert.proof import Proof
from mmtransmamba.transfer.convert.writer import REPORT_FILE
from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.visualization.report.charts import line_chart, number
from mmtransmamba.visualization.report.environment import this_machine
from mmtransmamba.visualization.report.inheritance import read_inheritance
from mmtransmamba.visualization.report.markup import (
    document,
    duration,
    grid,
    large,
    table,
)
from mmtransmamba.visualization.report.reading import Run, read_run

KL, PERPLEXITY, AGREEMENT = 'token/kl', 'token/ppl', 'token/agreement'


def write_transfer_report(
    out: Path,
    recipe: str,
    teacher: str,
    plan: TransferPlan,
    scores: dict[str, Proof],
    seconds: dict[str, float],
) -> Path:
    """Write ``report.html`` and return its path.

    Args:
        out: Folder of the transfer.
        recipe: Name of the recipe.
        teacher: Folder of the teacher.
        plan: The plan.
        scores: Comparison with the teacher after each step.
        seconds: Time of each step.
    """
    runs = {
        stage.name: read_run(out / f'{number}_{stage.name}')
        for number, stage in enumerate(plan.stages, 1)
    }
    first, last = scores['converted'], list(scores.values())[-1]
    spent = sum(seconds.values())
    inherited = read_inheritance(out / 'converted' / REPORT_FILE)
    tiles = [
        (number(last.kl), 'KL from the teacher, nats per token'),
        (number(last.perplexity), 'perplexity'),
        (f'{100 * last.agreement:.1f} %', 'same most likely token as the teacher'),
        (large(plan.tokens), 'tokens'),
        (duration(spent), 'wall-clock time'),
        (f'{100 * inherited.inherited / inherited.parameters:.0f} %', 'inherited'),
    ]
    lead = (
        f'{Path(teacher).name} became a hybrid by the recipe {recipe}. On '
        f'{last.tokens:,} tokens of text that was held out, its divergence from the '
        f'teacher {_change(first.kl, last.kl, len(scores))} nats per token.'
    )
    sections = [
        ('results', 'Before and after', _results(plan, scores, seconds)),
        ('curves', 'Curves', _curves(plan, runs, scores)),
        ('plan', 'Plan', f'<pre tabindex="0">{escape(str(plan))}</pre>'),
        ('environment', 'Environment', _environment()),
    ]
    page = document(
        f'{Path(teacher).name}: {recipe}',
        'Transfer',
        lead,
        tiles,
        sections,
        f'<p>Written by mmtransmamba from {escape(str(out))}. Each stage has a page of '
        'its own by <code>tools/report.py</code>.</p>',
    )
    path = out / 'report.html'
    write(path, page.encode('utf-8', 'replace'))
    return path


def _results(
    plan: TransferPlan, scores: dict[str, Proof], seconds: dict[str, float]
) -> str:
    tokens = {'converted': plan.calibration_work}
    tokens |= {stage.name: stage.tokens for stage in plan.stages}
    rows = []
    for step, proof in scores.items():
        rows.append(
            [
                step,
                f'{proof.kl:.4f}',
                f'{proof.perplexity:.3f}',
                f'{100 * proof.agreement:.1f} %',
                f'{tokens[step]:,}',
                f'{seconds.get(step, 0) / 60:.1f}',
            ]
        )
    proof = list(scores.values())[-1]
    rows.append(['teacher', '0', f'{proof.teacher_perplexity:.3f}', '100 %', '', ''])
    head = ['After', 'KL', 'Perplexity', 'Same token', 'Tokens', 'Minutes']
    made = table(head, rows, range(1, len(head)))
    return f'<div class="card">{made}</div>'


def _curves(plan: TransferPlan, runs: dict[str, Run], scores: dict[str, Proof]) -> str:
    """Curves over the tokens of all stages."""
    teacher = list(scores.values())[-1].teacher_perplexity
    charts = []
    for metric, title, start, reference in (
        (KL, 'KL on held-out text, nats per token', scores['converted'].kl, None),
        (
            PERPLEXITY,
            'perplexity of held-out text',
            scores['converted'].perplexity,
            ('teacher', teacher),
        ),
        (
            AGREEMENT,
            'same most likely token, percent',
            100 * scores['converted'].agreement,
            None,
        ),
    ):
        curves, at = {}, 0
        point = (0, start)
        for stage in plan.stages:
            points = _over_tokens(runs[stage.name].metrics.get(metric, []), stage, at)
            curves[stage.name] = [point, *points]
            point = curves[stage.name][-1]
            at += stage.tokens
        charts.append(line_chart(curves, title, 'tokens', reference, log=True))
    for stage in plan.stages:
        run = runs[stage.name]
        points = _over_tokens(run.losses.get('loss', []), stage, 0)
        if points:
            title = f'{stage.name}: loss'
            charts.append(line_chart({'loss': points}, title, 'tokens', log=True))
    return grid(charts)


def _over_tokens(points, stage, at: int) -> list[tuple[int, float]]:
    per = stage.rows * stage.length / stage.accumulate
    return [(at + round(step * per), value) for step, value in points]


def _environment() -> str:
    return f'<div class="card">{table(["", ""], this_machine().items())}</div>'


def _change(first: float, last: float, scores: int) -> str:
    """What became of a figure, in words."""
    if scores == 1:
        return f'is {number(last)}'
    if last == first:
        return f'stayed {number(last)}'
    verb = 'fell' if last < first else 'rose'
    return f'{verb} from {number(first)} to {number(last)}'
