"""Recipes: the stages of a transfer as data, one file each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtransmamba.apis.configs import config_folder
from mmtransmamba.engine.schedulers.wsd import check_form
from mmtransmamba.models.trainable.stages import GROUPS
from mmtransmamba.utils.choices import RECIPES

FOLDER = '_base_/recipes/language'
ALL = 'all'
CONVERTED, STUDENT = 'converted', 'student'
"""Folders of a transfer besides those of its stages."""

_NAME = re.compile(r'[\w.-]+')
_OWN = ('type', 'dtype', 'accumulative_counts')
"""Keys of the optimizer's wrapper that follow from the request and the stage."""


@dataclass(frozen=True)
class Stage:
    """One training of a recipe.

    Attributes:
        name: Entry in the student's ``transfer_history``.
        trains: Groups of parameters
            (:data:`~mmtransmamba.models.trainable.stages.GROUPS`) that are trained, or
            ``'all'``.
        terms: Terms of a :class:`~mmtransmamba.transfer.LanguageDistiller`.
        share: Tokens in proportion to those of the other stages.
        lr: Learning rate of the source, for models of the recipe's ``width``.
        schedule: ``warmup`` and ``decay`` as shares of the steps, ``form`` of the decay
            (see :class:`~mmtransmamba.engine.schedulers.wsd.WSDParamScheduler`), and
            ``end``, the last learning rate as a share of ``lr``. ``end=1`` is constant
            after the warm-up. The recipe's by default.
        optim_wrapper: What differs from the recipe's, in mmengine's form.
        adapters: Train low-rank adapters only, see
            :func:`~mmtransmamba.models.trainable.adapters.add_adapters`.
        lengths: Tokens of a sequence, a curriculum of one training each; by default the
            block length of the transfer.
        completion_only: Learn the texts and not their prompts, where the data have
            prompts.
    """

    name: str
    trains: tuple[str, ...] | str
    terms: Mapping[str, Any]
    share: float
    lr: float
    schedule: Mapping[str, Any] = field(default_factory=dict)
    optim_wrapper: Mapping[str, Any] = field(default_factory=dict)
    adapters: Mapping[str, Any] | None = None
    lengths: tuple[int, ...] = ()
    completion_only: bool = True


@dataclass(frozen=True)
class Recipe:
    """A transfer as data.

    Attributes:
        name: Name of its file.
        text: Its file with everything inherited, to recognise a changed recipe.
        width: Hidden size of the source's model, for which the learning rates are.
        convert: Arguments of :func:`~mmtransmamba.transfer.convert.convert`.
        calibration: ``share`` of the tokens for a calibrated initialisation, and the
            most ``steps`` of each mixer.
        stages: Trainings, in order.
    """

    name: str
    text: str
    width: int
    convert: Mapping[str, Any]
    stages: tuple[Stage, ...]
    calibration: Mapping[str, Any]


_CONVERT = ('layers', 'ratio', 'init', 'mixer', 'ranking', 'mamba_checkpoint', 'fields')
_KEYS = {'width', 'convert', 'stages', 'optim_wrapper', 'schedule', 'calibration'}
_NEEDED = ('width', 'convert', 'stages', 'optim_wrapper')
_STAGE = {f.name: f for f in fields(Stage)}


