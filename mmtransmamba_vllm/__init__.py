"""Plugin of vLLM for hybrids that no architecture of vLLM can express.

vLLM finds :func:`register` by the entry point ``vllm.general_plugins`` and calls it in
each of its processes. This package is separate from ``mmtransmamba`` because vLLM pins
releases of torch and transformers that ``mmtransmamba`` does not support. It imports
neither ``mmtransmamba`` nor its dependencies, only vLLM's.
"""

__all__ = ['ARCHITECTURES', 'register']

ARCHITECTURES = (
    'HybridLlamaForCausalLM',
    'HybridMistralForCausalLM',
    'HybridQwen2ForCausalLM',
    'HybridQwen3ForCausalLM',
)


def register() -> None:
    """Announce the hybrids' configs to transformers and their classes to vLLM.

    Outside the supported releases of vLLM, only the configs are announced. They refuse
    to load, so that the plugin does not affect other models.
    """
    from transformers import AutoConfig

    from mmtransmamba_vllm.configs import CONFIGS
    from mmtransmamba_vllm.releases import is_supported

    for config in CONFIGS:
        AutoConfig.register(config.model_type, config, exist_ok=True)
    if is_supported():
        from vllm import ModelRegistry

        for name in ARCHITECTURES:
            # As a string, the module is imported only when a hybrid is loaded.
            ModelRegistry.register_model(name, f'mmtransmamba_vllm.models:{name}')
