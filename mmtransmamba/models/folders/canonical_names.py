"""The weights of vision-language models under the current names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor

from mmtransmamba.models.folders.sources import TensorSource

DECODER = 'model.language_model.'
"""Prefixes of the decoder's names."""

# Folders retain the names of older versions of transformers.
_RENAMED = (
    (re.compile(r'^language_model\.model\.'), DECODER),
    (re.compile(r'^language_model\.lm_head\.'), 'lm_head.'),
    (re.compile(r'^(vision_tower|multi_modal_projector)\.'), r'model.\1.'),
    (re.compile(r'^image_newline$'), 'model.image_newline'),
    (re.compile(r'^(model\.vision_tower\.)vision_model\.'), r'\1'),
)


def canonical(name: str) -> str:
    """A tensor's name, whichever version of transformers wrote it."""
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


class RenamedSource(TensorSource):
    """Tensors of another source under other names.

    Args:
        source: The tensors.
        names: Maps each name here to the name in the source.
    """

    def __init__(self, source: TensorSource, names: dict[str, str]) -> None:
        self._source = source
        self._names = names

    def __getitem__(self, name: str) -> Tensor:
        return self._source[self._names[name]]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(self._names[name])

    def is_real(self, name: str) -> bool:
        return self._source.is_real(self._names[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def under_canonical_names(source: TensorSource) -> TensorSource:
    """All tensors of a vision-language model."""
    return RenamedSource(source, {canonical(name): name for name in source})


def language_part(source: TensorSource) -> TensorSource:
    """Decoder and head of a vision-language model, as a causal language model's.

    Args:
        source: The vision-language model's tensors under canonical names.
    """
    names = {text_name(name): name for name in source}
    return RenamedSource(source, {k: v for k, v in names.items() if k is not None})


def text_name(name: str) -> str | None:
    """A canonical name in the causal language model, None if it is not part of it."""
    if name.startswith(DECODER):
        return 'model.' + name.removeprefix(DECODER)
    return name if name.startswith('lm_head.') else None
