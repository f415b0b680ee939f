r"""A hybrid decoder as an equivalent ``granitemoehybrid`` model.

Granite's hybrid is Llama's block with Mamba-2 in place of some attention layers, so
plain transformers, vLLM and SGLang read it without this package. Its mixer computes x,
B, C, the gate z and dt with one projection, has separate B and C for every group of
heads, and has no shared key-value heads. A hybrid is therefore expressed with as many
groups as heads:

* the rows of x and B are repeated for the query heads that share them. The depthwise
  convolution and SiLU act on each channel separately, so repeating before them is
  exact;
* a missing D becomes 0; a missing gate becomes a zero projection with the bias at which
  :math:`\mathrm{SiLU}(z) = 1`;
* a model whose heads are narrower than its hidden size is padded with zero heads,
  because Granite has ``head_dim = hidden_size / num_attention_heads``.

Granite normalises after the gate, over the channels of each group (transformers 5.23
and later, vLLM, SGLang). Only ``norm='gated_per_head'`` of this package does the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM

from mmtransmamba.models.language import HYBRIDS, MAMBA, Mamba2Mixer

FAMILIES = ('llama', 'mistral', 'qwen2')
ROPES = ('default', 'linear', 'llama3', 'yarn')
TAPS = (2, 3, 4)
_PLAIN = ('torch.nn.modules.', 'transformers.', 'mmtransmamba.')
SILU_IS_ONE = 1.2784645427610738
"""The z at which SiLU(z) = z / (1 + exp(-z)) is 1."""

_SAME = (
    *('vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers'),
    *('max_position_embeddings', 'initializer_range', 'rms_norm_eps'),
    *('pad_token_id', 'bos_token_id', 'eos_token_id', 'tie_word_embeddings'),
    *('attention_dropout', 'hidden_act', 'layer_types', 'rope_parameters'),
)


@dataclass(frozen=True)
class Heads:
    """The heads of the hybrid, and the number of heads of the Granite model.

    Attributes:
        query: Query heads of the hybrid.
        groups: Its key-value heads.
        size: Channels of a head.
        all: Query heads of the Granite model; the additional ones are zero.
    """

    query: int
    groups: int
    size: int
    all: int

    @property
    def shared(self) -> int:
        """Query heads for each key-value head."""
        return self.query // self.groups

    def rows(self, tensor: Tensor, heads: int, value: float = 0.0) -> Tensor:
        """Tensor with ``heads * n`` rows, padded to the heads of the Granite model."""
        wanted = self.all if heads == self.query else self.all // self.shared
        missing = (wanted - heads) * (tensor.shape[0] // heads)
        padding = tensor.new_full((missing, *tensor.shape[1:]), value)
        return torch.cat((tensor, padding))

    def repeated(self, tensor: Tensor) -> Tensor:
        """Rows ``[groups * size, ...]`` once for each query head, then padded."""
        heads = tensor.unflatten(0, (self.groups, self.size))
        heads = heads.repeat_interleave(self.shared, dim=0)
        return self.rows(heads.flatten(0, 1), self.query)


def heads_of(config: Any) -> Heads:
    """The heads of a hybrid's config, and those that Granite needs."""
    query = config.num_attention_heads
    size = getattr(config, 'head_dim', None) or config.hidden_size // query
    return Heads(
        query=query,
        groups=config.num_key_value_heads or query,
        size=size,
        all=max(query, config.hidden_size // size),
    )


def granite_obstacles(model: nn.Module) -> list[str]:
    """Reasons why a model has no equivalent in ``granitemoehybrid``.

    Args:
        model: A hybrid decoder with a language-modelling head.

    Returns:
        One sentence per obstacle, with its workaround; empty if there is none.
    """
    config = model.config
    family = config.model_type.removeprefix('hybrid_')
    if type(model) not in [classes[-1] for classes in HYBRIDS.values()]:
        return [
            f'{type(model).__name__} is not a converted causal language model; '
            'convert one with mmtransmamba.convert'
        ]
    if family not in FAMILIES:
        return [
            f'the family {family} has layers that Granite has not (accepted: '
            f'{", ".join(FAMILIES)}, InternLM2): load the folder with this package'
        ]
    return [
        *_wrapping_obstacles(model),
        *_decoder_obstacles(config),
        *_mixer_obstacles(model),
    ]


def _wrapping_obstacles(model: nn.Module) -> Iterator[str]:
    """Layers that compute something else than their weights say."""
    for name, module in model.named_modules():
        if not type(module).__module__.startswith(_PLAIN):
            kind = f'{type(module).__module__}.{type(module).__qualname__}'
            yield (
                f'{name} is a {kind}: merge adapters into the weights, and load the '
                'model without quantisation'
            )
            return
    for name, parameter in model.named_parameters():
        if type(parameter) is not nn.Parameter or not parameter.is_floating_point():
            yield f'{name} is quantised: load the model without quantisation'
            return
        if parameter.is_meta:
            yield f'{name} has no values here: load the model without offloading'
            return


def _decoder_obstacles(config: Any) -> Iterator[str]:
    if 'sliding_attention' in config.layer_types:
        yield (
            f'attention layers have sliding_window={config.sliding_window}: Granite '
            'has no window; convert with sliding_window=None, which is equal for '
            'contexts no longer than the window'
        )
    if not config.attention_rope or config.attention_logit_scaling is not None:
        yield (
            'attention_rope=False or attention_logit_scaling: Granite rotates q and k '
            'of all attention layers and scales their logits alike'
        )
    if config.hidden_act != 'silu':
        yield f'hidden_act={config.hidden_act!r}: the MLP must use silu'
    if getattr(config, 'mlp_bias', False):
        yield 'mlp_bias=True: the MLP must not have biases'
    rope = config.rope_parameters or {}
    kind = rope.get('rope_type', 'default')
    if kind not in ROPES:
        yield f'rope_type={kind!r} is not one of {", ".join(ROPES)}'
    if rope.get('partial_rotary_factor', 1.0) != 1.0:
        yield 'partial_rotary_factor: positions must rotate the whole head'
    heads = heads_of(config)
    if heads.all * heads.size != config.hidden_size or heads.all % heads.shared:
        yield (
            f'{heads.query} heads of {heads.size} channels and {heads.shared} queries '
            f'for each key: they cannot be extended to hidden_size='
            f'{config.hidden_size}'
        )


def _mixer_obstacles(model: nn.Module) -> Iterator[str]:
    """Obstacles in the first Mamba layer, which stands for all."""
    config = model.config
    mixers = [model.model.layers[i].self_attn for i in config.mamba_layers]
    if not mixers:
        return
    if config.layer_mixers:
        yield 'layer_mixers: all mixers of a Granite are alike'
    mixer = mixers[0]
    if type(mixer) is not Mamba2Mixer:
        yield (
            f'the mixer is {type(mixer).__name__}: Granite has Mamba-2 only; convert '
            "with init='vkq'"
        )
        return
    norm, eps = mixer.norm_kind, config.rms_norm_eps
    if norm != 'gated_per_head':
        yield (
            f'the norm of the mixers is {norm!r}: Granite has gated_per_head; convert '
            "with norm='gated_per_head' and train with it"
        )
    elif mixer.norm.eps != eps:
        yield (f'norm_eps={mixer.norm.eps} of the mixers must equal rms_norm_eps={eps}')
    if mixer.conv_activation != 'silu':
        yield "the convolution's activation must be silu"
    if mixer.conv1d.kernel_size[0] not in TAPS:
        yield f'd_conv={mixer.conv1d.kernel_size[0]} is not one of {TAPS}'
    if mixer.B_norm is not None:
        yield 'qk_norm=True: Granite does not normalise B and C'
    if mixer.rope:
        yield 'rope=True: Granite does not rotate B and C'


def to_granite(model: nn.Module) -> GraniteMoeHybridForCausalLM:
    """The equivalent ``granitemoehybrid`` model, in the dtypes of this one.

    Parameters that exist in both models are shared, not copied.

    Args:
        model: A hybrid without :func:`obstacles <granite_obstacles>`.

    Raises:
        ValueError: There are obstacles; the message lists them.
    """
    obstacles = granite_obstacles(model)
    if obstacles:
        raise ValueError(
            'the model has no equal in granitemoehybrid: ' + '; '.join(obstacles)
        )
    config = granite_config(model)
    with torch.device('meta'):
        granite = GraniteMoeHybridForCausalLM(config)
    tensors = dict(granite_tensors(model, config))
    if config.tie_word_embeddings:
        tensors['lm_head.weight'] = tensors['model.embed_tokens.weight']
    with torch.no_grad():
        granite.load_state_dict(tensors, strict=True, assign=True)
    granite.model.rotary_emb = type(granite.model.rotary_emb)(config)
    granite.generation_config = copy.deepcopy(model.generation_config)
    granite.generation_config.use_cache = config.use_cache
    granite.tie_weights()
    return granite.train(model.training)


def granite_config(model: nn.Module) -> GraniteMoeHybridConfig:
    """Config of the equivalent Granite model; all multipliers are explicit."""
    config, heads = model.config, heads_of(model.config)
    mixers = [model.model.layers[i].self_attn for i in config.mamba_layers]
    return GraniteMoeHybridConfig(
        **{name: getattr(config, name) for name in _SAME},
        num_attention_heads=heads.all,
        num_key_value_heads=heads.all // heads.shared,
        attention_bias=has_bias(model, attention=True),
        attention_multiplier=heads.size**-0.5,
        embedding_multiplier=1.0,
        logits_scaling=1.0,
        residual_multiplier=1.0,
        num_local_experts=0,
        num_experts_per_tok=0,
        shared_intermediate_size=config.intermediate_size,
        position_embedding_type='rope',
        mamba_n_heads=heads.all,
        mamba_n_groups=heads.all,
        mamba_d_state=heads.size,
        mamba_d_head=heads.size,
        mamba_d_conv=mixers[0].conv1d.kernel_size[0] if mixers else 4,
        mamba_expand=1,
        mamba_conv_bias=True,
        mamba_proj_bias=has_bias(model, attention=False),
        # The caches of transformers count tokens in attention layers only.
        use_cache=config.use_cache and len(mixers) < config.num_hidden_layers,
    )


def has_bias(model: nn.Module, attention: bool) -> bool:
    """Whether any attention layer, or any mixer, needs projections with biases."""
    for layer, kind in zip(model.model.layers, model.config.layer_types, strict=True):
        if (kind != MAMBA) == attention:
            part = layer.self_attn
            biased = any(
                isinstance(module, nn.Linear) and module.bias is not None
                for module in part.modules()
            )
            if biased or (not attention and part.z_proj is None):
                return True
    return False


def granite_tensors(
    model: nn.Module, config: GraniteMoeHybridConfig
) -> Iterator[tuple[str, Tensor]]:
    """All tensors of the Granite model, by name, layer by layer."""
    heads = heads_of(model.config)
    yield 'model.embed_tokens.weight', model.model.embed_tokens.weight
    yield 'model.norm.weight', model.model.norm.weight
    if not config.tie_word_embeddings:
        yield 'lm_head.weight', model.lm_head.weight
    for i, layer in enumerate(model.model.layers):
        own = {
            'input_layernorm.weight': layer.input_layernorm.weight,
            'post_attention_layernorm.weight': layer.post_attention_layernorm.weight,
            'shared_mlp.input_linear.weight': torch.cat(
                (layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight)
            ),
            'shared_mlp.output_linear.weight': layer.mlp.down_proj.weight,
        }
        if i in model.config.mamba_layers:
            mixed = _mixer(layer.self_attn, heads, config.mamba_proj_bias)
            own |= {f'mamba.{name}': tensor for name, tensor in mixed.items()}
        else:
            attention = _attention(layer.self_attn, heads, config.attention_bias)
            own |= {f'self_attn.{name}': value for name, value in attention.items()}
        for name, tensor in own.items():
            yield f'model.layers.{i}.{name}', tensor.detach()


def _attention(part: nn.Module, heads: Heads, bias: bool) -> dict[str, Tensor]:
    counts = dict(q_proj=heads.query, k_proj=heads.groups, v_proj=heads.groups)
    tensors = {'o_proj.weight': heads.rows(part.o_proj.weight.mT, heads.query).mT}
    if bias:
        tensors['o_proj.bias'] = _bias(part.o_proj)
    for name, count in counts.items():
        linear = getattr(part, name)
        tensors[f'{name}.weight'] = heads.rows(linear.weight, count)
        if bias:
            tensors[f'{name}.bias'] = heads.rows(_bias(linear), count)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _mixer(part: Mamba2Mixer, heads: Heads, bias: bool) -> dict[str, Tensor]:
    query = heads.query

    def in_proj(of: Any) -> Tensor:
        """Rows of z, x, B, C and dt; ``of`` takes a weight or a bias."""
        if part.z_proj is None:
            z = of(part.C_proj)
            z = torch.full_like(z, SILU_IS_ONE if z.ndim == 1 else 0.0)
        else:
            z = of(part.z_proj)
        return torch.cat(
            (
                heads.rows(z, query),
                heads.repeated(of(part.x_proj)),
                heads.repeated(of(part.B_proj)),
                heads.rows(of(part.C_proj), query),
                heads.rows(of(part.dt_proj), query),
            )
        )

    def convolution(tensor: Tensor) -> Tensor:
        x, B, C = tensor.split((part.d_groups, part.d_groups, part.d_inner))
        parts = (heads.repeated(x), heads.repeated(B), heads.rows(C, query))
        return torch.cat(parts)

    D = torch.zeros_like(part.A_log) if part.D is None else part.D
    tensors = {
        'in_proj.weight': in_proj(lambda linear: linear.weight),
        'conv1d.weight': convolution(part.conv1d.weight),
        'conv1d.bias': convolution(part.conv1d.bias),
        'A_log': heads.rows(part.A_log, query),
        'D': heads.rows(D, query),
        'dt_bias': heads.rows(part.dt_bias, query),
        'norm.weight': heads.rows(part.norm.weight, query, 1.0),
        'out_proj.weight': heads.rows(part.out_proj.weight.mT, query).mT,
    }
    if bias:
        tensors['in_proj.bias'] = in_proj(_bias)
        tensors['out_proj.bias'] = _bias(part.out_proj)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _bias(linear: nn.Linear) -> Tensor:
    if linear.bias is not None:
        return linear.bias
    return linear.weight.new_zeros(linear.weight.shape[0])
