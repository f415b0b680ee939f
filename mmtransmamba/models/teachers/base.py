"""One interface over pre-trained vision models of any library."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.taps import LayerFeature
from mmtransmamba.models.teachers.class_order import order_of_classes
from mmtransmamba.models.teachers.layout import (
    Layout,
    in_channels,
    pooled_feature,
    probe_image,
    recorded_outputs,
    split_tokens,
)
from mmtransmamba.models.teachers.vit_names import to_canonical

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
HALF = (torch.float16, torch.bfloat16)

HEADS = ('head.weight', 'head.bias', 'head_dist.weight', 'head_dist.bias')
"""Canonical names of tensors with a row for each class."""


@dataclass
class TeacherOutput:
    """Outputs of a teacher for a batch, float32 throughout.

    Attributes:
        layers: Tokens after each block, before the final norm; for a recorded output,
            those of the recorded blocks by their index.
        feature: Final feature ``[B, C]``: the class token after the final norm, the
            mean of the patch tokens in a model without class token, or, in a model
            without final norm, what the classifier reads. DINOv2's classifier reads
            the mean of the patches beside the class token.
        logits: ``[B, num_classes]``, None without a classifier.
    """

    layers: Sequence[LayerFeature] | Mapping[int, LayerFeature]
    feature: Tensor
    logits: Tensor | None


class BaseTeacher(nn.Module, metaclass=ABCMeta):
    """A frozen pre-trained vision model.

    It always stays in eval mode, even after ``train()``, none of its parameters
    requires a gradient, and :meth:`forward` records none. It normalises images by its
    own mean and standard deviation, not by the student's. At construction it runs on
    one image twice, so an unsupported model fails there.

    Args:
        model: The library's model.
        root: The part of the model without head, which contains the blocks.
        layout: The modules to read.
        mean: Per channel, on the scale 0..255.
        std: Per channel, on the scale 0..255.
        native_size: Height and width in pixels for which the model was made.
        input_size: Size (side, or height and width) images are resized to,
            bilinearly; None leaves them as they are.
        dtype: ``'float32'`` follows the surrounding autocast; ``'bfloat16'`` stores
            weights and computes in bfloat16. A teacher that is cast later, for example
            with a distiller, computes in its new dtype. Outputs are float32 in all
            cases.
        class_order: The teacher's index of each class of the data set, for a teacher
            with additional classes or another order; ``'names'`` to match the names
            that both have for their classes, which
            :class:`~mmtransmamba.engine.hooks.TeacherCheckHook` does.
        class_names: The model's class names, None if it has none.

    Attributes:
        num_layers: Number of layers in the output.
        layer_dims: Width of each.
        layer_grids: Token grid of each at the size to which images are resized, or at
            ``native_size``.
        feature_dim: Width of the final feature.
        num_classes: Number of logits, None without a classifier.
        class_names: Names of the classes in the order of the logits, or None.
        ordered_by_names: Whether :meth:`order_by_names` must be called.

    Raises:
        ValueError: An argument is invalid, or the model's outputs cannot be read.
    """

    def __init__(
        self,
        model: nn.Module,
        root: nn.Module,
        layout: Layout,
        mean: Sequence[float],
        std: Sequence[float],
        native_size: tuple[int, int],
        input_size: int | Sequence[int] | None = None,
        dtype: str = 'float32',
        class_order: str | Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if dtype not in DTYPES:
            raise ValueError(f'{name}: dtype={dtype!r} must be one of {list(DTYPES)}.')
        if isinstance(input_size, int):
            input_size = (input_size, input_size)
        self.in_channels = in_channels(root)
        for key, value in (('mean', mean), ('std', std)):
            if len(value) != self.in_channels:
                raise ValueError(
                    f'{name}: {key}={list(value)} must have one number per image '
                    f'channel, {self.in_channels}.'
                )
        self.model = model
        self.layout = layout
        self._class_order: list[int] | None = None
        self.ordered_by_names = False
        self.native_size = tuple(native_size)
        self.input_size = None if input_size is None else tuple(input_size)
        for key, value in (('mean', mean), ('std', std)):
            statistics = torch.tensor(value).float().view(-1, 1, 1)
            self.register_buffer(key, statistics, persistent=False)
        self.model.to(DTYPES[dtype])
        self.requires_grad_(False)
        self.eval()

        size = self.input_size or self.native_size
        # From dark to bright, so that no two columns of patches are alike.
        grey = probe_image(self.in_channels, size, self.mean)
        image = grey * torch.linspace(0, 2, size[1], device=grey.device)
        output = self(image)
        self._check_repeats(output, self(image))
        self.num_layers = len(output.layers)
        self.layer_dims = tuple(layer.tokens.shape[-1] for layer in output.layers)
        self.layer_grids = tuple(layer.grid for layer in output.layers)
        self.feature_dim = output.feature.shape[-1]
        self.num_classes = None if output.logits is None else output.logits.shape[-1]
        self.class_names = None if class_names is None else list(class_names)
        self.ordered_by_names = class_order == 'names'
        if self.ordered_by_names and not class_names:
            raise ValueError(
                f"{name}: class_order='names', but the model has no names for its "
                "classes; give a list with the teacher's number of each class."
            )
        if class_order is not None and not self.ordered_by_names:
            self._order_classes(class_order)

    def _check_repeats(self, output: TeacherOutput, again: TeacherOutput) -> None:
        """Refuse a model that looks at random parts of an image, such as a ViT-MAE."""
        one, other = output.layers[-1].tokens, again.layers[-1].tokens
        if one.shape == other.shape:
            tolerance = 0.05 * float(one.abs().max())
            if torch.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True):
                return
        raise ValueError(
            f'{type(self).__name__}: {type(self.model).__name__} has other outputs '
            'each time it sees an image, as models do that mask patches at random; '
            'load its encoder as a plain ViT.'
        )

    def order_by_names(self, classes: Sequence[str] | None) -> None:
        """Reorder the logits to the classes of a data set.

        Args:
            classes: The class names of the data set.

        Raises:
            ValueError: The data set has no names, or the teacher lacks some of them.
        """
        order = order_of_classes(self.class_names, classes or ())
        if not order:
            raise ValueError(
                f"{type(self).__name__}: class_order='names', but "
                + (
                    f'not each of {list(classes)[:3]}, … is one of the teacher, which '
                    f'knows {self.class_names[:3]}, …'
                    if classes
                    else 'the data set has no names for its classes (metainfo)'
                )
                + "; give a list with the teacher's number of each class."
            )
        self.ordered_by_names = False
        self._order_classes(order)

    def _order_classes(self, order: Sequence[int]) -> None:
        known, order = self.num_classes or 0, list(order)
        wrong = [i for i in order if not isinstance(i, int) or not 0 <= i < known]
        if not order or wrong or len(set(order)) < len(order):
            raise ValueError(
                f"{type(self).__name__}: class_order must be 'names' or a list of "
                f'different integers from 0 to {known - 1}, one for each class; '
                f'got {order if len(order) < 9 else [*order[:8], "…"]}.'
            )
        self._class_order = order
        self.num_classes = len(order)
        if self.class_names is not None:
            self.class_names = [self.class_names[i] for i in order]

    def train(self, mode: bool = True) -> BaseTeacher:
        """Stay in eval mode: dropout or drop path would add noise to the targets."""
        return super().train(False)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, to which the images are cast."""
        floating = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        return next(floating, torch.float32)

    def _apply(self, fn: Callable, recurse: bool = True) -> BaseTeacher:
        """Move or cast the model; the normalisation constants stay float32."""
        mean, std = self.mean, self.std
        super()._apply(fn, recurse)
        if self.mean.dtype != mean.dtype:
            self.mean = mean.to(self.mean.device)
            self.std = std.to(self.std.device)
        return self

    @property
    def native_grid(self) -> tuple[int, int]:
        """Patch grid of an image of ``native_size``."""
        stride = self.layout.patch_conv.stride
        return (self.native_size[0] // stride[0], self.native_size[1] // stride[1])

    @abstractmethod
    def run(self, images: Tensor) -> Tensor | None:
        """Run the model on normalised images; logits if it has a classifier."""

    def preprocess(self, images: Tensor) -> Tensor:
        """Resize and normalise.

        Args:
            images: ``[B, C, H, W]`` on the scale 0..255; C is 3 (RGB), or 1, which
                is repeated for a teacher of colour images.

        Raises:
            ValueError: Wrong number of dimensions or channels.
        """
        if images.ndim != 4 or images.shape[1] not in (1, self.in_channels):
            raise ValueError(
                f'{type(self).__name__} takes images [B, {self.in_channels}, H, W] '
                f'(or one channel), got {tuple(images.shape)}.'
            )
        images = images.float().expand(-1, self.in_channels, -1, -1)
        if self.input_size is not None and images.shape[-2:] != self.input_size:
            images = F.interpolate(
                images, self.input_size, mode='bilinear', antialias=True
            )
        return ((images - self.mean) / self.std).to(self.dtype)

    def _run(self, images: Tensor) -> Tensor | None:
        try:
            return self.run(images)
        except (AssertionError, RuntimeError, ValueError) as error:
            size = tuple(images.shape[-2:])
            if size == self.native_size:
                raise
            raise ValueError(
                f'{type(self).__name__}: the model is made for images of '
                f'{self.native_size[0]}x{self.native_size[1]} pixels and refuses '
                f'{size[0]}x{size[1]} ({error}). Set input_size='
                f'{self.native_size} to have them resized.'
            ) from error

    def _check_ran(self, outputs: Mapping[nn.Module, Tensor]) -> None:
        """Refuse to read modules that a forward pass does not run."""
        read = {self.layout.patch_conv, *self.layout.blocks} - outputs.keys()
        if read:
            names = [name for name, m in self.model.named_modules() if m in read]
            raise ValueError(
                f'{type(self).__name__}: {type(self.model).__name__} does not run '
                f'{", ".join(names)} as a whole. Name the submodules whose outputs are '
                "the layers with layers=['...', ...]."
            )

    @torch.no_grad()
    def forward(self, images: Tensor) -> TeacherOutput:
        """Features and logits of images.

        Args:
            images: ``[B, C, H, W]`` on the scale 0..255, RGB or one channel.

        Raises:
            ValueError: The images have another number of channels, or a size that
                the model cannot take.
        """
        if self.ordered_by_names:
            raise ValueError(
                f"{type(self).__name__}: class_order='names' needs the data set's "
                "names; add default_hooks.teacher=dict(type='mmtransmamba."
                "TeacherCheckHook'), or give a list."
            )
        images = self.preprocess(images)
        # Autocast also for bfloat16 weights, because libraries create float32 masks.
        own_precision = (
            nullcontext()
            if images.dtype not in HALF
            else torch.autocast(images.device.type, dtype=images.dtype)
        )
        with own_precision, recorded_outputs(self.layout, len(images)) as outputs:
            logits = self._run(images)
        self._check_ran(outputs)
        patch_grid = tuple(outputs[self.layout.patch_conv].shape[-2:])
        layers = tuple(
            split_tokens(
                self.layout.in_raster_order(i, outputs[block]), patch_grid, self.layout
            )
            for i, block in enumerate(self.layout.blocks)
        )
        final = outputs.get(self.layout.final_norm, outputs[self.layout.blocks[-1]])
        if self.layout.head in outputs:
            final = outputs[self.layout.head]
        if logits is not None and self._class_order is not None:
            logits = logits[:, self._class_order]
        return TeacherOutput(
            layers=layers,
            feature=pooled_feature(final, layers[-1], self.layout),
            logits=None if logits is None else logits.float(),
        )

    def canonical_state_dict(self) -> dict[str, Tensor]:
        """The weights under timm's ViT names, such as ``blocks.0.attn.qkv.weight``.

        Raises:
            ValueError: The model is not a plain ViT.
        """
        return self.in_class_order(to_canonical(self.model.state_dict()))

    def in_class_order(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights under canonical names, with the head's rows as the logits are.

        Raises:
            ValueError: The order is that of names, which are not known yet.
        """
        if self.ordered_by_names and any(name in state for name in HEADS):
            raise ValueError(
                f"{type(self).__name__}: class_order='names' is not resolved, so its "
                'head cannot be inherited: keep TeacherCheckHook among the default '
                "hooks, or give a list with the teacher's number of each class."
            )
        if self._class_order is None:
            return dict(state)
        return {
            name: tensor[self._class_order] if name in HEADS else tensor
            for name, tensor in state.items()
        }
