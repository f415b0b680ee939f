"""Which trainings the study of ``vision.py`` has, and in which order."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _cifar10_weights import cifar10_teacher
from mmengine.config import Config

from mmtransmamba.apis.configs import read_config
from mmtransmamba.transfer.weight_maps.vit_to_plainmamba import vit_to_plainmamba

CONFIGS = Path(__file__).absolute().parents[2] / 'configs' / 'quickstart'
IMAGENETTE, CIFAR10 = 'imagenette', 'cifar10'
"""Data sets of the rows, and how the names of their configs begin."""
RECORDED_LAYERS = (3, 7, 11)
SWEEP_SEED = 100
SWEEP_ALPHAS = (0.2, 0.5, 0.8)

BACKBONES = CONFIGS.parent / '_base_' / 'models'
FAMILIES = dict(
    vim=dict(in_channels=192, blocks=6, directions=2),
    vmamba=dict(in_channels=256, blocks=5, directions=4),
    vrwkv=dict(in_channels=192, blocks=6, directions=2),
)
"""The other students: width of their head, blocks, and directions of a block."""
UNIFORM = dict(_delete_=True, type='mmtransmamba.UniformWeighting')
FADING = ('feature', 'layer', 'direction')


@dataclass(frozen=True)
class Row:
    """A row of a table: what a student learns from.

    Attributes:
        name: In file names and tables.
        title: What it is, in words.
        terms: Terms of the transfer's config that are kept; none trains the student
            alone.
        uniform: Whether layers weigh the same, instead of adaptively.
        extra: Other terms, by name.
        proportion: Part of the images.
        teacher_layer: Layer whose tokens supervise, counted from 0; None for the last.
        subclone: Whether the student starts from the teacher's weights.
        inherit: Options of the :class:`~mmtransmamba.SubcloneInitializer`.
        gradients: Whether the gradients of the terms are recorded, which changes
            nothing in the training.
        family: Which of the other students; None for the PlainMamba.
        data: What it learns from.
        fades: Whether the feature terms fade out where logits can take over.
        weights: Weights of terms, by name; the config's for others.
        balanced: Whether a hook keeps the gradients of the feature terms as large as
            that of the logits.
    """

    name: str
    title: str
    terms: tuple[str, ...] = ()
    uniform: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    proportion: float = 1.0
    teacher_layer: int | None = None
    subclone: bool = False
    inherit: dict[str, Any] = field(default_factory=dict)
    gradients: bool = False
    family: str | None = None
    data: str = IMAGENETTE
    fades: bool = True
    weights: dict[str, float] = field(default_factory=dict)
    balanced: bool = False

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher answers during the training."""
        return bool(self.terms or self.extra)


@dataclass(frozen=True)
class Run:
    """One training."""

    row: Row
    seed: int
    alpha: float | None = None

    @property
    def key(self) -> str:
        """Its name: the row's, with the value of a sweep, and the seed."""
        swept = '' if self.alpha is None else f'_alpha{self.alpha}'
        return f'{self.row.name}{swept}_seed{self.seed}'


LOGITS = ('logits',)
BASIC = ('logits', 'feature')
FULL = ('logits', 'feature', 'layer', 'direction')
BEST: dict[str, Any] = dict(terms=BASIC, fades=False, balanced=True)
"""The row that is best on the PlainMamba."""
BEST_TITLE = 'feature + logits, none fades, `TermBalanceHook`'


def _rival(kind: str, **arguments: Any) -> dict[str, Any]:
    return {'rival': dict(type=f'mmtransmamba.{kind}', **arguments)}


FRESH_RULES = {fresh.key for fresh in vit_to_plainmamba().fresh}
DT_RULES = {'dt_weight', 'dt_bias'}
NOTHING = {'layers.0.norm.bias': 'whole', '*': 'skip'}
"""What is inherited if nothing is: one bias of 192 values, since none is refused."""


def _kept(rules: set[str]) -> dict[str, str]:
    return dict.fromkeys(sorted(rules), 'keep')


