"""Stages of a converted model's transfer: trained parameters and starting points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from mmtransmamba.models.trainable.step_average import zero_of

GROUPS = {
    'ssm': 'new parameters of the Mamba mixers',
    'qkv': 'their projections in the place of v, k, q',
    'out_proj': 'their output projections',
    'attention': 'attention that is left',
    'mlp': 'feed-forward layers',
    'norms': 'norms',
    'embeddings': 'embeddings',
    'head': 'language-modelling head, or classifier',
    'connector': 'connector of a vision encoder',
    'vision': 'vision encoder, or embedding of patches',
    'other': 'everything else',
}
"""Groups of parameters, and what is in them."""

LANGUAGE = (
    'ssm',
    'qkv',
    'out_proj',
    'attention',
    'mlp',
    'norms',
    'embeddings',
    'head',
    'other',
)
"""All groups of a language model."""


class StageError(ValueError):
    """A stage cannot start from the given student."""


@dataclass(frozen=True)
class Stage:
    """A stage of a recipe.

    Attributes:
        trains: Groups of parameters that are trained, None for all.
        requires: Patterns, one of which must match the last entry of the student's
            ``transfer_history``.
    """

    trains: tuple[str, ...] | None
    requires: tuple[str, ...]


_SEEDED = ('init:mimic', 'init:inherit', 'init:vkq', 'init:calibrate')
STAGES = {
    'stage1': Stage(('ssm',), _SEEDED),
    'stage2': Stage(('ssm', 'qkv'), ('stage1',)),
    'stage3': Stage(('ssm', 'qkv'), ('stage2',)),
    'matvlm': Stage(('ssm', 'qkv', 'out_proj', 'connector'), _SEEDED),
    'transmamba': Stage((*LANGUAGE, 'connector'), ('init:subclone',)),
    'llava_pretrain': Stage(('connector',), ('init:llava',)),
    'llava_finetune': Stage((*LANGUAGE, 'connector'), ('llava_pretrain',)),
    'reasoning': Stage((*LANGUAGE, 'connector'), ('llava_finetune',)),
    'vision_align': Stage(('ssm', 'qkv', 'out_proj'), _SEEDED),
    'vision_features': Stage(
        ('ssm', 'qkv', 'out_proj', 'mlp', 'norms'), ('vision_align',)
    ),
    'vision_tune': Stage(None, ('vision_align', 'vision_features')),
}
"""The stages of the published recipes.

* mmMamba's: ``stage1`` trains what the attention does not have (a, W_gamma, W_conv,
  W_G: ``A_log``, ``dt_bias``, ``dt_proj``, ``conv1d``, ``z_proj``, ``norm`` and ``D``
  where there is one), ``stage2`` and ``stage3`` W_Q, W_K, W_V besides. The output
  projection W_O stays as it is in all three, as Eq. 3 to 5 say. So does the share of
  trainable parameters in the paper's Table 1, 14.7 %, to which projections and gate of
  its 32 layers come without W_O, while with it there would be 20 %. The caption of its
  Figure 3, "train all the Mamba layers", can be read otherwise: add ``'out_proj'`` to
  ``trains`` for that.
* ``matvlm``: the Mamba mixers whole, and the connector of a vision-language model;
  feed-forward layers, norms, attention and embeddings are the teacher's.
* ``transmamba``: everything but a vision encoder. The paper freezes nothing; its
  teacher is a LLaVA, which keeps the vision encoder frozen, and so does the student.
* LLaVA's, of a teacher without distillation: ``llava_pretrain`` trains the connector of
  a model just put together, ``llava_finetune`` the language model besides, and so does
  ``reasoning`` (TransMamba §3.4). The vision encoder is frozen in all.
* Those of a converted vision encoder: ``vision_align`` trains the mixers,
  ``vision_features`` the rest of the layers besides, ``vision_tune`` the whole model.
"""


def group_of_parameters(model: nn.Module) -> dict[str, str]:
    """The group in :data:`GROUPS` of each parameter, by its name."""
    from mmtransmamba.models.language.mixers import AttentionMixer

    mixers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, AttentionMixer)
    }
    # The mixers of a converted tower beside a language model are the tower's.
    config = getattr(model, 'config', None)
    has_tower = config is not None and config.get_text_config() is not config
    groups = {}
    for name, _ in model.named_parameters():
        owner = next((m for m in mixers if name.startswith(m + '.')), None)
        if owner is None or (has_tower and 'vision' in owner):
            groups[name] = _outside(name)
            continue
        groups[name] = mixers[owner].group_of(name[len(owner) + 1 :])
    return groups


def _outside(name: str) -> str:
    """Group of a parameter outside the mixers."""
    for part, group in (
        ('multi_modal_projector', 'connector'),
        ('image_newline', 'connector'),
        ('vision', 'vision'),
        ('patch_embed', 'vision'),
        ('.self_attn.', 'attention'),
        ('.attention.', 'attention'),
        ('.mlp.', 'mlp'),
        ('norm', 'norms'),
        ('embed', 'embeddings'),
        ('lm_head', 'head'),
        ('classifier', 'head'),
    ):
        if part in name:
            return group
    return 'other'


def history_of(model: nn.Module) -> list[str]:
    """The transfer history of a language model's weights; empty if none is recorded."""
    config = model.config.get_text_config()
    return list(getattr(config, 'transfer_history', None) or [])


