"""The plan of a vision encoder's conversion."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmtransmamba.models.folders.encoder import PretrainedEncoder
from mmtransmamba.models.language import ATTENTION, MAMBA, choose_layers
from mmtransmamba.models.language.mixers import mixer_class
from mmtransmamba.models.vision import ENCODERS
from mmtransmamba.transfer.convert.encoder_spec import EncoderConversion
from mmtransmamba.transfer.convert.hybrid_config import DROPPED, check_not_quantised
from mmtransmamba.transfer.convert.plan import LayersPlan, target_shapes


class EncoderPlan(LayersPlan):
    """Plan for a vision encoder, with its head if it has one.

    Embeddings, class token, norms, feed-forward layers and head are the teacher's.
    """

    @classmethod
    def of(
        cls, teacher: PretrainedEncoder, conversion: EncoderConversion
    ) -> EncoderPlan:
        hybrid, source = teacher.hybrid, teacher.source
        mixers = f'{hybrid.block_list}.{{i}}.{hybrid.attention_name}.'
        first = mixers.replace('{i}', '0')
        config = encoder_config(
            teacher.config,
            conversion,
            in_bias=any(f'{first}{name}_proj.bias' in source for name in 'qkv'),
            out_bias=any(f'{first}{name}.bias' in source for name in _OUTPUTS),
        )
        shapes = target_shapes(hybrid, config)
        return cls(teacher, conversion, config, source, shapes, mixers)

    @property
    def model_class(self) -> type[nn.Module]:
        return self.teacher.hybrid

    @property
    def dtype(self) -> torch.dtype:
        return next(t.dtype for t in self._tensors.values() if t.is_floating_point())


_OUTPUTS = ('o_proj', 'out_proj')


def encoder_config(
    teacher: Any, conversion: EncoderConversion, in_bias: bool, out_bias: bool
) -> Any:
    """Derive a hybrid encoder's config from that of its Transformer.

    Args:
        teacher: Config of a transformers model of one of the families in
            :data:`~mmtransmamba.models.vision.ENCODERS`.
        conversion: The requested conversion.
        in_bias, out_bias: Whether the attention's q, k or v, and its output projection,
            have biases.

    Raises:
        ValueError: Unknown layers, or a quantised teacher.
    """
    check_not_quantised(teacher)
    given = teacher.to_dict()
    depth = teacher.num_hidden_layers
    chosen = choose_layers(depth, conversion.layers, conversion.ratio)
    for name in DROPPED:
        given.pop(name, None)
    has = dict(in_bias=in_bias, out_bias=out_bias)
    kind = mixer_class(conversion.mixer_type, conversion.mixers)
    mixer = {
        'type': conversion.mixer_type,
        **conversion.initialisation.fields,
        **{name: has[name] for name in kind.follows},
        **conversion.mixer_fields,
    }
    return ENCODERS[teacher.model_type].config(
        **given
        | dict(
            layer_types=[MAMBA if i in chosen else ATTENTION for i in range(depth)],
            mixer=mixer,
            transfer_history=[f'init:{conversion.init}'],
        )
    )
