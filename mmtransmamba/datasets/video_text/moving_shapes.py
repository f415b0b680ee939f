"""Generated videos of moving shapes with captions."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mmtransmamba.datasets.video_text.samples import pair_sample, video_sample
from mmtransmamba.datasets.video_text.shapes_captions import ShapesTokenizer, describe
from mmtransmamba.datasets.video_text.shapes_drawing import (
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Scene,
    draw_scene,
)
from mmtransmamba.registry import DATASETS

TEST_PART = 0.25
# Independent streams of random numbers from one seed.
_SPLIT, _DRAWING, _WORDS = range(3)


def all_scenes() -> list[Scene]:
    """Every combination in which the shape has room to move, in a fixed order."""
    scenes = []
    for shape, colour, size, motion in product(SHAPES, COLOURS, SIZES, MOTIONS):
        x, y = MOTIONS[motion]
        for column, row in product(range(3), range(3)):
            # No shape leaves the image: one that moves left does not start at the left.
            if 0 <= column + x <= 2 and 0 <= row + y <= 2:
                scenes.append(Scene(shape, colour, size, motion, column, row))
    return scenes


@DATASETS.register_module()
class MovingShapes(Dataset):
    """Generated videos of coloured shapes that move over a background, with captions.

    Needs no download. A caption states shape, colour, size, direction and start, so it
    matches one of the 2,304 combinations. A quarter of them occurs only in the test
    split: to find these, a model must combine what it learned from other combinations.
    A smaller training set is a prefix of a larger one.

    Samples are those of :mod:`mmtransmamba.datasets.video_text.samples`; videos are
    uint8 ``[3, T, H, W]``. They depend only on the arguments, and are drawn when they
    are read.

    Args:
        split: ``'train'`` or ``'test'``.
        num_videos: Number of videos. Combinations repeat only after all of the split
            have been used.
        captions_per_video: Captions per video.
        num_frames: Frames per video.
        img_size: Side in pixels.
        seed: Seed of everything, including the choice of the test combinations.
        test_mode: Return videos with all of their captions instead of pairs.

    Raises:
        ValueError: An argument is out of range.
    """

    metainfo: dict = {}

    def __init__(
        self,
        split: str = 'train',
        num_videos: int = 256,
        captions_per_video: int = 2,
        num_frames: int = 8,
        img_size: int = 32,
        seed: int = 0,
        test_mode: bool = False,
    ) -> None:
        if split not in ('train', 'test'):
            raise ValueError(
                f"MovingShapes: split must be 'train' or 'test', got {split!r}"
            )
        for name, value in (
            ('num_videos', num_videos),
            ('captions_per_video', captions_per_video),
            ('num_frames', num_frames),
        ):
            if value < 1:
                raise ValueError(f'MovingShapes: {name}={value} must be positive.')
        if img_size < 16:
            raise ValueError(f'MovingShapes: img_size={img_size} must be 16 at least.')
        self.split = split
        self.num_videos = num_videos
        self.captions_per_video = captions_per_video
        self.num_frames = num_frames
        self.img_size = img_size
        self.seed = seed
        self.test_mode = test_mode
        self.tokenizer = ShapesTokenizer()

        scenes = all_scenes()
        order = np.random.default_rng([seed, _SPLIT]).permutation(len(scenes))
        num_test = round(TEST_PART * len(scenes))
        chosen = order[:num_test] if split == 'test' else order[num_test:]
        self.scenes = [scenes[i] for i in chosen]

    def _rng(self, stream: int, *numbers: int) -> np.random.Generator:
        is_test = int(self.split == 'test')
        return np.random.default_rng([self.seed, stream, is_test, *numbers])

    def scene(self, video: int) -> Scene:
        """The content of video number ``video``."""
        return self.scenes[video % len(self.scenes)]

    def video(self, video: int) -> torch.Tensor:
        """Video number ``video``, uint8 ``[3, T, H, W]``."""
        pixels = draw_scene(
            self.scene(video),
            self._rng(_DRAWING, video),
            self.num_frames,
            self.img_size,
        )
        return torch.from_numpy(pixels)

    def caption(self, video: int, number: int) -> str:
        """Caption number ``number`` of a video."""
        return describe(self.scene(video), self._rng(_WORDS, video, number))

    def __len__(self) -> int:
        return self.num_videos * (1 if self.test_mode else self.captions_per_video)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f'sample {index} of {len(self)}')
        if self.test_mode:
            captions = [self.caption(index, i) for i in range(self.captions_per_video)]
            return video_sample(
                self.video(index), f'{self.split}{index}', captions, self.tokenizer
            )
        video, number = divmod(index, self.captions_per_video)
        return pair_sample(
            self.video(video),
            f'{self.split}{video}',
            self.caption(video, number),
            index,
            self.tokenizer,
        )
