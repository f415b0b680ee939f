"""Tensor names of a trained model: those of the inner model that is kept."""

from __future__ import annotations

from torch import Tensor, nn

from mmtransmamba.models.fit import check_fit

OWN_PREFIX = 'distiller.'


def use_names_of(owner: nn.Module, part: str) -> None:
    """Make a checkpoint of a model a checkpoint of one of its parts.

    In the state dict, the part's tensors have the same names as in the part alone; all
    others start with ``distiller.``. A loaded state dict must have exactly the part's
    tensors, otherwise a :class:`~mmtransmamba.models.checkpoint.CheckpointError` names
    the difference. Tensors that start with ``distiller.`` may be missing or additional,
    so a distiller's checkpoint is a checkpoint of its student.

    Args:
        owner: The model that a Runner trains.
        part: Name of the submodule that is kept, such as ``'student'``.
    """
    inner = f'{part}.'

    def to_names_of_part(
        module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_
    ) -> None:
        # All entries are reinserted, to keep the model's order in the state dict.
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key[len(prefix) :]
            if name.startswith(inner):
                new = name[len(inner) :]
            else:
                new = OWN_PREFIX + name
            state_dict[prefix + new] = state_dict.pop(key)

    def from_names_of_part(
        module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_
    ) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key[len(prefix) :]
            if name.startswith(OWN_PREFIX):
                new = name[len(OWN_PREFIX) :]
            else:
                new = inner + name
            state_dict[prefix + new] = state_dict.pop(key)
        check_fit(getattr(module, part), state_dict, prefix + inner)

    owner._register_state_dict_hook(to_names_of_part)
    owner._register_load_state_dict_pre_hook(from_names_of_part, with_module=True)
