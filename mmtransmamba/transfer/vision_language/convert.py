"""Conversion of a pre-trained vision-language model to a Mamba hybrid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from mmtransmamba.models.fit import check_depth
from mmtransmamba.models.folders.assemble import assemble
from mmtransmamba.models.folders.canonical_names import (
    DECODER,
    canonical,
    language_part,
    text_name,
)
from mmtransmamba.models.folders.lm import generation_config_of
from mmtransmamba.models.folders.sources import TensorSource
from mmtransmamba.models.folders.vlm import language_model_of, read_vlm
from mmtransmamba.models.generation import repair_generation_config
from mmtransmamba.models.language.hybrid import HybridCausalLMMixin
from mmtransmamba.models.multimodal.llava import HybridLlavaConfig
from mmtransmamba.transfer.language.calibration import read_calibration
from mmtransmamba.transfer.language.plan import (
    ConversionPlan,
    check_kinds,
    inherited_step,
    open_mamba,
    target_shapes,
)
from mmtransmamba.transfer.language.ranking import LayerRanking, automatic_layers
from mmtransmamba.transfer.language.student import hybrid_config, init_of
from mmtransmamba.transfer.subclone import Entry, SubcloneReport, Unused


class VisionLanguagePlan:
    """The steps that make a hybrid vision-language model's weights.

    Its decoder is converted as a language model is; vision tower, projector and head
    are the teacher's.

    Args:
        config: Config of the hybrid.
        model_class: Its class.
        teacher: The teacher's tensors under canonical names.
        init, seed, mamba: See
            :class:`~mmtransmamba.transfer.language.plan.ConversionPlan`.

    Raises:
        ValueError: A tensor has no source, or one that does not fit.
    """

    def __init__(
        self,
        config: Any,
        model_class: type[nn.Module],
        teacher: TensorSource,
        init: str,
        seed: int = 0,
        mamba: TensorSource | None = None,
    ) -> None:
        self.config = config
        self.model_class = model_class
        self._teacher = teacher
        self._mamba = mamba
        shapes = target_shapes(model_class, config)
        # The version's own names of the tensors, by the canonical ones.
        self._names = {canonical(name): name for name, _ in shapes}
        decoder = [(n, shape) for n, shape in shapes if n.startswith(DECODER)]
        self.text = ConversionPlan(
            config.get_text_config(),
            language_part(teacher),
            init,
            seed,
            mamba,
            shapes=[(text_name(name), shape) for name, shape in decoder],
        )
        blocks = init_of(self.text.config.mixer['type'], init).blocks
        self._inherited = [
            inherited_step(canonical(name), shape, teacher, blocks)
            for name, shape in shapes
            if not name.startswith(DECODER)
        ]
        check_kinds(self._inherited, teacher)

    def __len__(self) -> int:
        return len(self.text) + len(self._inherited)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Make the tensors, one at a time; see :meth:`ConversionPlan.tensors`."""
        for step in self._inherited:
            tensor = step.tensor().to(self.text.dtype)
            yield self._names[step.entry.target], tensor.contiguous().clone()
        for name, tensor in self.text.tensors():
            yield DECODER + name.removeprefix('model.'), tensor

    def report(self) -> SubcloneReport:
        """The account of the conversion, of every tensor of the whole model."""
        report = self.text.report()
        part = set(language_part(self._teacher))

        def renamed(entry: Entry) -> Entry:
            source = entry.source
            if source in part:
                source = DECODER + source.removeprefix('model.')
            target = DECODER + entry.target.removeprefix('model.')
            return dataclasses.replace(entry, target=target, source=source)

        inherited = [step.entry for step in self._inherited]
        report.entries = inherited + [renamed(entry) for entry in report.entries]
        used = {entry.source for entry in report.entries}
        report.unused = [
            Unused(name, source.shape(name))
            for source in [self._teacher, *([self._mamba] if self._mamba else [])]
            for name in source
            if name not in used
        ]
        report.weight_map = f'{self.config.model_type} of {report.weight_map}'
        return report


def plan_vlm_conversion(
    teacher: nn.Module | str | Path,
    layers: str | Sequence[int] = 'evenly',
    ratio: float = 1.0,
    init: str = 'mimic',
    seed: int = 0,
    mamba_checkpoint: str | Path | None = None,
    **fields: Any,
) -> VisionLanguagePlan:
    """Check a conversion and say what it would do; see :func:`convert_vlm`."""
    config, source = read_vlm(teacher)
    check_depth(config, language_part(source), 'The teacher')
    text = hybrid_config(config.get_text_config(), layers, ratio, init, **fields)
    mamba = open_mamba(mamba_checkpoint, init_of(text.mixer['type'], init))
    student = _with_text(config, text)
    model_class = AutoModelForImageTextToText._model_mapping.get(type(student), None)
    if model_class is None or not issubclass(model_class, HybridCausalLMMixin):
        raise ValueError(
            f'The teacher is a {config.model_type!r}; hybrids exist of llava, '
            'hybrid_llava (a LLaVA of this package) and patch_decoder.'
        )
    return VisionLanguagePlan(student, model_class, source, init, seed, mamba)


def convert_vlm(
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
    """Turn a vision-language model into a hybrid with Mamba layers.

    Only the attention of the chosen layers of its language model is replaced. Vision
    tower, projector and everything else are the teacher's.

    Args:
        teacher: A transformers vision-language model, or its folder: LLaVA or a
            decoder-only model of this package.
        layers, ratio, init, seed, mamba_checkpoint, ranking, fields: See
            :func:`~mmtransmamba.transfer.language.convert_lm`. A student that is
            narrower than its teacher (``init='subclone'``) has the top-left blocks of
            the projector, too.
        calibration: Text that ``layers='auto'`` measures on, likewise; the language
            model is measured without images.

    Returns:
        The hybrid, in the dtype of the teacher's embeddings with float32 SSM
        parameters, and the account of every tensor.

    Raises:
        FileNotFoundError: A folder or file does not exist.
        ValueError: The teacher's family, a layer, a field or a shape does not fit.
    """
    costs = None
    if layers == 'auto':
        layers, costs = automatic_text_layers(
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
    plan = plan_vlm_conversion(
        teacher, layers, ratio, init, seed, mamba_checkpoint, **fields
    )
    if costs is not None:
        costs.note_in(plan.config)
    model = assemble(plan.model_class, plan.config, plan.tensors())
    model.generation_config = generation_config_of(teacher) or model.generation_config
    repair_generation_config(model)
    return model, plan.report()


def automatic_text_layers(
    teacher: nn.Module | str | Path,
    calibration: Sequence[Tensor] | str | Path,
    *args: Any,
    **kwargs: Any,
) -> tuple[list[int], LayerRanking]:
    """The layers of the language model whose conversion costs least.

    See :func:`~mmtransmamba.transfer.language.automatic_layers`.
    """
    if isinstance(calibration, str | Path):
        folder = teacher.name_or_path if isinstance(teacher, nn.Module) else teacher
        calibration = read_calibration(calibration, folder)
    return automatic_layers(language_model_of(teacher), calibration, *args, **kwargs)


def _with_text(config: Any, text: Any) -> Any:
    """A vision-language model's config with another text model."""
    fields = config.to_dict()
    for name in ('model_type', 'architectures', 'transformers_version', 'dtype'):
        fields.pop(name, None)
    text.tie_word_embeddings = config.tie_word_embeddings
    config_class = HybridLlavaConfig if config.model_type == 'llava' else type(config)
    fields['text_config'] = text.to_dict()
    return config_class(**fields)
