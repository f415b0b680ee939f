"""Weights of the layers in a sum of layer-wise losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmtransmamba.registry import MODELS


@MODELS.register_module()
class UniformWeighting(nn.Module):
    """Weight 1 for every layer (TransMamba Eq. 4 and 5)."""

    def bind(self, num_layers: int, dim: int) -> None:
        """Do nothing: see :meth:`AdaptiveWeighting.bind`."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weights ``[G, N]`` for pooled features ``[G, N, C]``."""
        return student.new_ones(student.shape[:2])

    def regularizer(self, weights: Tensor) -> Tensor | None:
        return None


@MODELS.register_module()
class LayerIndexWeighting(UniformWeighting):
    """Proportional to the layer's number, 1 to N, as in the authors' released code.

    Args:
        normalize: Scale the weights to the sum N, as in the other weightings; False
            uses the literal number.
    """

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        groups, num_layers = student.shape[:2]
        weights = torch.arange(1.0, num_layers + 1, device=student.device)
        if self.normalize:
            weights = weights * (num_layers / weights.sum())
        return weights.expand(groups, num_layers)


@MODELS.register_module()
class AdaptiveWeighting(nn.Module):
    r"""The Adapt-factor of TransMamba Eq. 6: a meta-network shared by all layers.

    A two-layer network reads the pooled student and teacher features of a layer,
    detached, and the layer's relative depth, and outputs one number. A softmax over the
    layers times N gives weights with the sum N, so shrinking them cannot reduce the
    loss. It learns from the distillation loss itself together with
    :math:`\lambda N (\log N - H(w / N))`. Without that term, all weight on the easiest
    layer is the minimum; with it, the minimum has weights proportional to
    :math:`\exp(-l_i / \lambda)` for layer losses :math:`l_i`.

    Args:
        hidden_dim: Width of the hidden layer, which the paper does not state.
        temperature: Divides the network's outputs before the softmax.
        entropy_weight: :math:`\lambda`.
    """

    def __init__(
        self,
        hidden_dim: int = 32,
        temperature: float = 1.0,
        entropy_weight: float = 0.1,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(
                f'AdaptiveWeighting: temperature={temperature} must be greater than 0.'
            )
        if entropy_weight < 0:
            raise ValueError(
                f'AdaptiveWeighting: entropy_weight={entropy_weight} must not be '
                'negative.'
            )
        self.hidden_dim = hidden_dim
        self.temperature = temperature
        self.entropy_weight = entropy_weight

    def bind(self, num_layers: int, dim: int) -> None:
        """Create the network.

        Args:
            num_layers: Number N of layers to be weighted.
            dim: Width C of the pooled features.
        """
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.net = nn.Sequential(
            nn.Linear(2 * dim + 1, self.hidden_dim),
            nn.GELU(),
            # A bias would shift all scores equally, which the softmax ignores.
            nn.Linear(self.hidden_dim, 1, bias=False),
        )
        # All layers have equal weights until the network has learned better ones.
        nn.init.zeros_(self.net[-1].weight)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weights of N layers in each of G groups (directions).

        Args:
            student, teacher: Features pooled over batch and tokens, ``[G, N, C]``.

        Returns:
            Weights ``[G, N]``, positive; each row has the sum N.
        """
        groups, num_layers, _ = student.shape
        depth = torch.linspace(0, 1, num_layers, device=student.device)
        features = torch.cat(
            (
                self.norm(student.detach().float()),
                self.norm(teacher.detach().float()),
                depth.view(1, -1, 1).expand(groups, -1, 1),
            ),
            dim=-1,
        )
        features = features.to(self.net[0].weight.dtype)
        scores = self.net(features).squeeze(-1) / self.temperature
        return num_layers * scores.softmax(dim=-1)

    def regularizer(self, weights: Tensor) -> Tensor | None:
        """The entropy term for weights ``[G, N]``, summed over groups; >= 0."""
        if self.entropy_weight == 0:
            return None
        num_layers = weights.shape[1]
        p = weights / num_layers
        gap = (p * (p * num_layers).clamp_min(1e-12).log()).sum(-1)
        return self.entropy_weight * num_layers * gap.sum()
