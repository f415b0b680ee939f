"""Base of all modules that replace an attention in a pre-trained Transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from mmtransmamba.compat import announce_adapters
from mmtransmamba.models.language.mixers.inits import Init


class AttentionMixer(nn.Module):
    """A mixer with the heads of the attention that it replaces.

    The keyword-only arguments of its constructor are the fields of ``mixer`` in a
    hybrid's config, and its class attributes declare what other parts of the package
    need to know.

    Args:
        config: The hybrid's config.
        layer_idx: Index of the layer.

    Attributes:
        choices: Accepted values of string fields.
        follows: Fields that a conversion copies from the teacher, among
            ``in_bias``, ``out_bias``, ``qk_norm`` and ``norm_eps``.
        inits: Ways to initialise it, by name.
        attention: Modules of the attention (names in different families) by the
            module of the mixer that inherits their weights.
        stacked: Function from the shapes of the mixer's tensors to the sizes of the
            parts that are stacked in a tensor's rows, for tensors with several parts.
        own_init: Linear layers whose weights :meth:`reset_parameters` or PyTorch
            initialises, not the model's normal distribution.
        groups: Modules and parameters in the groups ``'qkv'`` and ``'out_proj'`` of
            the training stages; all others are new, ``'ssm'``.
        float32: Suffixes of the names of parameters that stay in float32.
        adapters: Modules to which PEFT adds adapters by default, by the corresponding
            module of the attention.
        calibration_rate: Learning rate of the steps of a calibration.
        regresses_output: Whether a calibration ends with a regression of the output
            projection.
        unquantized: Modules that quantisation should leave out: the convolution, and
            small projections whose errors accumulate in the state.
    """

    choices: ClassVar[dict[str, tuple[str, ...]]] = {}
    follows: ClassVar[tuple[str, ...]] = ()
    inits: ClassVar[dict[str, Init]] = {}
    attention: ClassVar[dict[str, tuple[str, ...]]] = {}
    stacked: ClassVar[dict[str, Callable[[Callable], tuple[int, ...]]]] = {}
    own_init: ClassVar[tuple[str, ...]] = ()
    groups: ClassVar[dict[str, tuple[str, ...]]] = {'out_proj': ('out_proj',)}
    float32: ClassVar[tuple[str, ...]] = ()
    adapters: ClassVar[dict[str, tuple[str, ...]]] = {}
    calibration_rate: ClassVar[float] = 1e-2
    regresses_output: ClassVar[bool] = True
    unquantized: ClassVar[tuple[str, ...]] = ('conv1d', 'dt_proj')

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        announce_adapters(cls.adapters)

    @classmethod
    def group_of(cls, name: str) -> str:
        """The group of a parameter of the mixer in the training stages."""
        part = name.partition('.')[0]
        found = (group for group, parts in cls.groups.items() if part in parts)
        return next(found, 'ssm')

    @classmethod
    def keeps_float32(cls, name: str) -> bool:
        """Whether a parameter of the mixer needs more than half precision."""
        return f'.{name}'.endswith(tuple(f'.{ending}' for ending in cls.float32))

    @classmethod
    def keeps_keys(cls, fields: Mapping[str, Any]) -> bool:
        """Whether a mixer with these fields keeps keys and values of every token."""
        return False

    @classmethod
    def whole(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of the mixer from whose new values a mixer takes its own.

        A mixer of only some heads takes the values that these heads have in the mixer
        of all heads, see :meth:`own_part`.
        """
        return dict(fields)

    def own_part(self, name: str, tensor: Tensor) -> Tensor:
        """The part for this mixer of a tensor of the mixer of :meth:`whole`."""
        return tensor

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.config = self.rotary_config = config
        self.layer_idx = layer_idx

    def take_heads(self, config: Any) -> None:
        """Take the numbers and sizes of the attention's heads, for mixers with heads.

        Sets ``num_heads``, ``num_groups`` (key-value heads), ``head_dim``, and the
        channels of all heads, ``d_inner``, and of all key-value heads, ``d_groups``.
        """
        self.num_heads = config.num_attention_heads
        groups = getattr(config, 'num_key_value_heads', None)
        self.num_groups = groups or self.num_heads
        size = getattr(config, 'head_dim', None)
        self.head_dim = size or config.hidden_size // self.num_heads
        self.d_inner = self.num_heads * self.head_dim
        self.d_groups = self.num_groups * self.head_dim

    def reset_parameters(self) -> None:
        """Initialise parameters that a model's own initialisation does not cover."""
        raise NotImplementedError
