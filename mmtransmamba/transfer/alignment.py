"""Alignment of teacher features with the student's grid, scan order and width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from mmtransmamba.models.taps import LayerFeature


def resample_tokens(
    tokens: Tensor, grid: tuple[int, ...], target: tuple[int, ...]
) -> Tensor:
    """Resample tokens to another grid, linearly along every axis.

    Args:
        tokens: ``[B, L, C]`` in raster order of ``grid``.
        grid: Rows and columns; for a video, preceded by the frames.
        target: Target grid, with as many axes; or that of a video if ``grid`` is that
            of a single image, whose tokens are then repeated for every frame.

    Returns:
        ``[B, L', C]`` in raster order of ``target``, ``tokens`` itself if the grids
        agree.

    Raises:
        ValueError: A video's tokens are requested for a single image.
    """
    if tuple(grid) == tuple(target):
        return tokens
    if len(grid) > len(target):
        raise ValueError(
            f'Tokens of a video, with the grid {tuple(grid)} of frames, rows and '
            f'columns, cannot supervise the single image grid {tuple(target)}.'
        )
    # First treat frames as images of the batch, then time is the only remaining axis.
    (*frames, _, _), (*wanted, height, width) = grid, target
    maps = tokens.unflatten(1, (*(frames or (1,)), *grid[-2:])).flatten(0, 1)
    maps = maps.permute(0, 3, 1, 2).float()
    if tuple(grid[-2:]) != (height, width):
        maps = F.interpolate(
            maps, size=(height, width), mode='bilinear', antialias=True
        )
    maps = maps.flatten(2).transpose(1, 2).unflatten(0, (len(tokens), -1))
    if wanted and maps.shape[1] != wanted[0]:
        in_time = F.interpolate(maps.flatten(2).mT, size=wanted[0], mode='linear')
        maps = in_time.mT.unflatten(2, maps.shape[2:])
    return maps.flatten(1, 2)


def match_layers(
    num_student: int, num_teacher: int, choice: str | int | Sequence[int]
) -> list[int]:
    """Choose the teacher layer that supervises each student layer.

    Args:
        num_student: Number of student layers.
        num_teacher: Number of teacher layers.
        choice: ``'auto'``: layer i with layer i if the depths agree (Eq. 4), else
            the last for all (Eq. 5); ``'last'``; ``'uniform'``: evenly spread over
            the teacher's depth; one index for all; or a list with one per student
            layer. Indices count from 0, or from the end if negative.

    Returns:
        ``num_student`` indices in ``[0, num_teacher)``.

    Raises:
        ValueError: Unknown choice, wrong length, or index out of range.
    """
    if choice == 'auto':
        choice = list(range(num_student)) if num_student == num_teacher else 'last'
    if choice == 'last':
        choice = num_teacher - 1
    if choice == 'uniform':
        # Rounded up: each block with the end of its part of the teacher.
        choice = [
            -(-i * num_teacher // num_student) - 1 for i in range(1, num_student + 1)
        ]
    if isinstance(choice, int):
        choice = [choice] * num_student
    if isinstance(choice, str) or len(choice) != num_student:
        raise ValueError(
            f"teacher_layer={choice!r} must be 'auto', 'last', 'uniform', an index, or "
            f'a list of {num_student} indices, one per student layer.'
        )
    bad = [i for i in choice if not -num_teacher <= i < num_teacher]
    if bad:
        raise ValueError(
            f'teacher_layer={list(choice)}: the teacher has {num_teacher} layers, '
            f'indices lie in [{-num_teacher}, {num_teacher - 1}].'
        )
    return [i % num_teacher for i in choice]


class TeacherTokens:
    """The teacher's layers of one step, resampled once per layer and grid.

    Args:
        layers: Features of the teacher's layers, by index.
    """

    def __init__(
        self, layers: Sequence[LayerFeature] | Mapping[int, LayerFeature]
    ) -> None:
        self._layers = layers
        self._cache: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def on_grid(self, layer: int, grid: tuple[int, ...]) -> Tensor:
        """Patch tokens ``[B, L, C]`` of ``layer`` on ``grid``, in raster order."""
        key = (layer, tuple(grid))
        if key not in self._cache:
            feature = self._layers[layer]
            self._cache[key] = resample_tokens(feature.tokens, feature.grid, grid)
        return self._cache[key]


class Aligner(nn.Linear):
    """Learned linear map from the student's width to the teacher's.

    It is initialised as the identity on the channels that both have.
    """

    def reset_parameters(self) -> None:
        with torch.no_grad():
            nn.init.eye_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[..., C]`` of any dtype, in the dtype of the weights."""
        return super().forward(tokens.to(self.weight.dtype))


class ReverseProjection(nn.Module):
    r"""The "reverse-aware" projection of teacher tokens (TransMamba Eq. 11).

    One learned linear map per direction, shared by the layers. It is kept orthogonal:
    student and teacher are both mapped by learned matrices before their cosine is
    taken, and an unconstrained pair could agree on mapping everything to one vector.
    The first direction, the forward scan, is compared with the unmapped teacher
    (Eq. 10). All maps are initialised as the identity.

    Args:
        dim: Width C of the teacher's tokens.
        num_directions: Number K of directions.
    """

    def __init__(self, dim: int, num_directions: int) -> None:
        super().__init__()
        self.maps = None
        if num_directions > 1:
            self.maps = nn.Module()
            self.maps.weight = nn.Parameter(
                torch.eye(dim).repeat(num_directions - 1, 1, 1)
            )
            orthogonal(self.maps)

    def forward(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Map tokens of several layers, ``[B, K, M, C]`` each, direction by direction.

        All layers are mapped at once, because computing the orthogonal matrices costs
        more than applying them.
        """
        if self.maps is None:
            return list(tokens)
        matrices = self.maps.weight
        return [
            torch.cat((t[:, :1], torch.einsum('bkmc,kdc->bkmd', t[:, 1:], matrices)), 1)
            for t in (t.to(matrices.dtype) for t in tokens)
        ]