def parameters_for_images(model: nn.Module) -> list[nn.Parameter]:
    """The trained parameters for images, which not every batch contains."""
    groups = group_of_parameters(model)
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and groups[name] in ('connector', 'vision')
    ]


def touch_image_parameters(logits: Tensor, model: nn.Module) -> Tensor:
    """Add zero to the logits, with the parameters for images in its graph.

    A batch may have no image, and a vision tower's layers after the one that is read
    are never used.
    """
    if not torch.is_grad_enabled():
        return logits
    return logits + zero_of(parameters_for_images(model), logits.device)


def check_history(
    model: nn.Module, stage: str, requires: str | Sequence[str] | None = None
) -> None:
    """Refuse a student that a stage must not start from.

    Args:
        model: The student.
        stage: Name in :data:`STAGES`, or with ``requires`` any other.
        requires: Patterns to accept instead of the stage's own, for an ablation or a
            stage of another recipe.

    Raises:
        StageError: The stage is unknown, or the student's last step does not match.
    """
    if stage not in STAGES and requires is None:
        raise StageError(
            f'stage={stage!r} must be one of {", ".join(STAGES)}; a stage of another '
            'name needs requires and trains.'
        )
    if requires is None:
        requires = STAGES[stage].requires
    elif isinstance(requires, str):
        requires = (requires,)
    history = history_of(model)
    last = history[-1] if history else ''
    if not any(fnmatchcase(last, pattern) for pattern in requires):
        found = ' > '.join(history) or 'empty: no tool of this package made it'
        advice = 'Run the stage before and give the folder that it saved'
        if stage == 'llava_pretrain':
            advice = 'Put vision tower and language model together'
        elif any(name.startswith('init:') for name in requires):
            advice = 'Convert the teacher accordingly'
        raise StageError(
            f'Stage {stage!r} starts from a student whose last step was '
            f'{" or ".join(map(repr, requires))}. The history of this one is {found}. '
            f'{advice}; for an ablation that skips this set requires={last!r}.'
        )


def trained_in(stage: str) -> tuple[str, ...] | None:
    """The groups that a stage trains, None for all.

    Raises:
        StageError: It is a stage of another name, whose groups must be given.
    """
    if stage not in STAGES:
        raise StageError(
            f'Stage {stage!r} needs trains; groups are {", ".join(GROUPS)}.'
        )
    return STAGES[stage].trains


def freeze_all_but(model: nn.Module, trains: Sequence[str] | None) -> str:
    """Make only some groups of parameters trainable.

    Args:
        model: The student.
        trains: Their names, None for all.

    Returns:
        A table of trained and frozen parameters by group.

    Raises:
        StageError: A group is unknown, or the student has no parameter to train.
    """
    unknown = set(trains or ()) - set(GROUPS)
    if unknown:
        raise StageError(
            f'trains={list(trains)} names {sorted(unknown)}; groups are '
            f'{", ".join(GROUPS)}.'
        )
    groups = group_of_parameters(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trains is None or groups[name] in trains)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise StageError(
            f'The student has no parameters in {list(trains)}; nothing would be '
            'trained.'
        )
    return table_of_trained(model)


def table_of_trained(model: nn.Module) -> str:
    """Numbers of trained and frozen parameters by group."""
    groups = group_of_parameters(model)
    counts = {group: [0, 0] for group in GROUPS}
    for name, parameter in model.named_parameters():
        counts[groups[name]][0 if parameter.requires_grad else 1] += parameter.numel()
    trained, frozen = (sum(column) for column in zip(*counts.values(), strict=True))
    lines = [f'{"group":12}{"trained":>16}{"frozen":>16}']
    lines += [
        f'{group:12}{on:>16,}{off:>16,}  {GROUPS[group]}'
        for group, (on, off) in counts.items()
        if on + off
    ]
    share = 100 * trained / (trained + frozen)
    lines.append(f'{"all":12}{trained:>16,}{frozen:>16,}  {share:.1f} % are trained')
    return '\n'.join(lines)
