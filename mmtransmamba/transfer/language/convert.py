"""Conversion of a pre-trained causal language model to a Mamba hybrid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from mmtransmamba.models.folders.assemble import assemble
from mmtransmamba.models.folders.lm import generation_config_of
from mmtransmamba.models.generation import repair_generation_config
from mmtransmamba.transfer.language.plan import plan_conversion
from mmtransmamba.transfer.language.ranking import automatic_layers
from mmtransmamba.transfer.subclone import SubcloneReport


def convert_lm(
    teacher: nn.Module | str | Path,
    layers: str | Sequence[int] = 'evenly',
    ratio: float = 1.0,
    init: str = 'mimic',
    seed: int = 0,
    mamba_checkpoint: str | Path | None = None,
    calibration: Sequence[Tensor] | str | Path = (),
    ranking: str = 'single',
    **fields: Any,
) -> tuple[nn.Module, SubcloneReport]:
    r"""Turn a causal language model into a hybrid with Mamba layers.

    Only the attention of the chosen layers is replaced. Everything else is the
    teacher's, weights included, and how it generates too.

    Args:
        teacher: A transformers causal language model, or its folder.
        layers, ratio: Which layers, see
            :func:`~mmtransmamba.models.language.choose_layers`; or ``'auto'``: those
            that cost least according to
            :func:`~mmtransmamba.transfer.language.automatic_layers`.
        init: What the mixers begin with.

            * ``'mimic'`` (mmMamba): Mamba-2 whose x, B, C and out_proj are v, k, q and
              o, with a decay close to 1, a convolution that passes its input on, and a
              small gate;
            * ``'inherit'``: the same projections, all else as in a new Mamba-2
              (mmMamba, Table 4);
            * ``'vkq'`` (MaTVLM): the same projections in the original Mamba-2 mixer;
            * ``'subclone'`` (TransMamba): Mamba-1 mixers from ``mamba_checkpoint``,
              with a convolution drawn from a normal distribution. The student may be
              shallower (it has the first layers) and narrower (it has the top-left
              blocks) than the teacher;
            * ``'scratch'``: nothing of the attention, as in a new Mamba-2.
        seed: Seed of what is drawn.
        mamba_checkpoint: File or folder of a Mamba-1 model, for ``'subclone'``.
        calibration: Text that ``'auto'`` measures on: batches of token ids ``[B, L]``,
            or a file for :func:`~mmtransmamba.transfer.language.read_calibration`.
        ranking: How ``'auto'`` ranks, see
            :func:`~mmtransmamba.transfer.language.rank_layers`.
        **fields: Fields of the student's config that differ, such as
            ``num_hidden_layers``, and ``mixer``, the type or fields of the mixers.

    Returns:
        The hybrid, in the teacher's dtype with float32 SSM parameters, and the account
        of every tensor. With ``'auto'`` its config has the ranking, which is printed.

    Raises:
        FileNotFoundError: A folder or file does not exist.
        ValueError: The teacher's family, a layer, a field or a shape does not fit.
    """
    costs = None
    if layers == 'auto':
        layers, costs = automatic_layers(
            teacher,
            calibration,
            ratio,
            init,
            ranking,
            seed,
            mamba_checkpoint,
            **fields,
        )
        print_log(f'\n{costs}', logger='current')
    plan = plan_conversion(
        teacher, layers, ratio, init, seed, mamba_checkpoint, **fields
    )
    if costs is not None:
        costs.note_in(plan.config)
    model = assemble(plan.model_class, plan.config, plan.tensors())
    model.generation_config = generation_config_of(teacher) or model.generation_config
    repair_generation_config(model)
    return model, plan.report()
