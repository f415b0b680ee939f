"""Mix-ins that turn a transformers decoder into a hybrid."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING

from mmtransmamba.models.card_mixin import CardMixin
from mmtransmamba.models.language.arguments import known_arguments
from mmtransmamba.models.language.attention_positions import AttentionPositions
from mmtransmamba.models.language.cache import count_in, make_room
from mmtransmamba.models.language.cache_names import CACHE, as_argument, either_name
from mmtransmamba.models.language.config import MAMBA, SLIDING
from mmtransmamba.models.language.mixers import DecoderMixer, build_mixer
from mmtransmamba.models.language.packing import (
    Packing,
    TracedPacking,
    find_packing,
    has_jumps,
    see_everything,
    trace_packing,
)
from mmtransmamba.models.language.padding import (
    has_gaps,
    local_padding,
    positions_from,
    read_values,
)
from mmtransmamba.ops.untraced import is_exporting

NO_COMMON_STATE = (
    'position_ids begin anew within a row: sequences packed into one row have no '
    f'common state that a cache could keep. Leave out {CACHE} and '
    'use_cache=True, or give each sequence a row of its own.'
)


class HybridInitMixin(CardMixin):
    """Initialises mixers together with the decoder's other modules."""

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DecoderMixer):
            module.reset_parameters()


