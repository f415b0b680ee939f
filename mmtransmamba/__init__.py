"""Transfer pre-trained Transformers into Mamba-family models.

Importing the package costs milliseconds: it only makes sure that the OpenMMLab
packages can be imported (see :mod:`mmtransmamba.compat`). The names below are imported
when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .compat import check_distributions, install_bridges
from .version import __version__

if TYPE_CHECKING:
    from .apis.classification import infer
    from .apis.compilation import compile_for_inference
    from .apis.configs import get_config, list_models
    from .apis.experiment import run_experiment as train
    from .apis.exporting import export
    from .apis.inheritance import inherit
    from .apis.loading import load
    from .apis.recipes import transfer_lm
    from .engine.hooks import SubcloneInitializer
    from .models import VRWKV, PlainMamba, VideoMamba, Vim, VMamba
    from .transfer import MultiDirectionDistiller
    from .transfer.convert import convert

check_distributions()
install_bridges()

_LAZY = {
    'compile_for_inference': ('apis.compilation', 'compile_for_inference'),
    'convert': ('transfer.convert', 'convert'),
    'export': ('apis.exporting', 'export'),
    'get_config': ('apis.configs', 'get_config'),
    'infer': ('apis.classification', 'infer'),
    'inherit': ('apis.inheritance', 'inherit'),
    'list_models': ('apis.configs', 'list_models'),
    'load': ('apis.loading', 'load'),
    'train': ('apis.experiment', 'run_experiment'),
    'transfer_lm': ('apis.recipes', 'transfer_lm'),
    'MultiDirectionDistiller': ('transfer', 'MultiDirectionDistiller'),
    'PlainMamba': ('models', 'PlainMamba'),
    'SubcloneInitializer': ('engine.hooks', 'SubcloneInitializer'),
    'VMamba': ('models', 'VMamba'),
    'VRWKV': ('models', 'VRWKV'),
    'VideoMamba': ('models', 'VideoMamba'),
    'Vim': ('models', 'Vim'),
}

__all__ = [
    'MultiDirectionDistiller',
    'PlainMamba',
    'SubcloneInitializer',
    'VMamba',
    'VRWKV',
    'VideoMamba',
    'Vim',
    '__version__',
    'compile_for_inference',
    'convert',
    'export',
    'get_config',
    'infer',
    'inherit',
    'list_models',
    'load',
    'train',
    'transfer_lm',
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module, attribute = _LAZY[name]
    value = getattr(import_module(f'{__name__}.{module}'), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
