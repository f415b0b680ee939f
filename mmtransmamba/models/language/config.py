"""Config fields that turn a decoder into a hybrid."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mmtransmamba.models.language.mixers import complete, mixer_class_of
from mmtransmamba.models.language.mixers.fields import DEFAULT, as_fields
from mmtransmamba.models.language.old_fields import take_old_fields
from mmtransmamba.registry import DECODER_MIXERS

ATTENTION, MAMBA = 'full_attention', 'linear_attention'
SLIDING = 'sliding_attention'


@dataclass(kw_only=True)
class HybridFields:
    """The fields that a hybrid decoder's config adds to its Transformer's.

    Attributes:
        layer_types: ``'linear_attention'`` for each layer with a Mamba mixer. Other
            layers have ``'full_attention'``, or ``'sliding_attention'`` in families
            that have ``sliding_window``; by default the Transformer's own attention
            everywhere. Mistral's ``sliding_window`` becomes None if no attention
            layer slides.
        mixer: The mixer of these layers: its ``type`` in
            :data:`~mmtransmamba.registry.DECODER_MIXERS` and its fields, ``'Mamba2'``
            by default. Older configs with ``mamba_*`` fields instead are also read.
        layer_mixers: Mixers of single layers, by layer number: fields that differ from
            ``mixer``, or another ``type`` with its fields.
        attention_rope: Whether the attention layers rotate q and k; see
            :mod:`mmtransmamba.models.language.attention_positions`.
        attention_logit_scaling: If not None, base above 1 of the logarithm by which
            the attention's logits grow with the position.
        transfer_history: Origin of the weights: the initialisation, followed by the
            completed stages of training.
        layer_ranking: The measurement by which the Mamba layers were chosen, if any,
            see :class:`~mmtransmamba.transfer.convert.LayerRanking`.
    """

    layer_types: list[str] | None = None
    mixer: str | dict[str, Any] | None = None
    layer_mixers: dict[str, Any] | None = None
    attention_rope: bool = True
    attention_logit_scaling: float | None = None
    transfer_history: list[str] = field(default_factory=list)
    layer_ranking: dict[str, Any] | None = None

    mixes_attention = False  # whether layers may have different kinds of attention
    decodes = True  # whether it is a decoder
    slides = False  # whether attention layers may have a sliding window
    mixers = DECODER_MIXERS  # where the types of mixers are registered
    auto_map = MappingProxyType({})  # no code in the folder; TRL asks for it

    def __post_init__(self, **kwargs) -> None:
        old = take_old_fields(kwargs)
        if old is not None and self.mixer is not None:
            raise ValueError('The config has mixer and mamba_* fields: leave one out.')
        super().__post_init__(**kwargs)
        if self.layer_types is None:
            window = getattr(self, 'sliding_window', None) if self.slides else None
            kind = ATTENTION if window is None else SLIDING
            self.layer_types = [kind] * self.num_hidden_layers
        self._check_attention()
        self.mixer = complete(self.mixer or old or DEFAULT, self.mixers)
        self.check_depth()
        kinds = sorted(set(self.layer_types) - {MAMBA})
        if len(kinds) > 1 and not self.mixes_attention:
            raise ValueError(
                f'layer_types has {" and ".join(kinds)}, but all attention layers of a '
                f'{self.model_type} are of one kind.'
            )
        self._check_kinds(kinds)
        self._complete_layer_mixers()

    def _complete_layer_mixers(self) -> None:
        """Normalise to JSON's form, in which layer numbers are strings."""
        given = {str(i): mixer for i, mixer in (self.layer_mixers or {}).items()}
        layers = {str(i) for i in self.mamba_layers}
        if not given.keys() <= layers:
            raise ValueError(
                f'layer_mixers names {", ".join(sorted(given.keys() - layers))}; the '
                f'layers with a mixer are {", ".join(sorted(layers)) or "none"}.'
            )
        for layer, mixer in given.items():
            mixer = as_fields(mixer)
            kind = {'type': mixer.get('type', self.mixer['type'])}
            kind = complete(kind, self.mixers)['type']
            base = self.mixer if kind == self.mixer['type'] else {}
            given[layer] = complete(base | mixer, self.mixers)
        self.layer_mixers = given or None

    def mixer_of(self, layer: int) -> dict[str, Any]:
        """Copy of the type and fields of one layer's mixer."""
        return dict((self.layer_mixers or {}).get(str(layer), self.mixer))

    def check_depth(self) -> None:
        """Check that every layer has a type.

        ``from_pretrained`` sets its overrides after the config is made.

        Raises:
            ValueError: There are more or fewer types than layers.
        """
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(
                f'layer_types names {len(self.layer_types)} layers, but '
                f'num_hidden_layers={self.num_hidden_layers}.'
            )

    def _check_attention(self) -> None:
        if not isinstance(self.attention_rope, bool):
            raise ValueError(
                f'attention_rope={self.attention_rope!r} must be True or False.'
            )
        base = self.attention_logit_scaling
        if base is not None and not (
            type(base) in (int, float) and 1 < base < float('inf')
        ):
            raise ValueError(
                f'attention_logit_scaling={base!r} must be None or a number above 1.'
            )
        if not self.decodes and (base is not None or not self.attention_rope):
            raise ValueError(
                'attention_rope and attention_logit_scaling are for decoders; leave '
                'them out for an encoder.'
            )

    def _check_kinds(self, kinds: list[str]) -> None:
        """Check that the Transformer's layers support each kind of attention."""
        accepted = (ATTENTION, SLIDING) if self.slides else (ATTENTION,)
        for kind in kinds:
            if kind not in accepted:
                raise ValueError(
                    f'layer_types has {kind}, but a {self.model_type} has '
                    f'{" and ".join((*accepted, MAMBA))} only.'
                )
        if SLIDING in kinds and getattr(self, 'sliding_window', None) is None:
            switch = ' and use_sliding_window=True' if self.mixes_attention else ''
            raise ValueError(
                f'layer_types has {SLIDING}, which needs sliding_window{switch}.'
            )
        # If all layers are of one kind, the window alone decides: a Transformer with
        # one would slide in some implementations of attention and not in others.
        if self.slides and not self.mixes_attention and kinds == [ATTENTION]:
            self.sliding_window = None

    @property
    def mamba_layers(self) -> list[int]:
        """Indices of the layers with a Mamba mixer."""
        return [i for i, kind in enumerate(self.layer_types) if kind == MAMBA]

    @property
    def key_layers(self) -> list[int]:
        """Indices of the layers with a mixer that keeps keys and values."""
        return [
            i
            for i in self.mamba_layers
            if mixer_class_of(self, i).keeps_keys(self.mixer_of(i))
        ]