ROWS: dict[str, list[Row]] = {
    'decisive': [
        Row('baseline', 'the student alone'),
        Row('logits', 'logits', LOGITS),
        Row(
            'full',
            'direction + adaptive layer + feature + logits',
            FULL,
            gradients=True,
        ),
    ],
    'terms': [
        Row('feature', 'feature (FitNets on the final feature)', ('feature',)),
        Row('logits_feature', 'feature + logits', BASIC),
        Row('layer', 'layer + feature + logits', (*BASIC, 'layer'), uniform=True),
        Row(
            'direction',
            'direction + feature + logits',
            (*BASIC, 'direction'),
            uniform=True,
        ),
        Row('adapt_layer', 'adaptive layer + feature + logits', (*BASIC, 'layer')),
    ],
    'schedules': [
        Row('steady', 'feature + logits, none fades', BASIC, fades=False),
        # Gradients as large as that of the logits in the first third of "full".
        Row(
            'balanced',
            'feature × 4 + logits, none fades',
            BASIC,
            fades=False,
            weights={'feature': 4.0},
        ),
        Row('full_steady', 'full, none fades', FULL, fades=False),
        Row(
            'full_balanced',
            'full with feature and layer × 4, direction × 14, none fades',
            FULL,
            fades=False,
            weights={'feature': 4.0, 'layer': 4 / 6, 'direction': 14 / 24},
        ),
        Row('hook_balanced', BEST_TITLE, **BEST),
    ],
    'fewer': [
        *(
            Row(f'{name}_{100 * part:.0f}pct', f'{title}, {part:.0%}', terms, **more)
            for part in (0.25, 0.75, 0.5)
            for name, title, terms, more in (
                ('baseline', 'the student alone', (), dict(proportion=part)),
                ('full', 'full', FULL, dict(proportion=part)),
            )
        ),
        # Whether layers and directions help where labels are fewest.
        Row('logits_25pct', 'logits, 25%', LOGITS, proportion=0.25),
    ],
    'subclone': [
        Row('subclone', 'inherited weights alone', subclone=True),
        Row('logits_subclone', 'logits, inherited weights', LOGITS, subclone=True),
        Row('full_subclone', 'full, inherited weights', FULL, subclone=True),
        Row(
            'hook_balanced_subclone',
            f'{BEST_TITLE}, inherited weights',
            subclone=True,
            **BEST,
        ),
    ],
    # What of the inherited weights helps: the values or the rules for the others.
    'inherited': [
        Row(
            'subclone_rules',
            "the initializer's rules for fresh weights alone",
            subclone=True,
            inherit=dict(rules=NOTHING),
        ),
        Row(
            'subclone_dt',
            "the initializer's rules for dt alone",
            subclone=True,
            inherit=dict(rules=NOTHING, fresh=_kept(FRESH_RULES - DT_RULES)),
        ),
        Row(
            'subclone_values',
            "inherited values, the others as the model's initialisation has them",
            subclone=True,
            inherit=dict(fresh=_kept(FRESH_RULES)),
        ),
    ],
    'rivals': [
        Row('hard_label', "DeiT's hard labels", extra=_rival('HardLabelTerm')),
        Row('relation', 'RKD + logits', LOGITS, extra=_rival('RelationTerm')),
        Row(
            'attention',
            'attention transfer + logits',
            LOGITS,
            extra=_rival('AttentionMapTerm'),
        ),
    ],
    'layers': [
        Row('full_layer4', 'full, teacher layer 4 of 12', FULL, teacher_layer=3),
        Row('full_layer8', 'full, teacher layer 8 of 12', FULL, teacher_layer=7),
    ],
    'families': [
        Row(f'{family}_{name}', title, family=family, **more)
        for family in FAMILIES
        for name, title, more in (
            ('baseline', 'the student alone', {}),
            ('hook_balanced', BEST_TITLE, BEST),
            ('full_75pct', 'full, 75%', dict(terms=FULL, proportion=0.75)),
        )
    ],
    'cifar10': [
        Row(f'cifar10_{name}', title, data=CIFAR10, **more)
        for name, title, more in (
            ('baseline', 'the student alone', {}),
            ('logits', 'logits', dict(terms=LOGITS)),
            ('full', 'full', dict(terms=FULL)),
            ('hook_balanced', BEST_TITLE, BEST),
        )
    ],
}

BY_NAME = {row.name: row for part in ROWS.values() for row in part}


def plan(parts: list[str], seeds: list[int]) -> list[Run]:
    """All runs of some parts of the study, seed by seed within each part."""
    runs = []
    for part in parts:
        if part == 'sweep':
            runs += sweep()
        else:
            runs += [Run(row, seed) for seed in seeds for row in ROWS[part]]
    return runs


def sweep() -> list[Run]:
    """Alpha of the rows that are compared most."""
    return [
        Run(BY_NAME[name], SWEEP_SEED, alpha)
        for alpha in SWEEP_ALPHAS
        for name in ('logits', 'feature', 'full', 'hook_balanced')
    ]


