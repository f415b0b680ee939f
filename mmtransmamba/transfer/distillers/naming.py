"""Names of a distiller's tensors: the student's own, and the rest apart from them."""

from __future__ import annotations

from torch import Tensor, nn

from mmtransmamba.models.fit import check_fit

OWN_PREFIX = 'distiller.'
STUDENT_PREFIX = 'student.'


def use_student_names(distiller: nn.Module) -> None:
    """Make a checkpoint of the distiller a checkpoint of its ``student``.

    In the state dict the student's tensors get the names they have in the student
    alone, all others start with ``distiller.``. What is loaded must have all of the
    student's tensors and no others, or a
    :class:`~mmtransmamba.models.checkpoint.CheckpointError` names them; those of the
    distiller may be missing.
    """
    distiller._register_state_dict_hook(_to_student_names)
    distiller._register_load_state_dict_pre_hook(_from_student_names, with_module=True)


def _to_student_names(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_
) -> None:
    """Name the student's tensors as in the student alone, all else as the distiller's.

    The order of the entries is kept, as a state dict's order is the model's.
    """
    own = [key for key in state_dict if key.startswith(prefix)]
    for key in own:
        name = key[len(prefix) :]
        if name.startswith(STUDENT_PREFIX):
            new = name[len(STUDENT_PREFIX) :]
        else:
            new = OWN_PREFIX + name
        state_dict[prefix + new] = state_dict.pop(key)


def _from_student_names(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_
) -> None:
    """The inverse of :func:`_to_student_names`, on loading; refuses what misfits."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        name = key[len(prefix) :]
        if name.startswith(OWN_PREFIX):
            new = name[len(OWN_PREFIX) :]
        else:
            new = STUDENT_PREFIX + name
        state_dict[prefix + new] = state_dict.pop(key)
    check_fit(module.student, state_dict, prefix + STUDENT_PREFIX)
