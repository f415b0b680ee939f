"""Mix-ins that turn a transformers vision encoder into a hybrid."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from types import MappingProxyType
from typing import Any, ClassVar

from torch import nn

from mmtransmamba.models.card_mixin import CardMixin
from mmtransmamba.models.language.mixers import build_mixer
from mmtransmamba.models.vision.mixers import EncoderMixer


def _without_mask(forward: Callable) -> Callable:
    """Make an encoder refuse a mask, which its mixers cannot follow.

    It is checked here because the Transformer turns a missing mask into one that hides
    nothing when it is exported.

    Raises:
        ValueError: Raised by the method if there is a mask.
    """
    names = list(inspect.signature(forward).parameters)
    place = names.index('attention_mask') if 'attention_mask' in names else None

    @wraps(forward)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get('attention_mask')
        if place is not None and len(args) >= place:
            mask = args[place - 1]
        if mask is not None and self.config.mamba_layers:
            raise ValueError(
                f'attention_mask {list(mask.shape)}: layers with a mixer see all '
                'tokens of an image. Leave it out.'
            )
        return forward(self, *args, **kwargs)

    return checked


class HybridEncoderMixin(CardMixin):
    """For an encoder: replaces attention according to ``layer_types`` of the config.

    Only the attention of these layers changes; embeddings, norms and feed-forward
    layers are the Transformer's own.

    Attributes:
        block_list: Dotted name of the list of layers.
        attention_name: Name of the attention in a layer.
        norm_name: Name of the norm in front of it.
    """

    block_list: ClassVar[str]
    attention_name: ClassVar[str] = 'attention'
    norm_name: ClassVar[str] = 'layernorm_before'

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.forward = _without_mask(cls.forward)

    def post_init(self) -> None:
        kept = set(self._keep_in_fp32_modules_strict or ())
        layers = self.get_submodule(self.block_list)
        for i in self.config.mamba_layers:
            mixer = build_mixer(self.config, i)
            setattr(layers[i], self.attention_name, mixer)
            kept |= {n for n, _ in mixer.named_parameters() if mixer.keeps_float32(n)}
        self._keep_in_fp32_modules_strict = kept
        super().post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EncoderMixer):
            module.reset_parameters()


class HybridHeadMixin(CardMixin):
    """For a model with a head on an encoder: replaces the encoder by its hybrid.

    With the Transformer's own encoder inside, transformers would save the weights under
    older names, which it does not translate back for a hybrid.

    Attributes:
        encoder_name: Name of the encoder in the model.
        encoder_class: Its hybrid class.
        encoder_options: Arguments of the encoder besides the config.
        block_list, attention_name, norm_name: As in :class:`HybridEncoderMixin`.
    """

    encoder_name: ClassVar[str]
    encoder_class: ClassVar[type[HybridEncoderMixin]]
    encoder_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        encoder = cls.encoder_class
        cls.config_class = encoder.config_class
        cls.block_list = f'{cls.encoder_name}.{encoder.block_list}'
        cls.attention_name = encoder.attention_name
        cls.norm_name = encoder.norm_name

    def post_init(self) -> None:
        encoder = self.encoder_class(self.config, **self.encoder_options)
        setattr(self, self.encoder_name, encoder)
        super().post_init()
