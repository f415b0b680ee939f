"""Bridges of mmaction."""

import functools
import sys
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from .bridging import bridges, replaced, supplied
from .mmpretrain import find_pruneable_heads_and_indices


@bridges('mmaction')
def _accept_newer_mmcv_in_mmaction(execute: Callable[[], None]) -> None:
    """mmaction 1.2.0 asserts ``mmcv < 2.2.0``; it works with the newer fork.

    Its ``__init__`` only checks versions, so it can be executed again.
    """
    try:
        execute()
    except AssertionError as error:
        if 'MMCV' not in str(error):
            raise
        with replaced(import_module('mmcv'), '__version__', '2.1.0'):
            execute()


@bridges('mmaction.models')
def _complete_mmaction_models(execute: Callable[[], None]) -> None:
    """Imports of mmaction 1.2.0 that are missing from its wheel or from transformers.

    The wheel lacks ``localizers/drn``, which breaks the import of all its models.
    """
    names = {}
    if import_module('mmaction.utils.dependency').WITH_MULTIMODAL:
        pytorch_utils = import_module('transformers.pytorch_utils')
        names = {
            'apply_chunking_to_forward': pytorch_utils.apply_chunking_to_forward,
            'prune_linear_layer': pytorch_utils.prune_linear_layer,
            'find_pruneable_heads_and_indices': find_pruneable_heads_and_indices,
        }
    package_dir = Path(import_module('mmaction').__file__).parent
    drn = 'mmaction.models.localizers.drn.drn'
    lacks_drn = not (package_dir / 'models/localizers/drn').is_dir()
    if lacks_drn:
        sys.modules[drn] = types.ModuleType(drn)
        sys.modules[drn].DRN = _MissingDRN
    try:
        if names:
            with supplied(import_module('transformers.modeling_utils'), **names):
                execute()
        else:
            execute()
    finally:
        if lacks_drn:
            del sys.modules[drn]


class _MissingDRN:
    """Replaces the DRN localizer that mmaction's wheel lacks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ImportError(
            'DRN is not part of the installed mmaction2; install mmaction2 from '
            'its source repository to use it.'
        )


@bridges('mmaction.datasets.transforms.processing')
def _let_mmaction_lower_hues(execute: Callable[[], None]) -> None:
    """mmaction 1.2.0 adds a negative number to bytes, which numpy 2 refuses."""
    execute()
    np = import_module('numpy')
    jitter = sys.modules['mmaction.datasets.transforms.processing'].ColorJitter
    original = jitter.adjust_hue
    try:
        original(np.zeros((1, 1, 3), np.float32), -0.1)
    except OverflowError:
        jitter.adjust_hue = staticmethod(functools.wraps(original)(_adjust_hue))


def _adjust_hue(img: Any, factor: float) -> Any:
    """Shift the hue of an RGB image on the scale 0..255, ``[H, W, 3]``.

    As mmaction's ``ColorJitter.adjust_hue``, but the sum cannot overflow.
    """
    np, cv2 = import_module('numpy'), import_module('cv2')
    image = np.clip(img, 0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    # OpenCV has 180 hues.
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + int(factor * 255)) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32)
