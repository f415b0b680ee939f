"""Videos in files, with captions in mmaction's JSON format."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mmtransmamba.datasets.video_text.annotations import read_captions
from mmtransmamba.datasets.video_text.decoding import CorruptVideoError
from mmtransmamba.datasets.video_text.reading import read_video
from mmtransmamba.datasets.video_text.samples import pair_sample, video_sample
from mmtransmamba.registry import DATASETS, TASK_UTILS


@DATASETS.register_module()
class VideoText(BaseDataset):
    """Videos and their captions, for retrieval.

    In training, a sample is a video with one of its captions. In testing
    (``test_mode=True``), it is a video with all of them. See
    :mod:`mmtransmamba.datasets.video_text.samples`.

    A video that cannot be decoded is skipped, and the next one takes its place. In
    testing, that one then occurs twice, once without captions. The metric identifies
    videos by ``video_id``, so it covers the remaining videos. Each corrupt video is
    reported once, and too many are an error.

    Args:
        ann_file: mmaction's JSON, ``{file name: [captions]}``;
            ``tools/dataset_converters`` creates it from the official files.
        tokenizer: Config of the tokenizer, from ``TASK_UTILS``.
        data_prefix: ``video`` is the folder of the videos.
        max_corrupt: Largest accepted share of corrupt videos, in [0, 1), counted
            separately by each process of a distributed run.
        **kwargs: Other arguments of mmengine's ``BaseDataset``. The ``pipeline`` must
            output ``imgs`` as ``[3, T, H, W]``, see
            :func:`~mmtransmamba.datasets.video_text.reading.read_video`.

    Raises:
        FileNotFoundError: The annotations or some videos are missing.
        ValueError: ``max_corrupt`` is out of range, the annotations are malformed, or
            more than ``max_corrupt`` of the videos are corrupt.
    """

    def __init__(
        self,
        ann_file: str,
        tokenizer: dict,
        data_prefix: dict | None = None,
        max_corrupt: float = 0.01,
        **kwargs: Any,
    ) -> None:
        if not 0 <= max_corrupt < 1:
            raise ValueError(
                f'VideoText: max_corrupt must be in [0, 1), got {max_corrupt!r}'
            )
        self.max_corrupt = max_corrupt
        self.tokenizer = TASK_UTILS.build(tokenizer)
        super().__init__(
            ann_file=str(ann_file), data_prefix=data_prefix or dict(video=''), **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """Read the annotations and check that the videos exist."""
        videos = read_captions(self.ann_file)
        folder = Path(self.data_prefix['video'])
        missing = [name for name in videos if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f'VideoText: {len(missing)} of the {len(videos)} videos in '
                f'{self.ann_file} are not in "{folder}", the first ones '
                f'{", ".join(missing[:5])}. The converters in '
                'tools/dataset_converters leave them out with --videos.'
            )
        # Shared by all workers, so that they know about each other's findings.
        self._corrupt = torch.zeros(len(videos), dtype=torch.bool).share_memory_()
        samples = []
        caption_id = 0
        for number, (name, captions) in enumerate(videos.items()):
            video = dict(filename=str(folder / name), video_id=name, number=number)
            if self.test_mode:
                samples.append(dict(video, captions=captions))
                continue
            for caption in captions:
                samples.append(dict(video, caption=caption, caption_id=caption_id))
                caption_id += 1
        return samples

    @property
    def num_corrupt(self) -> int:
        """The number of corrupt videos found so far."""
        self.full_init()
        return int(self._corrupt.sum())

    def __getitem__(self, idx: int) -> dict:
        """The sample, or the next one whose video can be decoded."""
        self.full_init()
        if not 0 <= idx < len(self):
            raise IndexError(f'sample {idx} of {len(self)}')
        wanted = idx
        while True:
            sample = self.get_data_info(idx)
            if not self._corrupt[sample['number']]:
                try:
                    return self._read(sample, stand_in=idx != wanted)
                except CorruptVideoError as error:
                    self._skip(sample['number'], error)
            idx = (idx + 1) % len(self)

    def _read(self, sample: dict, stand_in: bool) -> dict:
        """Decode the video of a sample and tokenise its captions.

        Raises:
            CorruptVideoError: The video cannot be decoded.
        """
        name = sample['video_id']
        video = read_video(self.pipeline, sample['filename'])
        if not self.test_mode:
            return pair_sample(
                video, name, sample['caption'], sample['caption_id'], self.tokenizer
            )
        read = video_sample(video, name, sample['captions'], self.tokenizer)
        if stand_in:
            read['captions'] = {key: v[:0] for key, v in read['captions'].items()}
        return read

    def _skip(self, number: int, error: CorruptVideoError) -> None:
        """Record a corrupt video, or raise if there are too many."""
        self._corrupt[number] = True
        count, total = int(self._corrupt.sum()), len(self._corrupt)
        message = f'VideoText: {error}; {count} of {total} videos are corrupt so far'
        if count > self.max_corrupt * total or count == total:
            raise ValueError(
                f'{message}; accepted are at most {self.max_corrupt:.2%} (max_corrupt)'
            ) from error
        print_log(f'{message}: skipped.', 'current', logging.WARNING)
