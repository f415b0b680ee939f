"""The plan of a transfer: its stages in numbers, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmtransmamba.apis.recipes.recipe import Recipe, Stage
from mmtransmamba.apis.recipes.request import (
    MICRO_TOKENS,
    Request,
    rows_of,
    scaled_lr,
)
from mmtransmamba.apis.recipes.text import TransferText
from mmtransmamba.engine.schedulers.wsd import phases
from mmtransmamba.transfer.convert.calibration import TOKENS as FIT_TOKENS

READINGS = 3
"""How often a calibration reads each token."""


@dataclass
class PlannedStage:
    """A stage in numbers.

    Attributes:
        name: Entry in the student's history.
        index: Its place among the recipe's stages.
        length: Tokens of a sequence.
        rows: Sequences of a step.
        accumulate: Forward passes of a step.
        steps: Number of steps.
        lr: Learning rate.
        trained: Parameters that are trained; None before the measurement.
        seconds: Estimated time of the training; None before the measurement.
        bytes: Memory of both models, the gradients and the optimizer.
    """

    name: str
    index: int
    length: int
    rows: int
    accumulate: int
    steps: int
    lr: float
    trained: int | None = None
    seconds: float | None = None
    bytes: int | None = None

    @property
    def tokens(self) -> int:
        return self.steps * self.rows * self.length


@dataclass
class TransferPlan:
    """The plan of a transfer.

    Attributes:
        stages: The trainings.
        block: Tokens of a block.
        text_tokens: Tokens of the training text.
        held_out: Tokens that are held out.
        calibration_steps: Steps of a calibrated initialisation, 0 for none.
        calibration_tokens: Tokens that it reads.
        layers: Number of layers, and how they are chosen.
        peak: Peak memory of the process in the measurement, in bytes.
        device: Where it was measured.
    """

    stages: list[PlannedStage]
    block: int
    text_tokens: int
    held_out: int
    calibration_steps: int = 0
    calibration_tokens: int = 0
    layers: str = ''
    peak: int | None = None
    device: str = ''
    notes: list[str] = field(default_factory=list)

    @property
    def calibration_work(self) -> int:
        """Tokens of the calibration, each as often as it is read."""
        return self.calibration_steps * FIT_TOKENS

    @property
    def tokens(self) -> int:
        """Tokens of everything."""
        return self.calibration_work + sum(stage.tokens for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """Estimated time of all trainings."""
        known = [stage.seconds for stage in self.stages]
        return None if None in known else sum(known)

    def __str__(self) -> str:
        head = f'{"stage":14}{"tokens":>12}{"steps":>8}{"batch":>14}{"rate":>10}'
        lines = [self.layers, f'{head}{"trained":>13}{"memory":>11}{"minutes":>9}']
        if self.calibration_steps:
            lines.append(
                f'{"calibration":14}{self.calibration_work:12,}'
                f'{self.calibration_steps:8,}{"each mixer":>14}'
            )
        for stage in self.stages:
            batch = f'{stage.rows} x {stage.length:,}'
            row = f'{stage.name:14}{stage.tokens:12,}{stage.steps:8,}{batch:>14}'
            row += f'{stage.lr:10.2g}'
            if stage.seconds is not None:
                row += f'{stage.trained:13,}{stage.bytes / 2**20:8,.0f} MB'
                row += f'{stage.seconds / 60:9.1f}'
            lines.append(row)
        total = f'{"all":14}{self.tokens:12,}'
        if self.seconds is not None:
            total += f'{"":56}{self.seconds / 60:9.1f}'
        lines.append(total)
        readings = sum(s.tokens for s in self.stages) / self.text_tokens
        lines.append(
            f'{self.text_tokens:,} tokens of text, read {readings:.2g} times; '
            f'{self.held_out:,} others are held out.'
        )
        if self.peak is not None:
            lines += [
                f'Minutes: by three steps of each stage on the {self.device}, without '
                f'loading{", calibration" if self.calibration_steps else ""} and '
                'validation.',
                'Memory: both models, gradients and optimizer, without activations; '
                f'the process took {self.peak / 2**30:.1f} GB in those steps.',
            ]
        return '\n'.join([*lines, *self.notes])


def make_plan(
    request: Request,
    recipe: Recipe,
    text: TransferText,
    config: Any,
    calibrated: bool,
) -> TransferPlan:
    """Divide a budget among the stages of a recipe.

    Args:
        request: The request.
        recipe: Its recipe.
        text: Its text.
        config: Config of the teacher.
        calibrated: Whether the initialisation reads text.

    Raises:
        ValueError: A stage has no sequence, no useful step, a schedule that does not
            fit, or the name of another one.
    """
    plan = TransferPlan([], text.block, text.tokens, text.held_out * text.block)
    if calibrated:
        share = recipe.calibration['share'] * request.tokens / FIT_TOKENS
        most = recipe.calibration['steps']
        plan.calibration_steps = min(max(round(share), 1), most)
        wanted = plan.calibration_work // READINGS
        plan.calibration_tokens = min(max(wanted, 4 * text.block), text.tokens)
    budget = request.tokens - plan.calibration_work
    context = config.max_position_embeddings
    shares = sum(stage.share for stage in recipe.stages)
    rows = rows_of(request.tokens, text.block)
    for index, stage in enumerate(recipe.stages):
        lengths = _lengths(stage, text.block, context)
        if any(length > context for length in stage.lengths):
            plan.notes.append(
                f'{stage.name}: sequences end at the context of the teacher, '
                f'{context:,} tokens.'
            )
        for length in lengths:
            tokens = budget * stage.share / shares / len(lengths)
            size = max(1, rows * text.block // length)
            accumulate = _accumulate(size, length)
            many = len(lengths) > 1
            plan.stages.append(
                PlannedStage(
                    f'{stage.name}-{length}' if many else stage.name,
                    index,
                    length,
                    size,
                    accumulate,
                    max(1, round(tokens / (size * length))),
                    scaled_lr(stage.lr, recipe.width, config.hidden_size),
                )
            )
            text.train(length)  # that there is such a sequence
            _check_schedule(request, recipe, stage, plan.stages[-1])
    names = [stage.name for stage in plan.stages]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(
            f'the recipe "{recipe.name}" has two trainings {twice[0]}: one of a stage '
            'with several lengths, and another stage; rename that'
        )
    return plan


def _lengths(stage: Stage, block: int, context: int) -> Sequence[int]:
    """The curriculum of a stage, cut at the teacher's context."""
    return list(dict.fromkeys(min(n, context) for n in stage.lengths)) or [block]


def _check_schedule(
    request: Request, recipe: Recipe, stage: Stage, planned: PlannedStage
) -> None:
    given = {k: v for k, v in stage.schedule.items() if k in ('warmup', 'decay')}
    try:
        phases(planned.steps * planned.accumulate, **given)
    except ValueError as error:
        raise ValueError(
            f'the recipe "{recipe.name}", stage {planned.name}, schedule: {error}'
        ) from None
    if planned.steps == 1 and not stage.schedule.get('end', 0.0):
        raise ValueError(
            f'the recipe "{recipe.name}", stage {planned.name}: of '
            f'{request.tokens:,} tokens it gets a single step, whose learning rate '
            'is 0, the end of its schedule; give more tokens'
        )


def _accumulate(rows: int, length: int) -> int:
    """Forward passes of a step, of equal size."""
    most = max(1, MICRO_TOKENS // length)
    wanted = math.ceil(rows / most)
    return next(n for n in range(wanted, rows + 1) if rows % n == 0)
