"""Conversion of a pre-trained Transformer to a Mamba hybrid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmtransmamba.models.folders.assemble import assemble
from mmtransmamba.models.folders.encoder import is_encoder
from mmtransmamba.models.folders.pretrained import Pretrained
from mmtransmamba.models.folders.vlm import language_model_of
from mmtransmamba.models.generation import repair_generation_config
from mmtransmamba.registry import CONVERSIONS
from mmtransmamba.transfer.convert.calibrating import CALIBRATION_STEPS, calibrate
from mmtransmamba.transfer.convert.calibration import read_calibration, split_held_out
from mmtransmamba.transfer.convert.candidates import check_ids, check_width
from mmtransmamba.transfer.convert.card_facts import card_facts
from mmtransmamba.transfer.convert.encoder_conversion import plan_encoder_conversion
from mmtransmamba.transfer.convert.encoder_plan import EncoderPlan
from mmtransmamba.transfer.convert.encoder_spec import EncoderConversion
from mmtransmamba.transfer.convert.plain_vit import as_transformers
from mmtransmamba.transfer.convert.plan import LanguagePlan, Plan
from mmtransmamba.transfer.convert.proof import prove
from mmtransmamba.transfer.convert.ranking import cheapest_layers, read_choice
from mmtransmamba.transfer.convert.spec import Conversion
from mmtransmamba.transfer.convert.vlm_plan import VisionLanguagePlan
from mmtransmamba.transfer.subclone import SubcloneReport
from mmtransmamba.utils.evaluation_mode import evaluating


@CONVERSIONS.register_module('hybrid')
def convert(
    teacher: nn.Module | str | Path,
    layers: str | Sequence[int] = 'evenly',
    ratio: float = 1.0,
    init: str = 'mimic',
    **options: Any,
) -> tuple[nn.Module, SubcloneReport]:
    """Turn a Transformer into a hybrid with Mamba layers.

    Only the attention of the chosen layers is replaced, and initialises the mixers.
    Everything else is the teacher's, including its generation settings.

    Args:
        teacher: A transformers model, its folder, or a GGUF file: a language model, a
            vision-language model, of which only the inner language model is converted
            (ranking measures it without images), or a vision encoder such as ViT, DeiT,
            DINOv2, DINOv3 or the vision tower of CLIP and SigLIP. A ViT or DeiT
            classifier of timm or mmpretrain in memory becomes one of transformers
            first, see :func:`~mmtransmamba.transfer.convert.plain_vit.as_transformers`.
        layers: The layers to convert: a position of
            :func:`~mmtransmamba.models.language.choose_layers` such as ``'evenly'`` or
            ``'late'``, indices, ``'auto'`` for those whose conversion costs least
            on ``calibration``, or the ``.json`` file of a ranking.
        ratio: Share of the layers that become Mamba.
        init: Initialisation of the mixers, see :class:`Conversion`; for a vision
            encoder,
            :class:`~mmtransmamba.transfer.convert.encoder_spec.EncoderConversion`.
        **options: Other attributes of these classes, such as ``mixer``, and for
            language models fields of the student's config.

    Returns:
        The hybrid, a transformers model in the dtype of the teacher's embeddings with
        float32 SSM parameters, and the report on every tensor. With ``'auto'``, its
        config contains the ranking, which is also logged.

    Raises:
        FileNotFoundError: A folder or file does not exist.
        TypeError: The teacher is not a transformers model.
        ValueError: The teacher's family, a layer, a field or a shape does not fit.
    """
    teacher = as_transformers(teacher)
    given = dict(layers=layers, ratio=ratio, init=init)
    spec = EncoderConversion if is_encoder(teacher) else Conversion
    plan, model = _plan(teacher, spec.of(**given, **options))
    if plan.ranking is not None:
        print_log(f'\n{plan.ranking}', logger='current')
    is_language = not isinstance(plan, EncoderPlan)
    if model is None:
        model = _assembled(plan)
    if is_language:
        model.generation_config = (
            plan.teacher.generation_config or model.generation_config
        )
        repair_generation_config(model)
    report = plan.report()
    model.card = card_facts(plan, report)
    return model, report


def plan_conversion(
    teacher: nn.Module | str | Path, conversion: Conversion | None = None
) -> Plan:
    """Check a conversion, rank the layers if requested, and plan every tensor.

    Args:
        teacher: See :func:`convert`.
        conversion: The requested conversion, an
            :class:`~mmtransmamba.transfer.convert.encoder_spec.EncoderConversion` for a
            vision encoder.
    """
    return _plan(as_transformers(teacher), conversion)[0]


def _plan(
    teacher: nn.Module | str | Path, conversion: Conversion | None
) -> tuple[Plan, nn.Module | None]:
    """The plan, and the hybrid if it was built to be compared."""
    spec = EncoderConversion if is_encoder(teacher) else Conversion
    conversion = conversion or spec()
    exists = isinstance(teacher, nn.Module) or Path(teacher).exists()
    if exists and type(conversion) is not spec:
        raise ValueError(
            f'The conversion is a {type(conversion).__name__}; for this teacher it '
            f'must be a {spec.__name__}.'
        )
    if spec is EncoderConversion:
        return plan_encoder_conversion(teacher, conversion), None
    pretrained, ranking = Pretrained(teacher), None
    if isinstance(conversion.calibration, str | Path):
        batches = read_calibration(
            conversion.calibration,
            pretrained.language.tokenizer_folder,
            conversion.calibration_tokens,
        )
        conversion = replace(conversion, calibration=batches)
    if conversion.layers == 'auto':
        layers, ranking = cheapest_layers(pretrained.language, conversion)
        conversion, unseen = replace(conversion, layers=layers), False
    else:
        conversion, ranking = read_choice(conversion, pretrained.language.config)
        unseen = True if ranking is None else None
    kind = VisionLanguagePlan if pretrained.is_vision_language else LanguagePlan
    plan = kind.of(pretrained, conversion)
    if ranking is not None:
        plan.ranking = ranking
        ranking.note_in(plan.config)
    hybrid = None
    if conversion.calibration:
        hybrid = _calibrate(plan, pretrained.language, conversion, unseen)
    return plan, hybrid


def _calibrate(
    plan: Plan, teacher: Pretrained, conversion: Conversion, unseen: bool | None
) -> nn.Module:
    """Fit the mixers to the text if requested, and compare the hybrid on the rest.

    Args:
        plan: The plan.
        teacher: The language model.
        conversion: Its specification.
        unseen: Whether no choice of layers has read the text, None if unknown.

    Returns:
        The hybrid, on the CPU.
    """
    fit, held = split_held_out(conversion.calibration)
    check_ids([*fit, *held], teacher.config.vocab_size)
    model, language = teacher.load(), plan.language
    with evaluating(model):
        if conversion.initialisation.calibrated:
            check_width(teacher.config, conversion.fields)
            steps = conversion.calibration_steps
            steps = CALIBRATION_STEPS if steps is None else steps
            mixers = {i: language.mixer(i) for i in language.config.mamba_layers}
            calibrate(model, mixers, fit, steps, conversion.seed)
            count = sum(batch.numel() for batch in fit)
            language.calibrate(mixers, f'fitted on {count:,} tokens, {steps} steps')
        hybrid = _assembled(plan)
        inner = hybrid if language is plan else language_model_of(hybrid)
        device = next(model.parameters()).device
        plan.proof = prove(inner.to(device), model, held, unseen)
        return hybrid.cpu()


def _assembled(plan: Plan) -> nn.Module:
    return assemble(plan.model_class, plan.config, plan.tensors())
