"""Reading of a video file's pixels with a pipeline of transforms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mmtransmamba.datasets.video_text.decoding import CorruptVideoError

Pipeline = Callable[[dict], dict | None]


def read_video(pipeline: Pipeline, path: str | Path) -> Tensor:
    """Run a pipeline, which may be one of mmaction2's, on a video file.

    Args:
        pipeline: Its input is ``filename`` and the keys that mmaction2's datasets set
            for video files, ``modality`` and ``start_index``. It must output ``imgs``
            as ``[3, T, H, W]``.
        path: The file.

    Returns:
        ``imgs``, as a tensor.

    Raises:
        CorruptVideoError: The video cannot be decoded, by any decoder.
        FileNotFoundError: The file does not exist.
        ValueError: The pipeline does not output such ``imgs``.
    """
    given = dict(filename=str(path), modality='RGB', start_index=0)
    try:
        results = pipeline(given)
    except CorruptVideoError:
        raise
    except Exception as error:
        if not _is_decoders(error, given):
            raise
        reason = ' '.join(str(error).split()[-20:]) or type(error).__name__
        raise CorruptVideoError(f'{path} cannot be decoded: {reason}') from error
    if 'imgs' not in (results or ()):
        raise ValueError(
            f'The pipeline of {path} leaves no imgs; accepted: one that ends with '
            "mmaction.FormatShape, input_format='NCTHW' (without PackActionInputs)."
        )
    imgs = results['imgs']
    if getattr(imgs, 'ndim', 0) != 4 or imgs.shape[0] != 3:
        shape = getattr(imgs, 'shape', f'a {type(imgs).__name__}')
        raise ValueError(
            f'The pipeline of {path} leaves imgs of the shape {shape}; accepted: '
            '[3, T, H, W], of one clip, as mmaction.FormatShape with '
            "input_format='NCTHW', collapse=True makes it."
        )
    return torch.as_tensor(imgs)


def _is_decoders(error: Exception, given: dict) -> bool:
    """Whether an error comes from the file; mmaction2's decoders have no class for it.

    Before there are frames in ``given``, they raise errors of their library, or errors
    caused by a video without frames.
    """
    if 'imgs' in given or isinstance(error, FileNotFoundError):
        return False
    library = type(error).__module__.partition('.')[0]
    return library in ('av', 'decord') or isinstance(
        error, RuntimeError | ValueError | IndexError
    )
