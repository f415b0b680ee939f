"""A teacher's recorded outputs, contained in the samples of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmtransmamba.models.taps import LayerFeature
from mmtransmamba.models.teachers.base import TeacherOutput

RECORD = 'teacher_record'


class RecordedLayers(dict):
    """Recorded layers by their index in the teacher."""

    def __missing__(self, layer: int) -> LayerFeature:
        raise ValueError(
            f'MultiDirectionDistiller: teacher layer {layer} is not recorded, only '
            f'{sorted(self)}; record it, or choose another teacher_layer.'
        )


def recorded_output(
    data_samples: Any, device: torch.device | str
) -> TeacherOutput | None:
    """The teacher's output for a batch whose samples contain it, else None.

    Args:
        data_samples: mmpretrain's samples; those of
            :class:`~mmtransmamba.datasets.RecordedViews` have the metainfo
            ``teacher_record`` with the arrays ``logits`` ``[K]``, ``feature`` ``[C]``
            and ``layer_I`` ``[H, W, C]``.
        device: Device of the output.

    Raises:
        ValueError: Only some samples contain it, or the batch's images are mixed, for
            which it is not valid.
    """
    records = [getattr(sample, RECORD, None) for sample in data_samples or ()]
    brought = [record for record in records if record is not None]
    if not brought:
        return None
    if len(brought) < len(records):
        raise ValueError(
            f'MultiDirectionDistiller: {len(brought)} of {len(records)} samples of a '
            "batch bring the teacher's output (teacher_record); all have to, or none."
        )
    if any(getattr(sample, 'gt_score', None) is not None for sample in data_samples):
        raise ValueError(
            "MultiDirectionDistiller: the samples bring the teacher's output "
            '(teacher_record), but their images are mixed with others; leave Mixup and '
            'CutMix (train_cfg.augments) out, or have the teacher run.'
        )

    def batch(name: str) -> torch.Tensor:
        values = np.stack([record[name] for record in brought])
        return torch.from_numpy(values).to(device).float()

    layers = RecordedLayers()
    for name in brought[0]:
        if name.startswith('layer_'):
            maps = batch(name)
            layers[int(name.removeprefix('layer_'))] = LayerFeature(
                tokens=maps.flatten(1, 2), grid=tuple(maps.shape[1:3])
            )
    return TeacherOutput(
        layers=layers, feature=batch('feature'), logits=batch('logits')
    )
