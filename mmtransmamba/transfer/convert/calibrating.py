"""Fitting new mixers to the attention that they replace, on a small text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.language.mixers import AttentionMixer
from mmtransmamba.transfer.watch import (
    LayerCall,
    heads_of,
    layers_of,
    output_projection,
    watch_layers,
)

CALIBRATION_STEPS = 100
RIDGE = 1e-3
"""Weight of the prior of a regression, relative to the mean eigenvalue."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Weights of the prior of the output projection, of which the data choose one."""


@dataclass(frozen=True)
class Layers:
    """The layers of a teacher, and how to run it.

    Attributes:
        model: The teacher, in evaluation mode.
        layers: Its layers.
        attention: Name of the attention in a layer.
        norm: Name of the norm in front of it.
        run: Runs the teacher on a batch.
    """

    model: nn.Module
    layers: nn.ModuleList
    attention: str
    norm: str
    run: Callable[[Tensor], Any]


def calibrate(
    teacher: nn.Module,
    mixers: Mapping[int, AttentionMixer],
    batches: Sequence[Tensor],
    steps: int = CALIBRATION_STEPS,
    seed: int = 0,
) -> None:
    """Fit mixers of a decoder to its attention, see :func:`fit_mixers`.

    The distances exclude the first token, which idle heads attend to.

    Args:
        teacher: Causal language model, in evaluation mode; left unchanged.
        mixers: See :func:`fit_mixers`.
        batches: Token ids ``[B, L]`` without padding, L at least 2.
        steps, seed: See :func:`fit_mixers`.
    """

    def run(batch: Tensor) -> None:
        teacher(batch, use_cache=False, logits_to_keep=1)

    layers = Layers(teacher, layers_of(teacher), 'self_attn', 'input_layernorm', run)
    fit_mixers(layers, mixers, batches, steps, seed)


def fit_mixers(
    teacher: Layers,
    mixers: Mapping[int, AttentionMixer],
    batches: Sequence[Tensor],
    steps: int,
    seed: int = 0,
    fit_class: type[MixerFit] | None = None,
) -> None:
    r"""Fit mixers to the attention of the same layers, in place.

    1. Each head's decay halves a state over the mean distance to the tokens that the
       attention's head attends to. Output gates without bias become nearly constant:
       their weights are the ridge regression of 1 on the layer's input.
    2. ``steps`` steps of AdamW are made for each mixer alone, one batch each, on the
       squared error of its output for the input of the teacher's layer; the learning
       rate falls linearly from the mixer's ``calibration_rate``.
    3. The output projection is a ridge regression of the attention's output on the
       mixer's heads. Its prior is the attention's own projection, with a factor for
       each head that brings the mixer's head closest to the attention's. The prior's
       weight is the one of ``RIDGES`` with which either half of the data predicts the
       other best: with little text the prior is right, with much the regression.
       Mixers that contain that attention are left out (``regresses_output``).

    Args:
        teacher: The teacher's layers; left unchanged.
        mixers: Mixers by layer, in float32, with the attention's projections.
        batches: Inputs of the teacher.
        steps: Number of steps, 0 for none.
        seed: Seed of the order of the batches.
        fit_class: How a single mixer is fitted, by default for a decoder.
    """
    device = next(teacher.model.parameters()).device
    fit_class = fit_class or MixerFit
    fits = {i: fit_class(mixer.float().to(device)) for i, mixer in mixers.items()}

    def run(batch: Tensor, visit: Callable[[MixerFit, Tensor, LayerCall], None]):
        def show(call: LayerCall) -> None:
            norm = getattr(teacher.layers[call.index], teacher.norm)
            normed = norm(call.hidden).float()
            with torch.enable_grad():
                visit(fits[call.index], normed, call)

        watched = watch_layers(teacher.layers, fits, show, teacher.attention)
        with torch.no_grad(), watched:
            teacher.run(batch.to(device))

    with _attention_weights(teacher, {i: f.see_weights for i, f in fits.items()}):
        for batch in batches:
            run(batch, lambda fit, normed, call: fit.see_input(normed))
    for fit in fits.values():
        fit.start()
    if steps:
        generator = torch.Generator().manual_seed(seed)
        order = [
            int(i)
            for _ in range(0, steps, len(batches))
            for i in torch.randperm(len(batches), generator=generator)
        ]
        for step, i in enumerate(order[:steps]):
            left = 1 - step / steps
            run(batches[i], lambda fit, n, call, left=left: fit.step(n, call, left))
    fits = {i: fit for i, fit in fits.items() if fit.mixer.regresses_output}
    if fits:
        for batch in batches:
            run(batch, lambda fit, normed, call: fit.see_output(normed, call))
    for fit in fits.values():
        fit.finish()


@contextmanager
def _attention_weights(
    teacher: Layers, visits: dict[int, Callable[[Tensor], None]]
) -> Iterator[None]:
    """Pass the attention weights ``[B, H, L, L]`` of some layers to a function."""
    model = teacher.model
    implementation = model.config._attn_implementation
    handles = []
    model.set_attn_implementation('eager')
    try:
        for index, visit in visits.items():
            attention = getattr(teacher.layers[index], teacher.attention)
            handles.append(
                attention.register_forward_hook(
                    lambda module, args, output, visit=visit: visit(output[1])
                )
            )
        yield
    finally:
        for handle in handles:
            handle.remove()
        model.set_attn_implementation(implementation)


