"""Fields that turn a decoder's config into that of a hybrid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ATTENTION, MAMBA = 'full_attention', 'linear_attention'
SLIDING = 'sliding_attention'
NORMS = ('gated', 'gated_per_head', 'per_head', 'none')
ACTIVATIONS = ('silu', 'identity')


@dataclass(kw_only=True)
class HybridFields:
    """What the config of a hybrid decoder adds to its Transformer's.

    Attributes:
        layer_types: ``'linear_attention'`` for each layer with a Mamba mixer,
            for the others ``'full_attention'``, or ``'sliding_attention'`` in
            families that have ``sliding_window``; by default the Transformer's own
            attention everywhere. Mistral's ``sliding_window`` becomes None if
            no attention layer slides.
        mamba_mixer: ``'mamba2'``, shaped as the attention, or ``'mamba'``.
        mamba_d_conv: Taps of the causal convolution.
        mamba_conv_activation: ``'silu'`` or ``'identity'``, after the convolution.
        mamba_d_state: States per channel of ``'mamba'``.
        mamba_expand: Inner width of ``'mamba'`` by the hidden size.
        mamba_norm: See :class:`~mmtransmamba.models.language.mixers.Mamba2Mixer`.
        mamba_norm_eps: Its epsilon.
        mamba_gate, mamba_skip: Whether ``'mamba2'`` has z and D.
        mamba_in_bias, mamba_out_bias: Whether the projections have biases.
        mamba_qk_norm: Whether B and C are normalised as Qwen3's k and q.
        transfer_history: How the weights came about: the initialisation, then the
            stages of training that have been completed.
        layer_ranking: What the Mamba layers were chosen by if it was measured, see
            :class:`~mmtransmamba.transfer.language.LayerRanking`.
    """

    layer_types: list[str] | None = None
    mamba_mixer: str = 'mamba2'
    mamba_d_conv: int = 4
    mamba_conv_activation: str = 'silu'
    mamba_d_state: int = 16
    mamba_expand: float = 1.0
    mamba_norm: str = 'gated'
    mamba_norm_eps: float = 1e-5
    mamba_gate: bool = True
    mamba_skip: bool = True
    mamba_in_bias: bool = False
    mamba_out_bias: bool = False
    mamba_qk_norm: bool = False
    transfer_history: list[str] = field(default_factory=list)
    layer_ranking: dict[str, Any] | None = None

    mixes_attention = False  # whether layers may have different kinds of attention
    slides = False  # whether attention layers may have a sliding window

    def __post_init__(self, **kwargs) -> None:
        super().__post_init__(**kwargs)
        if self.layer_types is None:
            window = getattr(self, 'sliding_window', None) if self.slides else None
            kind = ATTENTION if window is None else SLIDING
            self.layer_types = [kind] * self.num_hidden_layers
        for name, accepted in (
            ('mamba_mixer', ('mamba', 'mamba2')),
            ('mamba_norm', NORMS),
            ('mamba_conv_activation', ACTIVATIONS),
        ):
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f'{name}={getattr(self, name)!r} must be one of '
                    f'{", ".join(accepted)}.'
                )
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(
                f'layer_types names {len(self.layer_types)} layers, but '
                f'num_hidden_layers={self.num_hidden_layers}.'
            )
        kinds = sorted(set(self.layer_types) - {MAMBA})
        if len(kinds) > 1 and not self.mixes_attention:
            raise ValueError(
                f'layer_types has {" and ".join(kinds)}, but all attention layers of a '
                f'{self.model_type} are of one kind.'
            )
        self._check_kinds(kinds)

    def _check_kinds(self, kinds: list[str]) -> None:
        """That each kind of attention is what the Transformer's layers then do."""
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
        # Where all layers are of one kind, the window alone decides: a Transformer
        # with one would slide in some implementations of attention and not in others.
        if self.slides and not self.mixes_attention and kinds == [ATTENTION]:
            self.sliding_window = None

    @property
    def mamba_layers(self) -> list[int]:
        """Indices of the layers with a Mamba mixer."""
        return [i for i, kind in enumerate(self.layer_types) if kind == MAMBA]
