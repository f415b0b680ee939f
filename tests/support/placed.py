"""Tensors that claim to be on a GPU, and refuse to meet those of another one.

Values are on the CPU, where every operation is computed; a device is a label. Results
can therefore be compared with those of a single device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

CPU = torch.device('cpu')
COMPARISONS = ('_has_compatible_shallow_copy_type',)


class Devices(TorchFunctionMode):
    """While it is active, tensors keep the devices that they are moved to.

    An operation on tensors of two devices fails, as on GPUs; scalars on the CPU may
    meet any tensor. Backward passes follow the devices of the forward pass, and must
    be run outside.

    Attributes:
        moves: Pairs of devices between which tensors were copied.
    """

    def __init__(self):
        super().__init__()
        self.moves = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, '__name__', str(func))
        owner = getattr(func, '__self__', None)
        if owner is Tensor.device:
            return device_of(args[0])
        if owner is Tensor.data and name == '__set__':
            out = func(*args, **kwargs)
            args[0].label = device_of(args[1])
            return out
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        found = {device_of(t) for t in tensors if t.dim() or device_of(t) != CPU}
        if func in (Tensor.to, Tensor.cuda, Tensor.cpu, Tensor.copy_):
            return self._move(func, args, kwargs)
        if name in COMPARISONS:
            return func(*args, **kwargs)
        assert len(found) <= 1, f'{name} with tensors on {sorted(map(str, found))}'
        home = next(iter(found), CPU)
        given = kwargs.get('device')
        if given is not None:
            kwargs['device'] = CPU
            home = torch.device(given)
        kwargs.pop('pin_memory', None)
        return self._labelled(func(*args, **kwargs), home)

    def _move(self, func, args, kwargs):
        own = device_of(args[0])
        if func is Tensor.copy_:
            self.moves |= {(str(device_of(args[1])), str(own))}
            return func(*args, **kwargs)
        if func is not Tensor.to:
            target = CPU if func is Tensor.cpu else torch.device('cuda:0')
            args, kwargs = args[:1], {}
        else:
            target = own
            places = (torch.device, str)
            for value in (*args[1:], kwargs.get('device')):
                if isinstance(value, Tensor):
                    target = device_of(value)
                elif isinstance(value, places):
                    target = torch.device(value)
            args = tuple(CPU if isinstance(a, places) else a for a in args)
            if 'device' in kwargs:
                kwargs['device'] = CPU
        if target == own:
            out = Tensor.to(*args, **kwargs) if len(args) > 1 or kwargs else args[0]
            return self._labelled(out, own)
        self.moves.add((str(own), str(target)))
        out = Tensor.to(*args, **kwargs) if len(args) > 1 or kwargs else args[0]
        # A copy, which has a label of its own, and through which gradients flow.
        return self._labelled(out.clone() if out is args[0] else out, target)

    def _labelled(self, out, device):
        def label(tensor):
            tensor.label = device
            return tensor

        return tree_map_only(Tensor, label, out)


def device_of(tensor: Tensor) -> torch.device:
    return vars(tensor).get('label', CPU)
