"""Memory that autograd holds between forward and backward pass."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class SavedMemory:
    """Context that measures the tensors saved for the backward pass.

    A storage counts once, however many views of it are saved, and as long as a graph
    holds it. With several backward passes in a step, the peak is that of the largest
    part.

    Args:
        excluded: Tensors that exist anyway: parameters, buffers and the batch.

    Attributes:
        peak: Most bytes held at one time.
    """

    def __init__(self, excluded: Iterable[Tensor] = ()) -> None:
        self.peak = 0
        self._now = 0
        self._holders: dict[int, int] = {}
        self._excluded = {_key(tensor) for tensor in excluded}
        self._hooks = saved_tensors_hooks(self._pack, lambda held: held.tensor)

    def __enter__(self) -> SavedMemory:
        self._hooks.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hooks.__exit__(kind, error, traceback)

    def _pack(self, tensor: Tensor) -> _Held:
        key = _key(tensor)
        if key in self._excluded:
            return _Held(tensor, None, key)
        if key not in self._holders:
            self._holders[key] = 0
            self._now += tensor.untyped_storage().nbytes()
            self.peak = max(self.peak, self._now)
        self._holders[key] += 1
        return _Held(tensor, self, key)

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if self._holders[key] == 0:
            del self._holders[key]
            self._now -= size


class _Held:
    """A saved tensor, as long as autograd's graph refers to it."""

    def __init__(self, tensor: Tensor, owner: SavedMemory | None, key: int) -> None:
        self.tensor, self._owner, self._key = tensor, owner, key

    def __del__(self) -> None:
        if self._owner is not None:
            size = self.tensor.untyped_storage().nbytes()
            self._owner._release(self._key, size)


def _key(tensor: Tensor) -> Any:
    return tensor.untyped_storage()._cdata
