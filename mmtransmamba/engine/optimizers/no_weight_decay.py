"""Optimizer settings that exempt the parameters a model excludes from weight decay."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmtransmamba.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NoWeightDecayConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with support for the modules' ``no_weight_decay()``.

    Every parameter that a module's ``no_weight_decay()`` names has no weight decay;
    its other settings are those of ``paramwise_cfg``. A matching ``decay_mult`` in
    ``custom_keys`` takes precedence. ``norm_decay_mult`` goes for ``nn.RMSNorm`` too.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        # Without any setting, mmengine would not look at single parameters.
        self.paramwise_cfg.setdefault('custom_keys', {})
        return super().__call__(model)

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """See mmengine's; changes the weight decay in the groups of the whole model."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix or self.base_wd is None:
            return
        exempt = {
            f'{owner}.{name}' if owner else name
            for owner, part in module.named_modules()
            if callable(getattr(part, 'no_weight_decay', None))
            for name in part.no_weight_decay()
        }
        names = {parameter: name for name, parameter in module.named_parameters()}
        norms = self.paramwise_cfg.get('norm_decay_mult')
        keys = self.paramwise_cfg['custom_keys']
        for group in params:
            name = names[group['params'][0]]
            # mmengine applies only one key to a parameter, the longest match.
            fitting = [key for key in keys if key in name]
            own = keys[max(fitting, key=len)] if fitting else None
            if name in exempt:
                if own is None or 'decay_mult' not in own:
                    group['weight_decay'] = 0.0
            elif norms is not None and own is None:
                owner = module.get_submodule(name.rpartition('.')[0])
                # mmengine does not know it as a norm.
                if isinstance(owner, nn.RMSNorm):
                    group['weight_decay'] = self.base_wd * norms
