"""Effects of importing the package, and that its types are found by name."""

import json
import subprocess
import sys
from importlib import import_module

import mmengine.registry
import pytest
from mmengine.registry import Registry

from mmtransmamba import registry

HEAVY = ['torch', 'numpy', 'mmengine', 'mmcv', 'mmpretrain', 'transformers', 'sklearn']


def run(code, **options):
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done


def loaded_by(statement):
    code = f'import json, sys\n{statement}\nprint(json.dumps(list(sys.modules)))'
    return set(json.loads(run(code).stdout))


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by('import mmtransmamba').isdisjoint(HEAVY)


def test_importing_the_registries_does_not_import_models():
    heavy = set(HEAVY) - {'mmengine', 'numpy'}
    assert loaded_by('import mmtransmamba.registry').isdisjoint(heavy)


def test_version():
    from mmtransmamba import __version__

    assert __version__ == '0.1.0'


TYPES = [
    ('DATASETS', 'Digits'),
    ('TRANSFORMS', 'RandomAffine'),
    ('MODELS', 'PlainMamba'),
    ('MODELS', 'MultiDirectionDistiller'),
    ('HOOKS', 'SubcloneInitializer'),
]


def test_types_resolve_from_mmengine_alone():
    code = (
        'from mmengine import registry\n'
        f'for root, name in {TYPES}:\n'
        '    print(getattr(registry, root).get(f"mmtransmamba.{name}").__name__)'
    )
    assert run(code).stdout.split() == [name for _, name in TYPES]


def registries():
    return [
        pytest.param(node, id=name)
        for name in registry.__all__
        if isinstance(node := getattr(registry, name), Registry)
    ]


@pytest.mark.parametrize('node', registries())
def test_locations_exist(node):
    assert node.scope == 'mmtransmamba'
    # With no location at all, mmengine would import every module.
    assert node._locations
    for location in node._locations:
        import_module(location)


def test_plain_names_of_mmpretrain_resolve_in_this_scope():
    from mmengine.registry import HOOKS, MODELS, DefaultScope

    head = dict(type='LinearClsHead', num_classes=3, in_channels=8)
    with DefaultScope.overwrite_default_scope(registry.SCOPE):
        # The classifier builds its head by the same rule.
        model = MODELS.build(
            dict(type='ImageClassifier', backbone=dict(type='LeNet5'), head=head)
        )
        # mmengine has a hook of this name too; mmpretrain's goes first.
        hook = HOOKS.build(dict(type='EMAHook'))
    assert type(model.head).__module__ == 'mmpretrain.models.heads.linear_head'
    assert type(hook).__module__.startswith('mmpretrain.')


def test_own_types_go_first(monkeypatch):
    class LinearClsHead:
        pass

    monkeypatch.setitem(registry.MODELS.module_dict, 'LinearClsHead', LinearClsHead)
    assert registry.MODELS.get('LinearClsHead') is LinearClsHead
    theirs = registry.MODELS.get('mmpretrain.LinearClsHead')
    assert theirs is not LinearClsHead
    assert theirs.__name__ == 'LinearClsHead'


def test_unknown_names_are_reported():
    from mmengine.registry import DefaultScope

    assert registry.MODELS.get('NoSuchModel') is None
    with (
        DefaultScope.overwrite_default_scope(registry.SCOPE),
        pytest.raises(KeyError, match='NoSuchModel is not in the mmtransmamba::model'),
    ):
        registry.MODELS.build(dict(type='NoSuchModel'))


def test_default_scope_has_every_registry_a_runner_uses():
    used = {
        name
        for name, node in vars(mmengine.registry).items()
        if isinstance(node, Registry)
    } - {'FUNCTIONS', 'INFERENCERS', 'RUNNER_CONSTRUCTORS', 'STRATEGIES'}
    without = {
        name
        for name in used
        if getattr(mmengine.registry, name)._search_child(registry.SCOPE) is None
    }
    assert without == set()