def read_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe by its name, or from a file of your own.

    A file is a config of mmengine with ``width``, ``convert``, ``optim_wrapper`` and
    ``stages``, a list with the fields of :class:`Stage`; ``schedule`` and
    ``calibration`` are optional. It may inherit from another with ``_base_``.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The name or a key is unknown, or a key is missing.
    """
    path = Path(recipe)
    if path.suffix != '.py':
        if str(recipe) not in RECIPES:
            raise ValueError(
                f'the recipe "{recipe}" is unknown; accepted: {", ".join(RECIPES)}, or '
                'a file that ends in .py'
            )
        path = config_folder() / FOLDER / f'{recipe}.py'
    if not path.is_file():
        raise FileNotFoundError(f'the recipe "{path}" does not exist')
    try:
        found = Config.fromfile(path)
    except Exception as error:
        raise ValueError(
            f'cannot read the recipe "{path}": {type(error).__name__}: {error}'
        ) from error
    given = found.to_dict()
    where = f'the recipe "{path}"'
    for key in _NEEDED:
        if key not in given:
            raise ValueError(f'{where} has no {key}')
    unread = [key for key in given if key not in _KEYS and not key.startswith('_')]
    if unread:
        raise ValueError(
            f'{where}: {unread[0]} is unknown; accepted: {", ".join(sorted(_KEYS))}'
        )
    if unread := sorted(set(given['convert']) - set(_CONVERT)):
        raise ValueError(
            f'{where}: convert has {unread[0]}; accepted: {", ".join(_CONVERT)}'
        )
    stages = tuple(
        _stage(stage, given, f'{where}, stage {number}')
        for number, stage in enumerate(given['stages'], 1)
    )
    names = [stage.name for stage in stages]
    if not names or len(set(names)) != len(names):
        raise ValueError(f'{where} needs stages with different names, not {names}')
    for name in names:
        if name in (CONVERTED, STUDENT) or not _NAME.fullmatch(name):
            raise ValueError(
                f'{where}: the name {name!r} of a stage must have letters, digits, '
                f'".", "_" and "-" only, and must not be {CONVERTED} or {STUDENT}'
            )
    return Recipe(
        path.stem,
        found.pretty_text,
        given['width'],
        given['convert'],
        stages,
        _calibration(given.get('calibration', {}), where),
    )


def _calibration(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = dict(share=0.1, steps=300)
    if unknown := sorted(set(given) - set(found)):
        raise ValueError(
            f'{where}: calibration has {unknown[0]}; accepted: {", ".join(found)}'
        )
    found |= given
    share, steps = found['share'], found['steps']
    if not isinstance(share, int | float) or not 0 < share < 1:
        raise ValueError(f'{where}: calibration.share={share!r} must be in (0, 1)')
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f'{where}: calibration.steps={steps!r} must be at least 1')
    return found


def _stage(given: Any, recipe: Mapping[str, Any], where: str) -> Stage:
    if not isinstance(given, Mapping):
        raise ValueError(f'{where}: {given!r} must be a dict')
    unknown = [key for key in given if key not in _STAGE]
    if unknown:
        raise ValueError(
            f'{where}: {unknown[0]} is unknown; accepted: {", ".join(_STAGE)}'
        )
    for name, each in _STAGE.items():
        needed = each.default is MISSING and each.default_factory is MISSING
        if needed and name not in given:
            raise ValueError(f'{where} has no {name}')
    trains = given['trains']
    if trains != ALL and (
        isinstance(trains, str) or not set(trains) <= set(GROUPS) or not trains
    ):
        raise ValueError(
            f"{where}: trains={trains!r} must be 'all' or a list of {', '.join(GROUPS)}"
        )
    for name in ('share', 'lr'):
        if not isinstance(given[name], int | float) or not given[name] > 0:
            raise ValueError(f'{where}: {name}={given[name]!r} must be positive')
    schedule = dict(recipe.get('schedule', {})) | given.get('schedule', {})
    wrong = set(schedule) - {'warmup', 'decay', 'form', 'end'}
    if wrong:
        raise ValueError(
            f'{where}: schedule has {sorted(wrong)[0]}; accepted: warmup, decay, form, '
            'end'
        )
    try:
        check_form(schedule.get('form', 'linear'))
    except ValueError as error:
        raise ValueError(f'{where}: schedule: {error}') from None
    end = schedule.get('end', 0.0)
    if not isinstance(end, int | float) or not 0 <= end <= 1:
        raise ValueError(f'{where}: schedule.end={end!r} must be in [0, 1]')
    optim_wrapper = Config(dict(recipe['optim_wrapper']))
    optim_wrapper.merge_from_dict(dict(given.get('optim_wrapper', {})))
    wrapper = optim_wrapper.to_dict()
    if 'optimizer' not in wrapper:
        raise ValueError(f'{where}: optim_wrapper has no optimizer')
    own = [key for key in _OWN if key in wrapper]
    if 'lr' in wrapper['optimizer']:
        own.append('optimizer.lr')
    if own:
        raise ValueError(
            f'{where}: optim_wrapper.{own[0]} cannot be set: precision and '
            "accumulation follow from machine and budget, the rate is the stage's lr"
        )
    return Stage(
        **{
            **given,
            'trains': trains if trains == ALL else tuple(trains),
            'schedule': schedule,
            'lengths': tuple(given.get('lengths', ())),
            'optim_wrapper': wrapper,
        }
    )