class HybridModelMixin(HybridInitMixin):
    """For a decoder without head: replaces attention according to ``layer_types``.

    Only the module ``self_attn`` of a layer changes; norms, feed-forward layers,
    parallel blocks and so on are the Transformer's own.
    """

    def post_init(self) -> None:
        kept = set(self._keep_in_fp32_modules_strict or ())
        self.config.check_depth()
        self._key_layers = self.config.key_layers
        for i in self.config.mamba_layers:
            mixer = build_mixer(self.config, i)
            self.layers[i].self_attn = mixer
            kept |= {n for n, _ in mixer.named_parameters() if mixer.keeps_float32(n)}
        self._change_attention()
        # Only names of existing parameters; an enclosing model copies them, so that no
        # other class needs a list.
        self._keep_in_fp32_modules_strict = kept
        super().post_init()

    def _change_attention(self) -> None:
        rope, scaling = self.config.attention_rope, self.config.attention_logit_scaling
        if rope and scaling is None:
            return
        for layer, kind in zip(self.layers, self.config.layer_types, strict=True):
            if kind != MAMBA:
                AttentionPositions(rope, scaling).attach(layer.self_attn)

    def init_parallel_plans(self) -> None:
        """Like the Transformer's, without entries for removed attention modules."""
        super().init_parallel_plans()
        names = [name for name, _ in self.named_modules()]
        self._tp_plan = {
            pattern: style
            for pattern, style in self._tp_plan.items()
            if any(fnmatchcase(name, pattern) for name in names)
        }

    @either_name
    @known_arguments('is_causal', 'seq_idx')
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | dict[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ):
        """Like the Transformer's own; the mixers also receive the padding mask.

        Rows may hold several sequences: a new one starts wherever ``position_ids`` do
        not increase. Each is then processed as if in a separate row, and there is no
        cache. A compiled graph cannot check the values: with ``position_ids`` it does
        not create a cache by default, and with ``use_cache=True`` it fails if a second
        sequence starts in a row.

        Args:
            attention_mask: ``[B, L]`` (tokens of the cache in front), 0 for padding, or
                the masks by layer type that ``generate`` creates for compiled decoding.
            position_ids: ``[B, L]``; by default the positions of the tokens. With both
                attention and Mamba layers, padding does not count as a position.
            cache: Cache of all layers, also by its older name ``past_key_values``.

        Raises:
            TypeError: An argument is unknown; see
                :mod:`mmtransmamba.models.language.arguments`.
            ValueError: The cache has no states for the Mamba layers; sequences are
                packed into a row and a cache is given or requested, or they are marked
                by other means than ``position_ids``; or Mamba layers cannot follow the
                mask.
        """
        if input_ids is not None and inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
            input_ids = None
        given_positions = position_ids
        packing = self._find_packing(
            inputs_embeds, position_ids, attention_mask, cache, use_cache
        )
        if packing is not None:
            if use_cache or cache is not None:
                raise ValueError(NO_COMMON_STATE)
            use_cache = False
            kwargs['packing'] = packing
        self._check_sequences(packing, kwargs)
        use_cache = self._uses_cache(use_cache)
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        self._check_cache(cache)
        make_room(cache, self._key_layers)
        count_in(cache)
        self._check_mask(attention_mask, inputs_embeds.shape[1], cache)
        if position_ids is None:
            position_ids = self._default_positions(inputs_embeds, attention_mask, cache)
        masks = attention_mask
        if not isinstance(masks, dict):
            masks = self._make_masks(
                inputs_embeds,
                attention_mask,
                cache,
                given_positions,
                packing,
            )
            if packing is not None and self._uses_flash:
                masks = dict.fromkeys(masks)
                kwargs |= packing.flash_arguments()
        if packing is None:
            self._check_windows(attention_mask)
        padding = masks.get(MAMBA) if packing is None else None
        if padding is not None:
            kwargs['padding_mask'] = padding = padding.bool()
            kwargs['gaps'] = has_gaps(padding, cache, self.config.mamba_layers[0])
        if not self.masks_by_type:
            others = [mask for kind, mask in masks.items() if kind != MAMBA]
            # In a pure Mamba model no layer reads the mask; this one is accepted as is.
            masks = others[0] if others else inputs_embeds.new_zeros(1, 1, 1, 1)
        return super().forward(
            input_ids=input_ids,
            attention_mask=masks,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **as_argument(cache),
            **kwargs,
        )

    masks_by_type = False
    """Whether the Transformer's forward takes a dict of masks by layer type."""

    def _check_cache(self, cache: Cache | None) -> None:
        if cache is None:
            return
        for i in self.config.mamba_layers:
            if i >= len(cache.layers) or not hasattr(
                cache.layers[i], 'update_recurrent_state'
            ):
                raise ValueError(
                    f'The {type(cache).__name__} keeps no state for layer {i}, a Mamba '
                    'layer: make it with DynamicCache(config=model.config).'
                )

    def _check_mask(
        self,
        mask: Tensor | dict[str, Tensor | None] | None,
        length: int,
        cache: Cache | None,
    ) -> None:
        if mask is None or not self.config.mamba_layers:
            return
        if isinstance(mask, dict):
            if MAMBA not in mask:
                raise ValueError(
                    f'attention_mask has the keys {", ".join(mask)}; the Mamba layers '
                    f'need {MAMBA!r}: a mask [B, L], or None without padding.'
                )
            return
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            shape = list(mask.shape) if hasattr(mask, 'shape') else type(mask).__name__
            raise ValueError(
                f'attention_mask {shape}: Mamba layers see all tokens before, so it '
                'must be [B, L], 0 for padding. Sequences in one row are told apart by '
                'position_ids.'
            )
        seen = 0 if cache is None else cache.get_seq_length()
        wanted = length + seen if self._mixed and isinstance(seen, int) else None
        if mask.shape[1] < length or wanted not in (None, mask.shape[1]):
            raise ValueError(
                f'attention_mask {list(mask.shape)} is for another number of tokens '
                f'than the {length} given'
                + (f' and the {seen} in the cache.' if wanted else '.')
            )

    def _check_windows(self, mask: Tensor | dict[str, Tensor | None] | None) -> None:
        """Refuse padding between tokens that would use up an attention layer's window.

        transformers measures a window in places of the row, and keeps as many of them
        in a cache.
        """
        window = getattr(self.config, 'sliding_window', None)
        if (
            SLIDING not in self.config.layer_types
            or not self.config.mamba_layers
            or not isinstance(mask, Tensor)
            or mask.ndim != 2
            or mask.shape[1] <= window
            or not read_values()
        ):
            return
        if has_gaps(mask.bool(), None, 0):
            raise ValueError(
                'attention_mask has padding between tokens, which the attention layers '
                f'with a sliding window would count among their {window} tokens: pad '
                'in front of the tokens or behind them.'
            )

    @property
    def _mixed(self) -> bool:
        """Whether the decoder has both attention and Mamba layers."""
        return 0 < len(self.config.mamba_layers) < self.config.num_hidden_layers

    @property
    def _rotates(self) -> bool:
        """Whether a mixer uses the decoder's rotary embedding."""
        return any(self.layers[i].self_attn.rope for i in self.config.mamba_layers)

    def _check_sequences(self, packing: Packing | None, kwargs: dict[str, Any]) -> None:
        """Check and remove unused arguments about packed sequences."""
        seq_idx, is_causal = kwargs.pop('seq_idx', None), kwargs.pop('is_causal', None)
        if not self.config.mamba_layers:
            kwargs |= {} if is_causal is None else dict(is_causal=is_causal)
            return
        if is_causal is False:
            raise ValueError('is_causal=False: Mamba layers only see what is before.')
        ends = kwargs.get('cu_seq_lens_q')
        several = ends is not None and len(ends) > 2
        if packing is None and (seq_idx is not None or several):
            given = 'seq_idx' if seq_idx is not None else 'cu_seq_lens_q'
            if given == 'cu_seq_lens_q' or (
                read_values() and bool((seq_idx != seq_idx[:, :1]).any())
            ):
                raise ValueError(
                    f'{given} names several sequences in a row, but position_ids do '
                    'not: give position_ids that begin anew with each.'
                )

    def _default_positions(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | dict[str, Tensor | None] | None,
        cache: Cache | None,
    ) -> Tensor:
        """Positions as in generation if there are Mamba layers, else the Transformer's.

        Otherwise attention would count padding between two tokens as distance, while
        the Mamba layers see the tokens side by side. Mixers that rotate would do so,
        too.
        """
        length = inputs_embeds.shape[1]
        if (self._mixed or self._rotates) and isinstance(attention_mask, Tensor):
            return positions_from(attention_mask, length)
        seen = 0 if cache is None else cache.get_seq_length()
        return (torch.arange(length, device=inputs_embeds.device) + seen)[None]

    def _find_packing(
        self,
        inputs_embeds: Tensor | None,
        position_ids: Tensor | None,
        attention_mask: Tensor | dict[str, Tensor | None] | None,
        cache: Cache | None,
        use_cache: bool | None,
    ) -> Packing | TracedPacking | None:
        if position_ids is None or inputs_embeds is None or inputs_embeds.shape[1] == 1:
            return None
        # Attention layers can read a cache at any position.
        if cache is not None and not self.config.mamba_layers:
            return None
        if isinstance(attention_mask, dict):
            attention_mask = attention_mask.get(MAMBA)
        is_token = None
        if attention_mask is not None and attention_mask.ndim == 2:
            is_token = attention_mask[:, -inputs_embeds.shape[1] :].bool()
        position_ids = position_ids.expand(len(inputs_embeds), -1)
        # FlashAttention needs the sequence lengths, which require reading values.
        if not torch.compiler.is_compiling() or self._uses_flash:
            return find_packing(position_ids, is_token)
        packing = trace_packing(position_ids, is_token)
        if cache is None and not use_cache:
            return packing
        if not is_exporting():
            torch._assert_async(~packing.begins.any(), NO_COMMON_STATE)
        return None

    def _make_masks(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        cache: Cache | None,
        position_ids: Tensor | None,
        packing: Packing | TracedPacking | None,
    ) -> dict[str, Tensor | None]:
        """The masks by layer type.

        transformers treats any jump of the positions as a new sequence where it has no
        mask of pairs of tokens, which it leaves out where all are tokens. So packed
        sequences are detected here, and with jumps there is always a mask.
        """
        visible = None
        if packing is not None:
            visible = packing.same_sequence
        elif (
            cache is None
            and position_ids is not None
            and inputs_embeds.shape[1] > 1
            and has_jumps(position_ids)
        ):
            visible = see_everything
        masks = {}
        for kind in dict.fromkeys(self.config.layer_types):
            if kind == MAMBA:
                masks[kind] = local_padding(attention_mask, inputs_embeds.shape[1])
                continue
            masks[kind] = LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING[kind](
                config=self.config,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=None,
                and_mask_function=visible,
                **as_argument(cache),
            )
        return masks

    @property
    def _uses_flash(self) -> bool:
        return 'flash' in (self.config._attn_implementation or '')

    def _uses_cache(self, use_cache: bool | None) -> bool:
        if use_cache is None:
            use_cache = self.config.use_cache
        return use_cache and not (self.training and self.gradient_checkpointing)


