"""The plan of a vision-language model's conversion."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from mmtransmamba.models.folders.canonical_names import (
    DECODER,
    canonical,
    language_part,
    text_name,
)
from mmtransmamba.models.folders.pretrained import Pretrained
from mmtransmamba.models.language.hybrid import HybridCausalLMMixin
from mmtransmamba.models.multimodal.llava import HybridLlavaConfig
from mmtransmamba.models.multimodal.llava_next import HybridLlavaNextConfig
from mmtransmamba.models.multimodal.llava_onevision import HybridLlavaOnevisionConfig
from mmtransmamba.transfer.convert.hybrid_config import hybrid_config
from mmtransmamba.transfer.convert.plan import (
    LanguagePlan,
    Plan,
    check_kinds,
    inherited_step,
    target_shapes,
)
from mmtransmamba.transfer.convert.spec import Conversion
from mmtransmamba.transfer.subclone import Entry, SubcloneReport

_HYBRIDS = {
    'llava': HybridLlavaConfig,
    'llava_next': HybridLlavaNextConfig,
    'llava_onevision': HybridLlavaOnevisionConfig,
}


class VisionLanguagePlan(Plan):
    """Plan for a vision-language model.

    Its decoder is converted like a language model; vision tower, projector and head
    are the teacher's. A narrower student also has the top-left blocks of the
    projector.

    Args:
        teacher, conversion: See :class:`~mmtransmamba.transfer.convert.plan.Plan`.
        config: Config of the hybrid.
    """

    def __init__(
        self, teacher: Pretrained, conversion: Conversion, config: Any
    ) -> None:
        super().__init__(teacher, conversion)
        self.config = config
        shapes = target_shapes(self.model_class, config)
        # The tensor names of the installed version, by the canonical ones.
        self._names = {canonical(name): name for name, _ in shapes}
        decoder = [(n, shape) for n, shape in shapes if n.startswith(DECODER)]
        self.text = LanguagePlan(
            teacher,
            conversion,
            config.get_text_config(),
            language_part(teacher.source),
            [(text_name(name), shape) for name, shape in decoder],
        )
        blocks = conversion.initialisation.blocks
        self._inherited = [
            inherited_step(canonical(name), shape, teacher.source, blocks)
            for name, shape in shapes
            if not name.startswith(DECODER)
        ]
        check_kinds(self._inherited, teacher.source)

    @classmethod
    def of(cls, teacher: Pretrained, conversion: Conversion) -> VisionLanguagePlan:
        text = hybrid_config(teacher.config.get_text_config(), conversion)
        return cls(teacher, conversion, _with_text(teacher.config, text))

    @property
    def model_class(self) -> type[nn.Module]:
        kind = type(self.config)
        found = AutoModelForImageTextToText._model_mapping.get(kind, None)
        if found is None or not issubclass(found, HybridCausalLMMixin):
            raise ValueError(
                f'The teacher is a {self.teacher.config.model_type!r}; hybrids exist '
                f'of {", ".join(_HYBRIDS)}, their hybrids '
                f'({", ".join(kind.model_type for kind in _HYBRIDS.values())}) '
                'and patch_decoder.'
            )
        return found

    @property
    def language(self) -> LanguagePlan:
        """The plan of the inner causal language model."""
        return self.text

    def __len__(self) -> int:
        return len(self.text) + len(self._inherited)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for step in self._inherited:
            tensor = step.tensor().to(self.text.dtype)
            yield self._names[step.entry.target], tensor.contiguous().clone()
        for name, tensor in self.text.tensors():
            yield DECODER + name.removeprefix('model.'), tensor

    def report(self) -> SubcloneReport:
        """The report on the conversion, covering every tensor of the whole model."""
        report = self.text.report()
        part = set(language_part(self.teacher.source))

        def renamed(entry: Entry) -> Entry:
            source = entry.source
            if source in part:
                source = DECODER + source.removeprefix('model.')
            target = DECODER + entry.target.removeprefix('model.')
            return dataclasses.replace(entry, target=target, source=source)

        inherited = [step.entry for step in self._inherited]
        report.entries = inherited + [renamed(entry) for entry in report.entries]
        report.unused = self.unused(report.entries)
        report.proof = self.proof
        report.weight_map = f'{self.config.model_type} of {report.weight_map}'
        return report


def _with_text(config: Any, text: Any) -> Any:
    """A vision-language model's config with another text model."""
    fields = config.to_dict()
    for name in ('model_type', 'architectures', 'transformers_version', 'dtype'):
        fields.pop(name, None)
    text.tie_word_embeddings = config.tie_word_embeddings
    config_class = _HYBRIDS.get(config.model_type, type(config))
    fields['text_config'] = text.to_dict()
    return config_class(**fields)
