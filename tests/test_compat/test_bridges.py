"""Every bridge: still needed, and working."""

import importlib.machinery
import importlib.util
import json
import logging
import subprocess
import sys
import types
from importlib import metadata

import numpy as np
import pytest
import torch

from mmtransmamba.compat import mmaction, quiet_logger
from mmtransmamba.compat.bridging import BRIDGES
from mmtransmamba.compat.mmpretrain import find_pruneable_heads_and_indices

WITH_OPS = importlib.util.find_spec('mmcv._ext') is not None

REPORT = """
import contextlib, importlib, io, json, logging, sys, warnings

from mmengine.logging import MMLogger

IMPORTS = [
    'mmcv.cnn.bricks.transformer', 'mmpretrain.models', 'mmpretrain.datasets',
    'mmaction', 'mmaction.models', 'mmaction.datasets', 'mmaction.evaluation',
    'mmseg.datasets', 'mmseg.models', 'mmdet.datasets', 'mmdet.evaluation',
]
if {bridged}:
    import mmtransmamba
report = {{}}
for name in IMPORTS:
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    MMLogger.get_current_instance().addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        with contextlib.redirect_stdout(printed):
            try:
                importlib.import_module(name)
                error = None
            except Exception as exception:
                error = f'{{type(exception).__name__}}: {{exception}}'
    MMLogger.get_current_instance().removeHandler(handler)
    report[name] = dict(
        error=error,
        printed=printed.getvalue(),
        warnings=[str(warning.message) for warning in caught],
    )

import mmcv, transformers.modeling_utils, transformers.pytorch_utils
from mmengine.config.utils import MODULE2PACKAGE

names = dict(
    modeling_utils=dir(transformers.modeling_utils),
    pytorch_utils=dir(transformers.pytorch_utils),
)
print(json.dumps(dict(
    imports=report,
    names=names,
    mmcv=mmcv.__version__,
    hub=MODULE2PACKAGE,
    drn=[name for name in sys.modules if name.endswith('localizers.drn.drn')],
)))
"""


