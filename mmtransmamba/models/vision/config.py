"""Config fields that turn a vision encoder into a hybrid."""

from __future__ import annotations

from mmtransmamba.models.language.config import HybridFields
from mmtransmamba.registry import ENCODER_MIXERS


class HybridEncoderFields(HybridFields):
    """The fields that a hybrid encoder's config adds to its Transformer's.

    They are those of :class:`~mmtransmamba.models.language.HybridFields`: layers with
    ``'linear_attention'`` in ``layer_types`` have a mixer of
    :data:`~mmtransmamba.registry.ENCODER_MIXERS`, the others the Transformer's
    attention (``'full_attention'``).
    """

    decodes = False
    mixers = ENCODER_MIXERS

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before the patches: class, distillation and registers."""
        return 1
