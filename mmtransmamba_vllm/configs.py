"""The hybrids' configs for vLLM: the Transformer's, with checked additional fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from mmtransmamba_vllm.mixer_fields import complete_all
from mmtransmamba_vllm.releases import check

ROPES = ('default', 'linear', 'llama3', 'yarn')
PLAIN_ATTENTION = dict(attention_rope=True, attention_logit_scaling=None)
"""Options of the attention layers, with the only values that vLLM's layers have."""
KINDS = ('full_attention', 'sliding_attention', 'linear_attention')


@dataclass(kw_only=True)
class HybridFields:
    """The fields that a hybrid's config adds to its Transformer's.

    Raises:
        ImportError: The release of vLLM is not supported.
        ValueError: vLLM cannot run the model; the message names the field.
    """

    layer_types: list[str] | None = None
    mixer: str | dict[str, Any] | None = None
    layer_mixers: dict[str, Any] | None = None

    def __post_init__(self, **others: Any) -> None:
        check()
        bare = self.mixer is None and self.layer_types is None
        super().__post_init__(**others)
        # transformers also creates configs without fields, to compare with.
        if bare:
            return
        old = sorted(name for name in others if name.startswith('mamba_'))
        if self.mixer is None or old:
            raise ValueError(
                f'the config has {", ".join(old) or "no field mixer"}: save the folder '
                'again with a current mmtransmamba'
            )
        self._check_layers()
        complete_all(self)
        if self.hidden_act != 'silu':
            raise ValueError(f'hidden_act={self.hidden_act!r}: the MLP must use silu')
        for name, plain in PLAIN_ATTENTION.items():
            if getattr(self, name, plain) != plain:
                raise ValueError(f'{name}={getattr(self, name)!r} must be {plain}')
        kind = (self.rope_parameters or {}).get('rope_type', 'default')
        if kind not in ROPES:
            raise ValueError(
                f'rope_parameters: rope_type={kind!r} must be one of {", ".join(ROPES)}'
            )

    def _check_layers(self) -> None:
        kinds = set(self.layer_types or ())
        unknown = sorted(kinds - set(KINDS))
        if not kinds or unknown:
            raise ValueError(
                f'layer_types has {", ".join(unknown) or "no layers"}; accepted: '
                f'{", ".join(KINDS)}'
            )
        if 'sliding_attention' not in kinds:
            self.sliding_window = None
        elif self.sliding_window is None:
            raise ValueError('layer_types has sliding_attention, but no sliding_window')


class HybridLlamaConfig(HybridFields, LlamaConfig):
    """Config of a hybrid of Llama or InternLM2."""

    model_type = 'hybrid_llama'


class HybridMistralConfig(HybridFields, MistralConfig):
    """Config of a hybrid of Mistral."""

    model_type = 'hybrid_mistral'


class HybridQwen2Config(HybridFields, Qwen2Config):
    """Config of a hybrid of Qwen2, whose q, k and v have biases."""

    model_type = 'hybrid_qwen2'
    qkv_bias = True


class HybridQwen3Config(HybridFields, Qwen3Config):
    """Config of a hybrid of Qwen3."""

    model_type = 'hybrid_qwen3'


CONFIGS = (
    HybridLlamaConfig,
    HybridMistralConfig,
    HybridQwen2Config,
    HybridQwen3Config,
)
