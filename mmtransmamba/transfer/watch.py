"""Observation of the layers of a decoder during a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

_OUTPUT_PROJECTIONS = ('o_proj', 'dense', 'out_proj')


@dataclass
class LayerCall:
    """Inputs and outputs of one decoder layer.

    Attributes:
        index: Number of the layer.
        hidden: Its input, ``[B, L, C]``.
        heads: Output of its attention or mixer before the output projection,
            ``[B, L, D]``.
        mixed: The same after the output projection, ``[B, L, C]``.
        output: The layer's output, ``[B, L, C]``.
        arguments: Keyword arguments of its attention or mixer.
        weights: Weights of the attention, ``[B, H, L, L]``; None if its implementation
            does not return them, or for a mixer.
    """

    index: int
    hidden: Tensor
    heads: Tensor
    mixed: Tensor
    output: Tensor
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: Tensor | None = None


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The layers of a causal language model's decoder."""
    return model.get_decoder().layers


def output_projection(mixer: nn.Module) -> nn.Module:
    """The last linear layer of an attention or a mixer, perhaps with adapters.

    Raises:
        ValueError: It has none under a known name.
    """
    for name in _OUTPUT_PROJECTIONS:
        layer = getattr(mixer, name, None)
        if isinstance(getattr(layer, 'base_layer', layer), nn.Linear):
            return layer
    raise ValueError(
        f'{type(mixer).__name__} has no output projection under one of '
        f'{", ".join(_OUTPUT_PROJECTIONS)}.'
    )


def heads_of(mixer: nn.Module, normed: Tensor, rows: dict[str, Any]) -> Tensor:
    """A mixer's output before its output projection, ``[B, L, D]``.

    Args:
        mixer: The mixer.
        normed: Its input ``[B, L, C]``.
        rows: Its arguments about the rows.
    """
    seen = []
    handle = output_projection(mixer).register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    try:
        mixer(normed, **rows)
    finally:
        handle.remove()
    return seen[0]


@contextmanager
def watch(
    model: nn.Module, indices: Iterable[int], visit: Callable[[LayerCall], None]
) -> Iterator[None]:
    """Pass layers to a function, each as soon as it has been computed.

    A layer's tensors are not stored any longer, and nothing remains on the model.

    Args:
        model: Causal language model.
        indices: The layers to observe.
        visit: Called with each layer.
    """
    with watch_layers(layers_of(model), indices, visit):
        yield


@contextmanager
def watch_layers(
    layers: nn.ModuleList,
    indices: Iterable[int],
    visit: Callable[[LayerCall], None],
    attention: str = 'self_attn',
) -> Iterator[None]:
    """As :func:`watch`, for layers of any model.

    Args:
        layers: All layers.
        indices: The layers to observe.
        visit: Called with each layer.
        attention: Name of the attention or mixer in a layer.
    """
    handles = []
    for index in sorted(set(indices)):
        mixer = getattr(layers[index], attention)
        handles += _watch_layer(index, layers[index], mixer, visit)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch_layer(
    index: int,
    layer: nn.Module,
    mixer: nn.Module,
    visit: Callable[[LayerCall], None],
) -> list[Any]:
    seen: dict[str, Any] = {}

    def entered(module, args, kwargs) -> None:
        seen['hidden'] = _first(args, kwargs)

    def called(module, args, kwargs) -> None:
        seen['arguments'] = kwargs

    def projected(module, args) -> None:
        seen['heads'] = args[0]

    def mixed(module, args, output) -> None:
        seen['mixed'] = output[0]
        seen['weights'] = output[1] if len(output) > 1 else None

    def left(module, args, output) -> None:
        output = output[0] if isinstance(output, tuple) else output
        call = LayerCall(index=index, output=output, **seen)
        seen.clear()
        visit(call)

    projection = output_projection(mixer)
    return [
        layer.register_forward_pre_hook(entered, with_kwargs=True),
        mixer.register_forward_pre_hook(called, with_kwargs=True),
        projection.register_forward_pre_hook(projected),
        mixer.register_forward_hook(mixed),
        layer.register_forward_hook(left),
    ]


def _first(args: tuple, kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs['hidden_states']
