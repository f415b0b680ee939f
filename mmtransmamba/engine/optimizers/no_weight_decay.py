"""Optimizer settings that exempt the parameters a model excludes from weight decay."""

from __future__ import annotations

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmtransmamba.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NoWeightDecayConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with support for the modules' ``no_weight_decay()``.

    Every parameter that a module's ``no_weight_decay()`` names gets ``decay_mult=0`` in
    addition to its settings in ``paramwise_cfg``. A matching ``decay_mult`` in
    ``custom_keys`` takes precedence.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, 'module', model)
        given = dict(self.paramwise_cfg.get('custom_keys', {}))
        custom_keys = dict(given)
        for prefix, module in model.named_modules():
            if callable(getattr(module, 'no_weight_decay', None)):
                for name in sorted(module.no_weight_decay()):
                    full_name = f'{prefix}.{name}' if prefix else name
                    # mmengine applies only one key to a parameter, the longest match.
                    fitting = [key for key in given if key in full_name]
                    longest = given[max(fitting, key=len)] if fitting else {}
                    custom_keys[full_name] = dict(decay_mult=0.0) | dict(longest)
        self.paramwise_cfg['custom_keys'] = custom_keys
        return super().__call__(model)
