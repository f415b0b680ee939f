"""The complete config of a stage's training."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from mmtransmamba.apis.configs import config_folder
from mmtransmamba.apis.recipes.plan import PlannedStage
from mmtransmamba.apis.recipes.recipe import ALL, Stage
from mmtransmamba.apis.recipes.request import Request
from mmtransmamba.apis.recipes.text import TransferText
from mmtransmamba.models.trainable.stages import GROUPS

CHECKPOINTS = 10
VALIDATIONS = 4
LOGS = 50


def distiller_of(stage: Stage, planned: PlannedStage) -> dict[str, Any]:
    """Arguments of the :class:`~mmtransmamba.transfer.LanguageDistiller`."""
    return dict(
        stage=planned.name,
        trains=list(GROUPS) if stage.trains == ALL else list(stage.trains),
        terms=stage.terms,
        adapters=stage.adapters,
    )


def stage_config(
    request: Request,
    stage: Stage,
    planned: PlannedStage,
    text: TransferText,
    student: str,
    before: str,
) -> Config:
    """The config of a stage, for :func:`mmtransmamba.train`.

    Args:
        request: The request.
        stage: The stage of the recipe.
        planned: Its numbers.
        text: The text.
        student: Folder of the student.
        before: The student's last step.
    """
    on_cpu = get_device() == 'cpu'
    cfg = Config.fromfile(config_folder() / '_base_/iter_language_runtime.py')
    lm = dict(type='mmtransmamba.CausalLM', path=str(student))
    cfg.model = dict(
        type='mmtransmamba.LanguageDistiller',
        student=dict(lm, dtype='float32'),
        teacher=dict(lm, path=request.teacher, dtype=None if on_cpu else 'bfloat16'),
        requires=before,
        **distiller_of(stage, planned),
    )
    iterations = planned.steps * planned.accumulate
    cfg.train_dataloader = _loader(
        text.train(planned.length, stage.completion_only),
        planned.rows // planned.accumulate,
        dict(type='InfiniteSampler', shuffle=True),
    )
    cfg.val_dataloader = _loader(
        text.validation(),
        max(1, 2048 // text.block),
        dict(type='DefaultSampler', shuffle=False),
    )
    cfg.val_evaluator = dict(type='mmtransmamba.TokenMetric')
    cfg.val_cfg = dict()
    cfg.train_cfg = dict(
        type='IterBasedTrainLoop',
        max_iters=iterations,
        val_interval=_every(planned, VALIDATIONS),
    )
    cfg.optim_wrapper = optim_wrapper_of(stage, planned, on_cpu)
    cfg.param_scheduler = dict(
        type='mmtransmamba.WSD',
        by_epoch=False,
        eta_min_ratio=stage.schedule.get('end', 0.0),
        **{key: value for key, value in stage.schedule.items() if key != 'end'},
    )
    cfg.merge_from_dict(
        {
            'randomness.seed': request.seed,
            'default_hooks.checkpoint.interval': _every(planned, CHECKPOINTS),
            'default_hooks.checkpoint.max_keep_ckpts': 1,
            'default_hooks.logger.interval': _every(planned, LOGS),
        }
    )
    if any('weighting' in (term or ()) for term in stage.terms.values()):
        hook = dict(
            type='mmtransmamba.LayerWeightsHook', interval=_every(planned, LOGS)
        )
        cfg.custom_hooks = [*cfg.custom_hooks, hook]
    return cfg


def optim_wrapper_of(
    stage: Stage, planned: PlannedStage, on_cpu: bool
) -> dict[str, Any]:
    """Config of the stage's optimizer: the recipe's, with rate and precision."""
    given = dict(stage.optim_wrapper)
    wrapper = dict(type='OptimWrapper')
    if not on_cpu:
        wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16')
    paramwise = dict(bypass_duplicate=True) | given.pop('paramwise_cfg', {})
    return dict(
        **wrapper,
        constructor='mmtransmamba.NoWeightDecayConstructor',
        # Embeddings tied to the head occur twice.
        paramwise_cfg=paramwise,
        accumulative_counts=planned.accumulate,
        **given | dict(optimizer=given['optimizer'] | dict(lr=planned.lr)),
    )


def _loader(dataset: dict[str, Any], rows: int, sampler: dict) -> dict[str, Any]:
    return dict(
        batch_size=rows,
        num_workers=0,
        dataset=dataset,
        sampler=sampler,
        collate_fn=dict(type='mmtransmamba.collate_tokens'),
    )


def _every(planned: PlannedStage, times: int) -> int:
    """Iterations between events, a whole number of steps."""
    return max(1, planned.steps // times) * planned.accumulate