def _hooks(row: Row) -> list[dict]:
    hooks: list[dict] = []
    fading = [name for name in FADING if name in row.terms]
    # Without logits nothing would take over from them.
    if row.fades and fading and 'logits' in row.terms:
        hooks.append(dict(type='mmtransmamba.TermDecayHook', terms=fading, end=0.6))
    if row.balanced:
        hooks.append(dict(type='mmtransmamba.TermBalanceHook', terms=fading))
    if {'layer', 'direction'} & set(row.terms):
        hooks.append(dict(type='mmtransmamba.LayerWeightsHook', interval=20))
    if row.gradients:
        hooks.append(dict(type='mmtransmamba.TermGradientsHook', interval=20))
    return hooks


def _student_options(row: Row) -> dict[str, Any]:
    """The options that put another student in the place of the PlainMamba."""
    if row.family is None:
        return {}
    sizes = FAMILIES[row.family]
    student = 'model.student' if row.terms else 'model'
    backbone = read_config(BACKBONES / f'{row.family}_imagenette.py').backbone
    options = {
        f'{student}.backbone': dict(backbone, _delete_=True),
        f'{student}.head.in_channels': sizes['in_channels'],
    }
    if row.family == 'vim':
        # Its output is the class token.
        options[f'{student}.neck'] = None
    # The weights turn sums over blocks and directions into means.
    if 'layer' in row.terms:
        options['model.terms.layer.weight'] = 1 / sizes['blocks']
    if 'direction' in row.terms:
        weight = 1 / (sizes['blocks'] * sizes['directions'])
        options['model.terms.direction.weight'] = weight
    return options


def config_of(run: Run, args: argparse.Namespace) -> Config:
    """The complete config of a run."""
    row = run.row
    transfer = cfg = read_config(CONFIGS / f'{row.data}_transfer.py')
    if not row.has_teacher:
        cfg = read_config(CONFIGS / f'{row.data}_scratch.py')
    hooks = _hooks(row)
    options: dict[str, Any] = {'randomness.seed': run.seed, **_places(row, args)}
    options['train_dataloader.dataset.proportion'] = (
        row.proportion * cfg.train_dataloader.dataset.proportion
    )
    if row.has_teacher:
        for name in transfer.model.terms:
            if name not in row.terms:
                options[f'model.terms.{name}'] = None
            elif row.uniform and 'weighting' in transfer.model.terms[name]:
                options[f'model.terms.{name}.weighting'] = UNIFORM
        for name, term in row.extra.items():
            options[f'model.terms.{name}'] = term
        for name, weight in row.weights.items():
            options[f'model.terms.{name}.weight'] = weight
    if row.teacher_layer is not None:
        options['model.teacher_layer'] = row.teacher_layer
        options['train_dataloader.dataset.dataset.layers'] = [row.teacher_layer]
    if run.alpha is not None:
        # Images of the training split that no student learns from.
        options['model.alpha'] = run.alpha
        for place in ('val_dataloader.dataset.dataset', 'test_dataloader.dataset'):
            options[f'{place}.split'] = 'train'
            options[f'{place}.indices'] = HELD_OUT
        options['val_dataloader.dataset.proportion'] = 0.5
    options |= _student_options(row)
    if row.subclone:
        hook = dict(type='mmtransmamba.SubcloneInitializer', **row.inherit)
        if not row.has_teacher:
            teacher = str(args.data / 'deit_tiny')
            hook['teacher'] = dict(transfer.model.teacher, model=teacher)
            hook['teacher'].pop('class_order')
        hooks.insert(0, hook)
    cfg.merge_from_dict(options)
    cfg.custom_hooks = hooks
    return cfg


def _places(row: Row, args: argparse.Namespace) -> dict[str, str]:
    """Where a row's images and its teacher are."""
    imagenette = row.data == IMAGENETTE
    images = str(args.data / ('imagenette96' if imagenette else 'cifar10'))
    places = {
        'train_dataloader.dataset.dataset.data_root': str(views_of(args))
        if imagenette
        else images,
        'val_dataloader.dataset.dataset.data_root': images,
        'test_dataloader.dataset.data_root': images,
    }
    if row.has_teacher and imagenette:
        places['model.teacher.model'] = str(args.data / 'deit_tiny')
    elif row.has_teacher:
        places['model.teacher.checkpoint'] = str(cifar10_teacher(args.out))
    return places


TRAINING_IMAGES = 8000
"""Images of the training split from whose beginning the students' are drawn."""
HELD_OUT = -1000
"""Images from its end, for the sweep."""


def views_of(args: argparse.Namespace) -> Path:
    """Where the recorded views are."""
    return args.work_dir / 'views'