def _report(bridged: bool) -> dict:
    run = subprocess.run(
        [sys.executable, '-c', REPORT.format(bridged=bridged)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def _require(*distributions: str) -> None:
    for name in distributions:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            pytest.skip(f'{name} is not installed')


@pytest.fixture(scope='module')
def plain() -> dict:
    """Output of a process that does not import mmtransmamba."""
    return _report(bridged=False)


@pytest.fixture(scope='module')
def bridged() -> dict:
    """Output of a process that imports it."""
    return _report(bridged=True)


def test_transformers_names_are_needed_and_taken_away_again(plain, bridged):
    _require('pycocotools')
    assert plain['imports']['mmpretrain.models']['error'] is not None
    assert bridged['imports']['mmpretrain.models']['error'] is None
    missing = {
        'modeling_utils': {'PretrainedConfig', 'find_pruneable_heads_and_indices'},
        'pytorch_utils': {'find_pruneable_heads_and_indices'},
    }
    for report in (plain, bridged):
        for module, names in missing.items():
            assert names.isdisjoint(report['names'][module])


@pytest.mark.parametrize(
    ('name', 'distribution'),
    [
        ('mmpretrain', 'onedl-mmpretrain'),
        ('mmseg', 'onedl-mmsegmentation'),
        ('mmdet', 'onedl-mmdetection'),
    ],
)
def test_debug_print_of_datasets(plain, bridged, name, distribution):
    _require(distribution)
    assert 'OneDL' in plain['imports'][f'{name}.datasets']['printed']
    assert bridged['imports'][f'{name}.datasets']['printed'] == ''
    assert bridged['imports'][f'{name}.datasets']['error'] is None


def test_notice_of_mmdet_without_ops(plain, bridged):
    _require('onedl-mmsegmentation', 'onedl-mmdetection')
    if WITH_OPS:
        pytest.skip('mmcv has its compiled ops')
    report = bridged['imports']['mmseg.models']
    assert (report['error'], report['printed']) == (None, '')
    # Needed: mmseg imports mmdet's models, which say this when mmcv lacks its ops.
    package = metadata.distribution('onedl-mmdetection').locate_file('mmdet')
    source = package / 'models' / 'dense_heads' / 'clr_head' / 'clr_head.py'
    assert "logger.warning(\n        'Line NMS is not compiled." in source.read_text()


def test_warning_of_mmdet_without_an_optional_metric(plain, bridged):
    _require('onedl-mmdetection')
    name, expected = 'mmdet.evaluation', 'faster_coco_eval is not installed'
    assert any(expected in text for text in plain['imports'][name]['warnings'])
    assert not any(expected in text for text in bridged['imports'][name]['warnings'])


@pytest.mark.skipif(WITH_OPS, reason='mmcv has its compiled ops')
def test_warning_of_mmcv_without_ops(plain, bridged):
    name = 'mmcv.cnn.bricks.transformer'
    expected = 'MultiScaleDeformableAttention'
    assert any(expected in text for text in plain['imports'][name]['warnings'])
    assert not any(expected in text for text in bridged['imports'][name]['warnings'])


def test_mmcv_version_assertion_of_mmaction(plain, bridged):
    _require('mmaction2')
    assert 'AssertionError: MMCV' in plain['imports']['mmaction']['error']
    assert bridged['imports']['mmaction']['error'] is None
    assert bridged['mmcv'] == metadata.version('onedl-mmcv')


def test_missing_module_and_names_of_mmaction_models(bridged):
    _require('mmaction2')
    package = metadata.distribution('mmaction2').locate_file('mmaction')
    assert not (package / 'models' / 'localizers' / 'drn').exists()
    names = bridged['names']['modeling_utils']
    assert 'apply_chunking_to_forward' not in names
    assert 'prune_linear_layer' not in names
    for name in ('models', 'datasets', 'evaluation'):
        assert bridged['imports'][f'mmaction.{name}']['error'] is None
    assert bridged['drn'] == []


def test_stand_in_for_drn_says_what_is_missing():
    with pytest.raises(ImportError, match='mmaction2 from its source repository'):
        mmaction._MissingDRN()


def test_hub_knows_the_package(plain, bridged):
    assert 'mmtransmamba' not in plain['hub']
    assert bridged['hub']['mmtransmamba'] == 'mmtransmamba'


def test_hub_finds_the_fork_of_mmseg(plain, bridged):
    """So that a config can have bases named ``mmseg::…``."""
    _require('onedl-mmsegmentation')
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.distribution(plain['hub']['mmseg'])
    assert metadata.distribution(bridged['hub']['mmseg'])


@pytest.mark.parametrize(
    ('heads', 'n_heads', 'pruned', 'expected_heads', 'expected_index'),
    [
        ({1}, 3, set(), {1}, [0, 1, 4, 5]),
        # Heads 0 and 2 of four are gone already: head 3 is now the second one.
        ({0, 3}, 2, {0, 2}, {3}, [0, 1]),
        ({0}, 2, {0}, set(), [0, 1, 2, 3]),
    ],
)
def test_find_pruneable_heads(heads, n_heads, pruned, expected_heads, expected_index):
    to_prune, index = find_pruneable_heads_and_indices(heads, n_heads, 2, pruned)
    assert to_prune == expected_heads
    assert index.dtype == torch.int64
    assert index.tolist() == expected_index


def test_notices_of_file_client_stay_out_of_the_log():
    """Needed as long as mmengine's own hooks use what it announces to remove."""
    from mmengine.fileio import FileClient
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance('notices')
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger.addHandler(handler)
    FileClient.infer_client(uri='some/file')
    assert seen
    quiet_logger(logger)
    seen.clear()
    FileClient.infer_client(uri='some/file')
    logger.warning('another message')
    assert seen == ['another message']


def test_hues_of_mmaction(bridged):
    _require('mmaction2')
    from mmaction.datasets.transforms.processing import ColorJitter

    # Red, yellow, green, blue and grey.
    colours = [[250, 0, 0], [250, 250, 0], [0, 250, 0], [0, 0, 250], [90, 90, 90]]
    image = np.array([colours], np.float32)
    if np.lib.NumpyVersion(np.__version__) >= '2.0.0':
        with pytest.raises(OverflowError):
            ColorJitter.adjust_hue.__wrapped__(image, -0.1)
    # A third of the circle is 60 of OpenCV's hues.
    turned = ColorJitter.adjust_hue(image, -60 / 255)
    expected = [[0, 0, 250], [250, 0, 250], [250, 0, 0], [0, 250, 0], [90, 90, 90]]
    assert turned.dtype == np.float32
    np.testing.assert_allclose(turned[0], expected, atol=3)
    back = ColorJitter.adjust_hue(turned, 60 / 255)
    np.testing.assert_allclose(back, image, atol=6)
    np.random.seed(0)
    jitter = ColorJitter(hue=0.5)
    for _ in range(8):
        (jittered,) = jitter.transform(dict(imgs=[image.astype(np.uint8)]))['imgs']
        assert jittered.dtype == np.uint8 and jittered.shape == image.shape


@pytest.mark.parametrize('onebit', [False, True])
def test_deepspeed_with_and_without_one_bit_optimizers(onebit, monkeypatch):
    from mmengine._strategy import deepspeed as strategy

    def module(name, **names):
        made = types.ModuleType(name)
        made.__path__ = []
        made.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    def classes(*names):
        return {name: type(name, (), {}) for name in names}

    for name in ('runtime', 'runtime.fp16', 'ops'):
        module(f'deepspeed.{name}')
    if onebit:
        module('deepspeed.runtime.fp16.onebit')
    module('deepspeed.ops.adam', **classes('DeepSpeedCPUAdam', 'FusedAdam'))
    lamb = module('deepspeed.ops.lamb', **classes('FusedLamb'))
    monkeypatch.setattr(strategy, 'deepspeed', module('deepspeed'))
    original = strategy.register_deepspeed_optimizers
    monkeypatch.setattr(strategy, 'register_deepspeed_optimizers', original)
    BRIDGES['mmengine._strategy.deepspeed'](lambda: None)
    if onebit:
        assert strategy.register_deepspeed_optimizers is original
        return
    names = ['DeepSpeedCPUAdam', 'FusedAdam', 'FusedLamb']
    assert strategy.register_deepspeed_optimizers() == names
    assert strategy.OPTIMIZERS.get('FusedLamb') is lamb.FusedLamb
