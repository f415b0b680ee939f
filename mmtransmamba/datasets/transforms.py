"""Image transforms that mmpretrain does not have."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmtransmamba.registry import TRANSFORMS

_INTERPOLATIONS = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
}


@TRANSFORMS.register_module()
class RandomAffine(BaseTransform):
    """Rotate, scale, shear and shift an image, in one interpolation.

    mmpretrain has these as separate transforms. On small images, each additional
    interpolation blurs visibly and costs as much as this whole transform.

    Required and modified key: ``img``, ``[H, W]`` or ``[H, W, C]``.

    Args:
        degrees: The rotation is drawn from ``[-degrees, degrees]``.
        translate: Shifts are drawn from ``[-translate, translate]``, as fractions of
            width and height.
        scale: Range of the scaling factor.
        shear: The horizontal shear is drawn from ``[-shear, shear]`` degrees.
        interpolation: ``'nearest'``, ``'bilinear'`` or ``'bicubic'``.
        pad_val: Value of the pixels that come from outside the image.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        shear: float = 0.0,
        interpolation: str = 'bilinear',
        pad_val: int = 0,
    ) -> None:
        for name, value, limit in (
            ('degrees', degrees, 180),
            ('translate', translate, 1),
            ('shear', shear, 89),
        ):
            if not 0 <= value <= limit:
                raise ValueError(
                    f'RandomAffine: {name} must be in [0, {limit}], got {value!r}'
                )
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f'RandomAffine: scale must be (low, high) with 0 < low <= high, '
                f'got {scale!r}'
            )
        if interpolation not in _INTERPOLATIONS:
            raise ValueError(
                f'RandomAffine: interpolation must be one of {list(_INTERPOLATIONS)}, '
                f'got {interpolation!r}'
            )
        self.degrees = degrees
        self.translate = translate
        self.scale = tuple(scale)
        self.shear = shear
        self.interpolation = interpolation
        self.pad_val = pad_val

    @cache_randomness
    def _random_matrix(self, height: int, width: int) -> np.ndarray:
        """Draw the map from input to output pixels, float64 ``[2, 3]``."""
        angle, shear, shift_x, shift_y = np.random.uniform(-1, 1, size=4)
        angle = np.deg2rad(angle * self.degrees)
        shear = np.tan(np.deg2rad(shear * self.shear))
        factor = np.random.uniform(*self.scale)
        cos, sin = factor * np.cos(angle), factor * np.sin(angle)
        linear = np.array([[cos, cos * shear - sin], [sin, sin * shear + cos]])
        # Around the centre of the image, which lies between pixels for even sizes.
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        shift = self.translate * np.array([shift_x * width, shift_y * height])
        return np.column_stack([linear, centre + shift - linear @ centre])

    def transform(self, results: dict) -> dict:
        """Warp ``results['img']``; shape and dtype do not change."""
        img = results['img']
        height, width = img.shape[:2]
        warped = cv2.warpAffine(
            img,
            self._random_matrix(height, width),
            (width, height),
            flags=_INTERPOLATIONS[self.interpolation],
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(self.pad_val,) * 4,
        )
        results['img'] = warped.reshape(img.shape)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(degrees={self.degrees}, '
            f'translate={self.translate}, scale={self.scale}, shear={self.shear}, '
            f'interpolation={self.interpolation!r}, pad_val={self.pad_val})'
        )
