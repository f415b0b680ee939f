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
    ``custom_keys`` takes precedence. ``norm_decay_mult`` goes for ``nn.RMSNorm`` too.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, 'module', model)
        given = dict(self.paramwise_cfg.get('custom_keys', {}))

        def settings(name: str) -> dict[str, float] | None:
            """Those of the config for a parameter."""
            # mmengine applies only one key to a parameter, the longest match.
            fitting = [key for key in given if key in name]
            return dict(given[max(fitting, key=len)]) if fitting else None

        exempt = {
            f'{prefix}.{name}' if prefix else name
            for prefix, module in model.named_modules()
            if callable(getattr(module, 'no_weight_decay', None))
            for name in module.no_weight_decay()
        }
        custom_keys = given | {
            name: dict(decay_mult=0.0) | (settings(name) or {}) for name in exempt
        }
        norms = self.paramwise_cfg.get('norm_decay_mult')
        for name, _ in model.named_parameters():
            if name in exempt:
                continue
            own, module = settings(name), model.get_submodule(name.rpartition('.')[0])
            # A key goes for all names that contain it, such as time_decay_w1.
            if any(part in name for part in exempt):
                custom_keys[name] = own or {}
            # mmengine does not know it as a norm.
            elif norms is not None and own is None and isinstance(module, nn.RMSNorm):
                custom_keys[name] = dict(decay_mult=norms)
        self.paramwise_cfg['custom_keys'] = custom_keys
        return super().__call__(model)
