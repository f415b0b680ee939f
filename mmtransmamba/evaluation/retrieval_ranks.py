"""Ranks in retrieval, computed in blocks of the similarity matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Cosines of float32 vectors that should be equal differ by rounding.
TIE = 1e-6


@dataclass
class Ranks:
    """The rank of each query's first right answer.

    Answers of equal similarity, such as those of a model with constant output, have no
    order among them. A rank is then the expectation over all orders, and so is a
    recall: neither depends on the order of the data set.

    Attributes:
        better: Number of wrong answers above the best right one, ``[Q]``.
        tied: Number of wrong answers tied with it, ``[Q]``.
        right: Number of right answers tied with it, including itself, ``[Q]``.
    """

    better: Tensor
    tied: Tensor
    right: Tensor

    def expected(self) -> Tensor:
        """Rank from 1 of the first right answer, the mean over ties: ``[Q]``."""
        # `right` answers divide the tied ones into right + 1 runs of equal mean length.
        return 1 + self.better + self.tied.double() / (self.right + 1)

    def recall(self, k: int) -> float:
        """Share of queries with a right answer among the first ``k``, in percent."""
        places = (k - self.better).clamp(min=0)
        missed = torch.ones(len(places), dtype=torch.float64)
        for i in range(k):
            # Probability that tied place i is wrong too, given the places before it.
            wrong = (self.tied - i).clamp(min=0).double()
            chance = wrong / (wrong + self.right)
            missed = torch.where(i < places, missed * chance, missed)
        return float(100 * (1 - missed).mean())

    def median(self) -> float:
        """Median of the expected ranks; for an even number, the mean of the middle
        two."""
        return float(self.expected().quantile(0.5))

    def mean(self) -> float:
        """Mean of the expected ranks."""
        return float(self.expected().mean())


def similarity_blocks(
    texts: Tensor, videos: Tensor, block_size: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """The matrix ``texts @ videos.T`` in blocks of at most ``block_size`` squared.

    Yields:
        Rows, columns, and the block.
    """
    for row in range(0, len(texts), block_size):
        rows = slice(row, min(row + block_size, len(texts)))
        for column in range(0, len(videos), block_size):
            columns = slice(column, min(column + block_size, len(videos)))
            yield rows, columns, texts[rows] @ videos[columns].T


@torch.no_grad()
def rank_pairs(
    texts: Tensor, videos: Tensor, video_of_text: Tensor, block_size: int = 2048
) -> tuple[Ranks, Ranks]:
    """Ranks from text to video and from video to text.

    A video has one or more captions. Its rank from video to text is that of its first
    caption among the captions of all videos.

    Args:
        texts: Float32 embeddings ``[M, D]`` of length 1.
        videos: Float32 embeddings ``[N, D]`` of length 1.
        video_of_text: Index of the video that each caption describes, int64 ``[M]``.
        block_size: Side of the blocks. Memory beyond the embeddings grows with its
            square and with M + N, not with M times N.

    Returns:
        Ranks of the M captions' videos, and of the N videos' captions, on the CPU.

    Raises:
        ValueError: A video has no caption, or an embedding is not finite.
    """
    for name, embeddings in (('captions', texts), ('videos', videos)):
        bad = ~embeddings.isfinite().all(1)
        if bad.any():
            # Comparisons with non-finite values are false, so they would rank first.
            raise ValueError(
                f'The embeddings of {int(bad.sum())} of {len(bad)} {name} are not '
                'finite.'
            )
    uncaptioned = torch.bincount(video_of_text, minlength=len(videos)) == 0
    if uncaptioned.any():
        raise ValueError(
            f'{int(uncaptioned.sum())} of {len(videos)} videos have no caption, such '
            f'as number {int(uncaptioned.nonzero()[0])}.'
        )
    own = torch.empty(len(texts), device=texts.device)
    for rows in torch.arange(len(texts), device=texts.device).split(block_size):
        own[rows] = (texts[rows] * videos[video_of_text[rows]]).sum(1)
    best = torch.full((len(videos),), -torch.inf, device=texts.device)
    best.scatter_reduce_(0, video_of_text, own, 'amax')

    counts = [
        torch.zeros(n, dtype=torch.int64, device=texts.device)
        for n in (len(texts), len(texts), len(videos), len(videos))
    ]
    for rows, columns, block in similarity_blocks(texts, videos, block_size):
        # Right answers are not counted: each caption's own video is moved to the end.
        column = video_of_text[rows] - columns.start
        inside = ((column >= 0) & (column < block.shape[1])).nonzero()[:, 0]
        block[inside, column[inside]] = -torch.inf
        for side, reference, where, dim in (
            (0, own[rows, None], rows, 1),
            (2, best[columns], columns, 0),
        ):
            # Summing to int64, the default, is slower than the matrix product.
            above = (block > reference + TIE).sum(dim, dtype=torch.int32)
            counts[side][where] += above
            level = (block >= reference - TIE).sum(dim, dtype=torch.int32)
            counts[side + 1][where] += level - above
    near_best = (own >= best[video_of_text] - TIE).long()
    level_captions = torch.zeros_like(counts[2])
    level_captions.scatter_add_(0, video_of_text, near_best)
    to_video = Ranks(counts[0].cpu(), counts[1].cpu(), torch.ones_like(counts[0]).cpu())
    to_text = Ranks(counts[2].cpu(), counts[3].cpu(), level_captions.cpu())
    return to_video, to_text