class HybridCausalLMMixin(HybridInitMixin):
    """For a decoder with a language-modelling head: generation."""

    @property
    def _is_stateful(self) -> bool:
        """Whether there is a recurrent state, which cannot be rolled back.

        Assisted generation requires rollback; pure attention supports it.
        """
        text = self.config.get_text_config(decoder=True)
        return MAMBA in (getattr(text, 'layer_types', None) or ())

    def _prepare_cache_for_generation(
        self, generation_config, model_kwargs: dict[str, Any], *args, **kwargs
    ):
        if self._is_stateful and generation_config.is_assistant:
            raise ValueError(
                f'{type(self).__name__} cannot be an assistant_model: its Mamba layers '
                'cannot forget a draft that is refused.'
            )
        mask = model_kwargs.get('attention_mask')
        if (
            self._is_stateful
            and isinstance(mask, Tensor)
            and mask.ndim == 2
            and not bool(mask[:, -1].all())
        ):
            raise ValueError(
                'attention_mask has padding behind the last token of a prompt, where '
                'the answer is to begin: pad on the left '
                "(tokenizer.padding_side = 'left')."
            )
        result = super()._prepare_cache_for_generation(
            generation_config, model_kwargs, *args, **kwargs
        )
        text = self.config.get_text_config(decoder=True)
        make_room(model_kwargs.get(CACHE), getattr(text, 'key_layers', ()))
        count_in(model_kwargs.get(CACHE))
        return result

    @wraps(
        GenerationMixin.prepare_inputs_for_generation
    )  # generate reads the signature
    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, is_first_iteration: bool = False, **kwargs
    ) -> dict[str, Any]:
        """Like transformers'; the steps of a pure Mamba model get no mask.

        Generated tokens are never padding, and a mask that grows with every step would
        make a compiled step recompile. A prompt in pieces of one token may have some.
        """
        inputs = super().prepare_inputs_for_generation(
            input_ids, *args, is_first_iteration=is_first_iteration, **kwargs
        )
        kinds = getattr(self.config.get_text_config(decoder=True), 'layer_types', None)
        ids = inputs.get('input_ids')
        step = ids is not None and ids.shape[1] == 1 and CACHE in inputs
        if step and set(kinds or ()) == {MAMBA}:
            mask = kwargs.get('attention_mask')
            if isinstance(mask, Tensor) and not bool(mask[:, -1].all()):
                inputs['attention_mask'] = mask
            elif not is_first_iteration:
                inputs.pop('attention_mask', None)
        return inputs
