"""Files of every family and format against PyTorch, and what an export refuses."""

import json
import subprocess
import sys

import pytest
import torch
from mmengine.registry import DefaultScope
from tiny_exports import FAMILIES, tiny_export
from torch import nn
from torch_release import exports

from mmtransmamba.apis import export_formats, export_model
from mmtransmamba.apis.export import ExportError
from mmtransmamba.models import Vim
from mmtransmamba.models.taps import DirectionTap, LayerTap
from mmtransmamba.ops import backends
from mmtransmamba.registry import MODELS

pytestmark = exports

SUFFIX = {'onnx': '.onnx', 'torchscript': '.pt', 'torch_export': '.pt2'}
# Of the variants of a family, an ONNX file takes the most seconds to write.
TWICE = {'vmamba_v05', 'video_mamba_image', 'vrwkv_v4_cuda'}
CASES = [
    (family, format)
    for family in FAMILIES
    for format in SUFFIX
    if format != 'onnx' or family not in TWICE
]


def gap(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(('family', 'format'), CASES)
def test_every_family_runs_from_a_file_with_any_batch(family, format, tmp_path):
    model, shape = tiny_export(family)
    out = tmp_path / f'model{SUFFIX[format]}'
    report = export_model(model, shape, out, format, check=False)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert report.differences == {} and report.inputs == ('batch', *shape)
    assert model.training
    with export_formats.quiet():
        run = export_formats.FORMATS[format].read(out)
    model.eval()
    for batch in (1, 3, 4):
        images = torch.randn(batch, *shape)
        with torch.no_grad():
            expected = export_formats.as_list(model(images))
        actual = run(images)
        assert [x.shape for x in actual] == [x.shape for x in expected]
        for a, b in zip(actual, expected, strict=True):
            assert gap(a, b) < 1e-4
    if format == 'onnx':
        assert report.nodes < 300
    # As many tokens on another grid.
    turned = (*shape[:-2], 2 * shape[-2], shape[-1] // 2)
    with pytest.raises(Exception):  # noqa: B017 (each format has its own)
        run(torch.randn(3, *turned))


@pytest.mark.parametrize('format', ['torchscript', 'torch_export'])
def test_a_file_runs_in_a_process_without_this_package(format, tmp_path):
    model, shape = tiny_export('vim')
    out = tmp_path / f'model{SUFFIX[format]}'
    export_model(model, shape, out, format)
    images = torch.randn(3, *shape)
    with torch.no_grad():
        torch.save((images, model.eval()(images)[0]), tmp_path / 'case.pth')
    load = {
        'torchscript': 'torch.jit.load(sys.argv[1])',
        'torch_export': 'torch.export.load(sys.argv[1]).module()',
    }[format]
    code = f"""
import sys, torch
model = {load}
images, expected = torch.load(sys.argv[2])
y = model(images)[0]
assert not any(name.startswith('mmtransmamba') for name in sys.modules)
print((y - expected).abs().max().item())
"""
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, out, tmp_path / 'case.pth'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 1e-5


@pytest.mark.skipif(
    backends.available('selective_scan')['native'] is not None, reason='no kernels'
)
@pytest.mark.parametrize('format', ['torchscript', 'torch_export'])
def test_native_scans_stay_operators_of_this_package(format, tmp_path):
    model, shape = tiny_export('vim')
    out = tmp_path / f'model{SUFFIX[format]}'
    report = export_model(model, shape, out, format, scan='native')
    assert max(report.differences.values()) < 1e-6
    if format == 'torchscript':
        graph = str(torch.jit.load(str(out)).inlined_graph)
    else:
        graph = str(torch.export.load(out).graph).replace('mmtransmamba.', '::')
    for op in ('selective_scan', 'depthwise'):
        assert f'::{op}' in graph


CLASSIFIER = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmtransmamba.Vim',
        arch=dict(embed_dims=16, depth=1, d_state=2),
        img_size=16,
        patch_size=8,
        out_type='featmap',
    ),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=16),
    data_preprocessor=dict(
        type='mmpretrain.ClsDataPreprocessor', mean=[1, 2, 3], std=[4, 5, 6]
    ),
)
SHAPE = (3, 16, 16)


@pytest.fixture
def classifier():
    model = MODELS.build(CLASSIFIER)
    model.backbone.reset_parameters()
    return model


def test_a_classifier_gives_logits_and_notes_its_normalisation(classifier, tmp_path):
    onnx = pytest.importorskip('onnx')
    out = tmp_path / 'model.onnx'
    report = export_model(classifier, SHAPE, out, opset=18)
    assert set(report.differences) == {1, 2, 5}
    assert max(report.differences.values()) < 1e-5
    file = onnx.load(out)
    assert {x.domain: x.version for x in file.opset_import}[''] == 18
    assert [x.name for x in file.graph.input] == ['images']
    assert [x.name for x in file.graph.output] == ['logits']
    dims = file.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ['batch', *SHAPE]
    notes = {p.key: json.loads(p.value) for p in file.metadata_props}
    assert notes['mean'] == [1, 2, 3] and notes['std'] == [4, 5, 6]
    assert notes['input'] == ['batch', *SHAPE] and notes['outputs'] == ['logits']
    domains = {node.domain for node in file.graph.node}
    assert domains <= {'', 'ai.onnx'}
    assert len(file.functions) == 0