class MixerFit:
    """Statistics and parameters of one layer that are fitted.

    Args:
        mixer: The mixer.
    """

    def __init__(self, mixer: AttentionMixer) -> None:
        self.mixer = mixer.requires_grad_(True)
        self.distance: Tensor | float = 0.0
        self.mass: Tensor | float = 0.0
        self.moments: list[Tensor] | None = None
        self.optimizer: torch.optim.Optimizer | None = None

    @torch.no_grad()
    def see_weights(self, weights: Tensor) -> None:
        """Read the attention weights ``[B, H, L, L]``."""
        steps = torch.arange(weights.shape[-1], device=weights.device)
        apart = (steps[:, None] - steps).clamp_min(0).double()
        weights = weights[..., 1:].double()
        self.distance = self.distance + (weights * apart[:, 1:]).sum((0, 2, 3))
        self.mass = self.mass + weights.sum((0, 2, 3))

    def arguments(self, call: LayerCall) -> dict[str, Any]:
        """Keyword arguments of the mixer."""
        return {}

    def importance(self, target: Tensor) -> Tensor:
        """Weight of the squared error at each token, ``[L]``.

        Args:
            target: The attention's output ``[B, L, C]``.
        """
        return target.new_ones(target.shape[1])

    @torch.no_grad()
    def see_input(self, normed: Tensor) -> None:
        """Read the layer's input ``[B, L, C]``."""
        x = normed.flatten(0, 1).double()
        self._add(x.T @ x, x.sum(0))

    @torch.no_grad()
    def start(self) -> None:
        """Set decays and gates."""
        squares, total = self.moments
        constant = _ridge(squares, total[:, None], torch.zeros_like(total[:, None]))
        distances = self.distance / self.mass.clamp_min(1e-9)
        self.mixer.calibrate(distances, constant[:, 0])
        self.moments = None
        self.optimizer = torch.optim.AdamW(self.mixer.parameters(), weight_decay=0.0)

    def step(self, normed: Tensor, call: LayerCall, left: float) -> None:
        """One step of training towards the attention's output.

        Args:
            normed: The layer's input ``[B, L, C]``.
            call: What the teacher's layer did with it.
            left: Part of the steps that is left, by which the learning rate falls.
        """
        target = call.mixed.float()
        importance = self.importance(target)
        mixed = self.mixer(normed, **self.arguments(call))[0]
        error = ((mixed - target).square().mean((0, 2)) * importance).mean()
        scale = (target.square().mean((0, 2)) * importance).mean()
        self.optimizer.param_groups[0]['lr'] = left * self.mixer.calibration_rate
        self.optimizer.zero_grad()
        (error / scale.clamp_min(1e-12)).backward()
        nn.utils.clip_grad_norm_(self.mixer.parameters(), 1.0)
        self.optimizer.step()

    @torch.no_grad()
    def see_output(self, normed: Tensor, call: LayerCall) -> None:
        """Read the outputs of attention and mixer."""
        out = output_projection(self.mixer)
        y = call.mixed.double()
        root = self.importance(y).sqrt()[:, None]
        if out.bias is not None:
            y = y - out.bias
        x = heads_of(self.mixer, normed, self.arguments(call)).double()
        weighed = [each * root for each in (x, y, call.heads.double())]
        # A half of the rows each, or of a single row.
        halves = (each.tensor_split(2, 0 if len(x) > 1 else 1) for each in weighed)
        first, second = zip(*halves, strict=True)
        self._add(*self._moments(*first), *self._moments(*second))

    def _moments(self, x: Tensor, y: Tensor, heads: Tensor) -> list[Tensor]:
        x, y, heads = (each.flatten(0, 1) for each in (x, y, heads))
        count = self.mixer.config.num_attention_heads
        by_head = [(x * z).unflatten(-1, (count, -1)).sum((0, 2)) for z in (heads, x)]
        return [x.T @ x, x.T @ y, *by_head]

    @torch.no_grad()
    def finish(self) -> None:
        """Set the output projection."""
        out = output_projection(self.mixer)
        first, second = self.moments[:4], self.moments[4:]

        def fitted(moments: Sequence[Tensor], ridge: float) -> Tensor:
            squares, products, shared, own = moments
            factors = (shared / own.clamp_min(1e-12)).repeat_interleave(
                out.in_features // len(own)
            )
            prior = (out.weight.double() * factors).T
            return _ridge(squares, products, prior, ridge)

        def error(weight: Tensor, moments: Sequence[Tensor]) -> float:
            # Without the square of the target, which no weight changes.
            squares, products, *_ = moments
            return float((weight * (squares @ weight - 2 * products)).sum())

        def crossed(ridge: float) -> float:
            here = error(fitted(second, ridge), first)
            return here + error(fitted(first, ridge), second)

        both = [a + b for a, b in zip(first, second, strict=True)]
        out.weight.copy_(fitted(both, min(RIDGES, key=crossed)).T)

    def _add(self, *moments: Tensor) -> None:
        before = self.moments or [torch.zeros_like(m) for m in moments]
        self.moments = [a + b for a, b in zip(before, moments, strict=True)]


def _ridge(
    squares: Tensor, products: Tensor, prior: Tensor, ridge: float = RIDGE
) -> Tensor:
    """Coefficients ``[D, C]`` of a linear regression with a prior.

    Args:
        squares: Inputs times inputs, summed, ``[D, D]``.
        products: Inputs times targets, summed, ``[D, C]``.
        prior: ``[D, C]``.
        ridge: Weight of the prior, relative to the mean eigenvalue of ``squares``.
    """
    weight = ridge * squares.diagonal().mean().clamp_min(1e-12)
    eye = torch.eye(len(squares), dtype=squares.dtype, device=squares.device)
    return torch.linalg.solve(squares + weight * eye, products + weight * prior)
