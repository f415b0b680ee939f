"""The registries of the scope ``mmtransmamba``.

Each one is a child of the mmengine root registry of the same kind. mmengine imports
``mmtransmamba.registry`` by itself when it encounters a ``type`` that starts with
``mmtransmamba.``, and a registry imports its ``locations`` at the first look-up, so
configs need no ``custom_imports``.

Some registries hold no types of this package. They exist because mmengine looks into
the one of the default scope and warns if it is absent.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import EVALUATOR as MMENGINE_EVALUATOR
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOG_PROCESSORS as MMENGINE_LOG_PROCESSORS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
)
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

__all__ = [
    'CONVERSIONS',
    'DATASETS',
    'DATA_SAMPLERS',
    'DECODER_MIXERS',
    'ENCODER_MIXERS',
    'EVALUATORS',
    'FUNCTIONS',
    'HOOKS',
    'LOG_PROCESSORS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'MODEL_WRAPPERS',
    'OPTIMIZERS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'PARAM_SCHEDULERS',
    'RUNNERS',
    'STRATEGIES',
    'STUDENT_KINDS',
    'TASK_UTILS',
    'TRANSFORMS',
    'VISBACKENDS',
    'VISUALIZERS',
    'WEIGHT_INITIALIZERS',
    'WEIGHT_MAPS',
]

SCOPE = 'mmtransmamba'
_DATASETS = ['mmtransmamba.datasets']
_ENGINE = ['mmtransmamba.engine']
_EVALUATION = ['mmtransmamba.evaluation']
_MODELS = ['mmtransmamba.models', 'mmtransmamba.transfer']
# An empty list would make mmengine import all modules at the first look-up.
_NONE = ['mmtransmamba']


class ScopedRegistry(Registry):
    """A registry that also knows mmpretrain's types by their plain names.

    The classifiers, heads and transforms around this package's models are mmpretrain's.
    With this class, a config has the same meaning in both scopes.
    ``mmengine.hub.get_model`` needs this, because it builds in the scope of the
    package, whatever the ``default_scope`` of the config.
    """

    def get(self, key: str) -> type | None:
        """Look up a type: here, then in mmpretrain, then in mmengine."""
        self.import_from_location()
        if '.' in key or key in self.module_dict:
            return super().get(key)
        return self.root.get(f'mmpretrain.{key}') or super().get(key)


def _child(parent: Registry, locations: list[str] = _NONE) -> Registry:
    return ScopedRegistry(parent.name, parent=parent, scope=SCOPE, locations=locations)


MODELS = _child(MMENGINE_MODELS, _MODELS)
MODEL_WRAPPERS = _child(MMENGINE_MODEL_WRAPPERS, _ENGINE)
WEIGHT_INITIALIZERS = _child(MMENGINE_WEIGHT_INITIALIZERS)
STRATEGIES = _child(MMENGINE_STRATEGIES, _ENGINE)
TASK_UTILS = _child(MMENGINE_TASK_UTILS, _DATASETS)

DATASETS = _child(MMENGINE_DATASETS, _DATASETS)
DATA_SAMPLERS = _child(MMENGINE_DATA_SAMPLERS, _DATASETS)
TRANSFORMS = _child(MMENGINE_TRANSFORMS, _DATASETS)
FUNCTIONS = _child(MMENGINE_FUNCTIONS, _DATASETS)

RUNNERS = _child(MMENGINE_RUNNERS, _ENGINE)
LOOPS = _child(MMENGINE_LOOPS, _ENGINE)
HOOKS = _child(MMENGINE_HOOKS, _ENGINE)
LOG_PROCESSORS = _child(MMENGINE_LOG_PROCESSORS)
OPTIMIZERS = _child(MMENGINE_OPTIMIZERS)
OPTIM_WRAPPERS = _child(MMENGINE_OPTIM_WRAPPERS, _ENGINE)
OPTIM_WRAPPER_CONSTRUCTORS = _child(MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS, _ENGINE)
PARAM_SCHEDULERS = _child(MMENGINE_PARAM_SCHEDULERS, _ENGINE)

METRICS = _child(MMENGINE_METRICS, _EVALUATION)
EVALUATORS = _child(MMENGINE_EVALUATOR)
VISUALIZERS = _child(MMENGINE_VISUALIZERS)
VISBACKENDS = _child(MMENGINE_VISBACKENDS)

DECODER_MIXERS = Registry(
    'decoder mixer', scope=SCOPE, locations=['mmtransmamba.models.language.mixers']
)
"""Mixers that can replace a decoder's attention."""

ENCODER_MIXERS = Registry(
    'encoder mixer', scope=SCOPE, locations=['mmtransmamba.models.vision.mixers']
)
"""Mixers that can replace a vision encoder's attention."""

WEIGHT_MAPS = Registry(
    'weight map', scope=SCOPE, locations=['mmtransmamba.transfer.weight_maps']
)
"""Which teacher weight goes to which student weight, per teacher-student pair."""

CONVERSIONS = Registry(
    'conversion', scope=SCOPE, locations=['mmtransmamba.transfer.convert']
)
"""Conversions of a pre-trained model into a hybrid.

Models that are converted when they are built look theirs up here: they must not import
what transfers weights between models.
"""

STUDENT_KINDS = Registry('student kind', scope=SCOPE, locations=['mmtransmamba.models'])
"""How students of each kind are run beside a teacher of images or videos."""