def test_features_and_a_fixed_batch(classifier, tmp_path):
    classifier.train()
    report = export_model(
        classifier, SHAPE, tmp_path / 'm.pt', 'torchscript', batch=3, features=True
    )
    assert report.outputs == ['features'] and report.inputs == (3, *SHAPE)
    assert list(report.differences) == [3] and classifier.training
    notes = {export_formats.METADATA: ''}
    torch.jit.load(str(tmp_path / 'm.pt'), _extra_files=notes)
    assert json.loads(notes[export_formats.METADATA])['model'] == 'Vim'


def test_several_features_have_names_of_their_own(tmp_path):
    model = Vim(dict(embed_dims=16, depth=2, d_state=2), 16, 8, out_indices=(0, 1))
    model.reset_parameters()
    report = export_model(model, SHAPE, tmp_path / 'm.pt', 'torchscript')
    assert report.outputs == ['features_0', 'features_1']


def test_only_the_student_of_a_distiller_is_exported(classifier, tmp_path):
    heard = []
    for tap in classifier.modules():
        if isinstance(tap, (LayerTap, DirectionTap)):
            tap.listener = heard.append
            tap.select = lambda order: order[:, :2]
    distiller = nn.Module()
    distiller.student = classifier
    distiller.teacher = nn.Linear(1000, 1000)
    report = export_model(distiller, SHAPE, tmp_path / 'm.pt', 'torchscript')
    assert report.outputs == ['logits'] and report.size < 200_000
    assert heard == []
    taps = [m for m in classifier.modules() if isinstance(m, (LayerTap, DirectionTap))]
    assert taps and all(tap.listener == heard.append for tap in taps)


def test_a_recogniser_of_videos(tmp_path):
    pytest.importorskip('mmaction')
    backbone = dict(
        type='mmtransmamba.VideoMamba',
        arch=dict(embed_dims=16, depth=1, d_state=2),
        img_size=16,
        patch_size=8,
        num_frames=4,
    )
    head = dict(type='mmaction.TimeSformerHead', num_classes=5, in_channels=16)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(
            dict(type='mmaction.Recognizer3D', backbone=backbone, cls_head=head)
        )
    model.backbone.reset_parameters()
    out = tmp_path / 'm.pt'
    report = export_model(model, (3, 4, 16, 16), out, 'torchscript')
    assert report.outputs == ['logits'] and max(report.differences.values()) < 1e-5
    videos = torch.randn(3, 3, 4, 16, 16)
    with torch.no_grad():
        (logits,) = export_formats.TorchScript.read(out)(videos)
        # As mmaction calls it: with the clips of each video.
        expected = model.eval()(videos[:, None], stage='head')
    assert logits.shape == (3, 5) and gap(logits, expected) < 1e-5


class Forgetful(nn.Module):
    """A typical tracing error: another number for every batch size."""

    def forward(self, images):
        return images.mean((1, 2, 3)) * len(images.tolist())


class Infinite(nn.Module):
    def forward(self, images):
        return images / 0


@pytest.mark.parametrize(
    ('model', 'message'),
    [(Forgetful(), 'differs from PyTorch by'), (Infinite(), 'NaN or infinite')],
)
def test_a_wrong_file_gets_no_name_and_leaves_the_old_one(model, message, tmp_path):
    out = tmp_path / 'm.pt'
    out.write_text('before')
    with pytest.raises(ExportError, match=message):
        export_model(model, SHAPE, out, 'torchscript')
    assert out.read_text() == 'before' and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(format='tflite'), "format 'tflite' is unknown; accepted: onnx, torchsc"),
        (dict(out='m.pth'), r'm.pth" is to hold the format onnx; accepted .*: .onnx'),
        (dict(out='nowhere/m.onnx'), 'folder .*nowhere" does not exist'),
        (dict(batch=0), 'batch=0 must be a positive integer'),
        (dict(opset=9), 'opset=9; accepted: 18 to 23'),
        (dict(scan='native'), "scan 'native' .* ONNX; accepted: portable"),
        (dict(scan='fast'), "scan 'fast' is unknown; accepted: portable, native"),
        (
            dict(out='m.pt', format='torchscript', opset=20),
            'opset=20 belongs to the format onnx, not to torchscript',
        ),
    ],
)
def test_arguments_that_are_refused(arguments, message, tmp_path):
    model, shape = tiny_export('vim')
    arguments['out'] = tmp_path / arguments.get('out', 'm.onnx')
    with pytest.raises(ValueError, match=message):
        export_model(model, shape, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_models_that_are_refused(classifier, tmp_path):
    def export(model):
        return export_model(model, SHAPE, tmp_path / 'm.pt', 'torchscript')

    with pytest.raises(ExportError, match=r'head.fc.weight is torch.float16 on cpu'):
        classifier.head.fc.half()
        export(classifier)
    classifier.head = None
    with pytest.raises(ExportError, match='has no classification head; accepted with'):
        export(classifier)
    del classifier._modules['backbone']
    with pytest.raises(ExportError, match='ImageClassifier is not exported; accepted'):
        export(classifier)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, tmp_path):
    find = export_formats.find_spec
    monkeypatch.setattr(
        export_formats, 'find_spec', lambda n: find(n) if n == 'onnx' else None
    )
    model, shape = tiny_export('vim')
    wanted = 'needs onnxscript, onnxruntime: pip install onnxscript onnxruntime'
    with pytest.raises(ImportError, match=wanted):
        export_model(model, shape, tmp_path / 'm.onnx')
