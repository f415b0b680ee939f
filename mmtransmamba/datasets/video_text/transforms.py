"""Video transforms that come before mmaction2's."""

from __future__ import annotations

from mmcv.transforms import BaseTransform

from mmtransmamba.datasets.video_text.decoding import DECODERS, decode_video
from mmtransmamba.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DecodeVideo(BaseTransform):
    """Decode frames spread evenly over a video.

    This replaces mmaction2's ``…Init``, ``UniformSample`` and ``…Decode``, whose PyAV
    reader trusts the header (which has no frame count in an mkv) and ignores rotation
    tags. The following transforms can be mmaction2's: ``Resize``, ``CenterCrop``,
    ``FormatShape`` and so on.

    Required key: ``filename``. Added: ``imgs``, a list of RGB frames
    ``[H, W, 3]``; ``original_shape``, ``img_shape``, ``clip_len``, ``num_clips``.

    Args:
        num_frames: Frames per video.
        jitter: Draw each frame from its segment instead of taking the middle one.
        decoder: ``'pyav'`` or ``'decord'``.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self, num_frames: int, jitter: bool = False, decoder: str = 'pyav'
    ) -> None:
        if num_frames < 1:
            raise ValueError(f'DecodeVideo: num_frames={num_frames} must be positive.')
        if decoder not in DECODERS:
            raise ValueError(
                f'DecodeVideo: decoder must be one of {list(DECODERS)}, got {decoder!r}'
            )
        self.num_frames = num_frames
        self.jitter = jitter
        self.decoder = decoder

    def transform(self, results: dict) -> dict:
        """Decode ``results['filename']``.

        Raises:
            CorruptVideoError: The video cannot be decoded.
        """
        frames = decode_video(
            results['filename'], self.num_frames, self.jitter, self.decoder
        )
        results['imgs'] = frames
        results['original_shape'] = results['img_shape'] = frames[0].shape[:2]
        results['clip_len'], results['num_clips'] = self.num_frames, 1
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_frames={self.num_frames}, '
            f'jitter={self.jitter}, decoder={self.decoder!r})'
        )
