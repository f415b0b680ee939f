"""Conversion of a pre-trained vision encoder to a hybrid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor

from mmtransmamba.models.folders.assemble import assemble
from mmtransmamba.models.folders.encoder import PretrainedEncoder
from mmtransmamba.transfer.convert.calibrating import (
    CALIBRATION_STEPS,
    Layers,
    MixerFit,
    fit_mixers,
)
from mmtransmamba.transfer.convert.encoder_plan import EncoderPlan
from mmtransmamba.transfer.convert.encoder_spec import EncoderConversion
from mmtransmamba.transfer.convert.image_proof import compare_on_images
from mmtransmamba.transfer.watch import LayerCall
from mmtransmamba.utils.evaluation_mode import evaluating
from mmtransmamba.utils.images import open_image

BATCH = 8
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def plan_encoder_conversion(
    teacher: nn.Module | str | Path, conversion: EncoderConversion
) -> EncoderPlan:
    """Check the conversion of a vision encoder, and plan every tensor.

    Args:
        teacher: A transformers model, or its folder.
        conversion: The requested conversion.
    """
    encoder = PretrainedEncoder(teacher)
    if isinstance(conversion.calibration, str | Path):
        images = read_images(
            conversion.calibration, teacher, conversion.calibration_images
        )
        conversion = replace(conversion, calibration=images)
    plan = EncoderPlan.of(encoder, conversion)
    if conversion.calibration:
        _calibrate(plan, encoder, conversion)
    return plan


def read_images(folder: str | Path, teacher: Any, count: int) -> list[Tensor]:
    """Images in a folder as the teacher's image processor prepares them.

    Args:
        folder: Folder with image files, which may lie in folders of their own.
        teacher: Folder of the teacher.
        count: Number of images, spread evenly over the sorted names.

    Returns:
        Batches ``[B, 3, H, W]``.

    Raises:
        ValueError: The teacher has no folder with an image processor, or there are
            fewer than two images.
    """
    if isinstance(teacher, nn.Module):
        raise ValueError(
            'calibration is a folder of images, but a teacher in memory has no image '
            'processor: give batches of normalised images, or its folder as teacher.'
        )
    files = sorted(f for f in Path(folder).rglob('*') if f.suffix.lower() in SUFFIXES)
    if len(files) < 2:
        raise ValueError(
            f'{folder} has {len(files)} images ({", ".join(SUFFIXES)}); calibration '
            'needs two at least.'
        )
    count = min(count, len(files))
    files = [files[i * len(files) // count] for i in range(count)]
    # The last eighth is held out: images of all folders, which may be classes.
    files = [f for i, f in enumerate(files) if i % 8 != 7] + files[7::8]
    processor = AutoImageProcessor.from_pretrained(str(teacher), local_files_only=True)
    images = [open_image(file) for file in files]
    pixels = processor(images=images, return_tensors='pt')['pixel_values']
    return list(pixels.split(BATCH))


def split_images(batches: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Split images into those to fit to, and the last eighth to measure on.

    Args:
        batches: ``[B, 3, H, W]`` each, of one size.

    Raises:
        ValueError: There are fewer than two images, or they differ in size.
    """
    sizes = {tuple(batch.shape[1:]) for batch in batches}
    if len(sizes) != 1 or sum(map(len, batches)) < 2:
        raise ValueError(
            'calibration needs two images of one size at least; it has '
            f'{sum(map(len, batches))} of {len(sizes)} sizes.'
        )
    images = torch.cat(list(batches))
    held = max(1, len(images) // 8)
    return list(images[:-held].split(BATCH)), list(images[-held:].split(BATCH))


class ImageFit(MixerFit):
    """Fits a mixer of an encoder, whose sweeps have distances of their own.

    The distances are those between patches: tokens in front of them, such as the class
    token, have no place in the image. In the squared error, those tokens together count
    as much as all patches, and each group relative to its own target: the class token
    is one of many and its output is small, so with equal weights a fit harms it.
    """

    @torch.no_grad()
    def see_weights(self, weights: Tensor) -> None:
        """Read the attention weights ``[B, H, L, L]``."""
        first = self.mixer.config.prefix_tokens
        weights = weights[..., first:, first:].double()
        places = torch.arange(weights.shape[-1], device=weights.device)
        apart = (places[:, None] - places).double()
        for sweep, span in enumerate((apart.clamp_min(0), (-apart).clamp_min(0))):
            self._see_sweep(sweep, weights, span)

    def _see_sweep(self, sweep: int, weights: Tensor, span: Tensor) -> None:
        if not isinstance(self.distance, Tensor):
            zeros = weights.new_zeros(2, weights.shape[1])
            self.distance, self.mass = zeros, zeros.clone()
        self.distance[sweep] += (weights * span).sum((0, 2, 3))
        self.mass[sweep] += (weights * (span > 0)).sum((0, 2, 3))

    def importance(self, target: Tensor) -> Tensor:
        """See :meth:`MixerFit.importance`."""
        first = self.mixer.config.prefix_tokens
        weights = super().importance(target)
        if first:
            for group in (slice(first), slice(first, None)):
                size = target[:, group].square().mean().clamp_min(1e-12)
                weights[group] = 1 / (size * len(weights[group]))
            weights /= weights.mean()
        return weights

    def arguments(self, call: LayerCall) -> dict[str, Any]:
        positions = call.arguments.get('position_embeddings')
        return {} if positions is None else {'position_embeddings': positions}


def _calibrate(
    plan: EncoderPlan, encoder: PretrainedEncoder, conversion: EncoderConversion
) -> None:
    """Fit the mixers to images if requested, and compare the hybrid on the rest."""
    fit, held = split_images(conversion.calibration)
    model, hybrid = encoder.on_its_device(), encoder.hybrid
    with evaluating(model):
        if conversion.initialisation.calibrated:
            steps = conversion.calibration_steps
            steps = CALIBRATION_STEPS if steps is None else steps
            mixers = {i: plan.mixer(i) for i in plan.config.mamba_layers}
            layers = Layers(
                model,
                model.get_submodule(hybrid.block_list),
                hybrid.attention_name,
                hybrid.norm_name,
                lambda images: model(images.to(model.dtype)),
            )
            fit_mixers(layers, mixers, fit, steps, conversion.seed, ImageFit)
            plan.calibrate(
                mixers, f'fitted on {sum(map(len, fit)):,} images, {steps} steps'
            )
        student = assemble(plan.model_class, plan.config, plan.tensors())
        plan.proof = compare_on_images(student.to(model.device), model, held)
