"""Lets transformers load this package's models in a process that never imported it.

``AutoModelForCausalLM.from_pretrained`` knows a model type only once its class is
registered, and transformers offers packages no way to announce one. So the installation
puts a ``.pth`` file beside the packages that imports this module when Python starts.
All it does then is to wait for transformers' table of types to be imported; the package
itself is imported when one of its types is looked up.
"""

import sys

MODEL_TYPES = (
    'hybrid_llama',
    'hybrid_mistral',
    'hybrid_phi',
    'hybrid_qwen2',
    'hybrid_qwen3',
    'hybrid_llava',
    'hybrid_llava_next',
    'hybrid_llava_onevision',
    'patch_decoder',
    'hybrid_vit',
    'hybrid_deit',
    'hybrid_dinov2',
    'hybrid_dinov2_with_registers',
    'hybrid_dinov3_vit',
    'hybrid_clip_vision_model',
    'hybrid_siglip_vision_model',
)
_TABLE = 'transformers.models.auto.configuration_auto'


class _Types(dict):
    """Registered configs by model type; ours are registered when asked for."""

    def __contains__(self, key):
        return key in MODEL_TYPES or super().__contains__(key)

    def __missing__(self, key):
        if key not in MODEL_TYPES:
            raise KeyError(key)
        import mmtransmamba.models  # noqa: F401  (registers)

        return super().__getitem__(key)


class _Loader:
    """Executes the module of the table, then puts our types into it."""

    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        registered = getattr(module.CONFIG_MAPPING, '_extra_content', None)
        if registered is not None:
            module.CONFIG_MAPPING._extra_content = _Types(registered)


class _Finder:
    """Waits for the import of the table; every other import passes it by."""

    def find_spec(self, name, path=None, target=None):
        if name != _TABLE:
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = getattr(finder, 'find_spec', lambda *_: None)(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader)
                return spec
        return None


if _TABLE not in sys.modules:
    sys.meta_path.insert(0, _Finder())
