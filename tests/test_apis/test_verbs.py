"""The verbs of the package: each as a user would first call it."""

import io
import json
import subprocess
import sys

import mmcv
import numpy as np
import pytest
import timm
import torch
from mmengine.runner import Runner
from PIL import Image
from subclone_models import student, vit_state
from tiny_decoders import tiny_teacher
from tiny_vlms import tiny_llava
from torch import nn

import mmtransmamba
from mmtransmamba.apis.classification import _as_array
from mmtransmamba.apis.configs import read_config
from mmtransmamba.apis.loading import load_trained
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.registry import MODELS, WEIGHT_MAPS

TINY = {
    'model.backbone.arch': dict(embed_dims=16, depth=1),
    'model.head.in_channels': 16,
    'train_cfg.max_epochs': 1,
    'train_cfg.val_interval': 1,
    'param_scheduler': [],
}


@pytest.mark.parametrize('name', mmtransmamba.__all__)
def test_every_public_name_is_found_and_documented(name):
    assert name in dir(mmtransmamba)
    value = getattr(mmtransmamba, name)
    if name != '__version__':
        assert value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'transmute'"):
        _ = mmtransmamba.transmute


def test_configs_are_found_by_name():
    names = mmtransmamba.list_models('digits_*')
    assert {'digits_scratch', 'digits_transfer'} <= set(names)
    assert set(names) < set(mmtransmamba.list_models())
    config = mmtransmamba.get_config('digits_scratch')
    assert config.model.backbone.type == 'mmtransmamba.PlainMamba'
    with pytest.raises(ValueError, match='similar: digits_scratch'):
        mmtransmamba.get_config('digits_scrach')


@pytest.mark.parametrize('save', [False, True], ids=['module', 'folder'])
def test_a_language_model_is_converted_saved_and_loaded(save, tmp_path):
    teacher = tiny_teacher('llama')
    if save:
        teacher.save_pretrained(tmp_path / 'teacher')
        teacher = tmp_path / 'teacher'
    hybrid, report = mmtransmamba.convert(teacher, layers='interleaved', ratio=0.5)
    assert 'linear_attention' in hybrid.config.layer_types
    assert 'q_proj' in str(report)
    hybrid.save_pretrained(tmp_path / 'hybrid')
    loaded = mmtransmamba.load(tmp_path / 'hybrid')
    assert not loaded.training
    ids = torch.randint(3, 60, (2, 9))
    expected = hybrid.eval()(ids).logits
    torch.testing.assert_close(loaded(ids).logits, expected)
    half = mmtransmamba.load(tmp_path / 'hybrid', dtype=torch.bfloat16)
    dtypes = {name: p.dtype for name, p in half.named_parameters()}
    assert dtypes['model.embed_tokens.weight'] == torch.bfloat16
    assert {d for n, d in dtypes.items() if n.endswith('A_log')} == {torch.float32}


def test_a_vision_language_model_is_converted_and_loaded(tmp_path):
    hybrid, _ = mmtransmamba.convert(tiny_llava(), layers=[0])
    assert hybrid.config.text_config.layer_types[0] == 'linear_attention'
    hybrid.save_pretrained(tmp_path / 'vlm')
    assert type(mmtransmamba.load(tmp_path / 'vlm')) is type(hybrid)


def test_a_vision_teacher_is_pointed_to_what_takes_it():
    with pytest.raises(TypeError, match='inherit'):
        mmtransmamba.convert(nn.Linear(2, 2))


def test_a_loaded_folder_with_a_missing_tensor_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    hybrid, _ = mmtransmamba.convert(tiny_teacher('llama'))
    hybrid.save_pretrained(tmp_path)
    weights = load_file(tmp_path / 'model.safetensors')
    del weights['model.layers.0.self_attn.A_log']
    save_file(weights, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(CheckpointError, match='A_log'):
        mmtransmamba.load(tmp_path)


def test_a_student_inherits_from_a_module_and_from_a_file(tmp_path):
    vit = timm.create_model(
        'vit_tiny_patch16_224',
        img_size=16,
        patch_size=8,
        embed_dim=16,
        depth=3,
        num_heads=2,
        num_classes=5,
    )
    one, other = student(), student()
    other.load_state_dict(one.state_dict())
    report = mmtransmamba.inherit(one, vit)
    assert {entry.action for entry in report.entries} >= {'copied', 'fresh'}
    torch.testing.assert_close(one.head.fc.weight, vit.head.weight)
    torch.testing.assert_close(
        one.backbone.layers[1].norm.weight, vit.blocks[1].norm1.weight
    )
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    mmtransmamba.inherit(other, tmp_path / 'vit.pth', weight_map='vit_to_plainmamba')
    for name, parameter in one.named_parameters():
        torch.testing.assert_close(parameter, other.get_parameter(name), msg=name)


def teacher_of(**options):
    fields = dict(
        model_type='vit',
        num_labels=5,
        hidden_size=16,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        patch_size=8,
        image_size=options.pop('image_size', 16),
    )
    fields |= {k: options.pop(k) for k in ('id2label',) if k in options}
    given = dict(model=fields, checkpoint='random', mean=[0.0] * 3, std=[1.0] * 3)
    return MODELS.build(dict(type='mmtransmamba.TransformersTeacher') | given | options)


def test_a_head_is_inherited_in_the_teachers_order_of_classes():
    order = [3, 1, 4, 2, 0]
    one, teacher = student(), teacher_of(class_order=order)
    mmtransmamba.inherit(one, teacher)
    own = teacher.model.classifier.weight
    torch.testing.assert_close(one.head.fc.weight, own[order])
    waiting = teacher_of(class_order='names', id2label=dict(enumerate('abcde')))
    with pytest.raises(ValueError, match="class_order='names' is not resolved"):
        mmtransmamba.inherit(student(), waiting)


def test_positions_of_a_grid_that_is_not_square_are_the_teachers():
    """It has as many patches as a square one."""
    one, teacher = student(grid=(2, 8)), teacher_of(image_size=[16, 64])
    own = teacher.canonical_state_dict()['pos_embed'][:, 1:]
    assert own.std() > 0
    mmtransmamba.inherit(one, teacher)
    torch.testing.assert_close(one.backbone.pos_embed, own)


def test_inheriting_names_the_maps_and_the_options_there_are():
    with pytest.raises(ValueError, match='vit_to_vim'):
        mmtransmamba.inherit(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="width='half'"):
        mmtransmamba.inherit(student(), nn.Linear(2, 2), width='half')


@pytest.mark.parametrize('kind', ['PlainMamba', 'Vim', 'VideoMamba', 'VMamba', 'VRWKV'])
def test_every_backbone_has_a_map_from_a_vit(kind):
    assert WEIGHT_MAPS.get(f'vit_to_{kind.lower()}') is not None


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('runs') / 'digits'
    result = mmtransmamba.train('digits_scratch', work_dir, TINY)
    assert result.scalars.accuracy
    return work_dir


def test_a_trained_classifier_is_loaded_and_infers(run):
    model = mmtransmamba.load(run)
    dataset = Runner.build_dataloader(model._config.test_dataloader).dataset
    images = [dataset.get_data_info(i)['img'] for i in range(5)]
    found = mmtransmamba.infer(model, images, batch_size=2)
    batch = [dataset[i] for i in range(5)]
    data = model.data_preprocessor(
        dict(
            inputs=torch.stack([one['inputs'] for one in batch]),
            data_samples=[one['data_samples'] for one in batch],
        )
    )
    with torch.no_grad():
        expected = model(data['inputs']).softmax(-1)
    for one, scores in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.scores, scores, rtol=1e-4, atol=1e-6)
        assert one.label == int(scores.argmax())
        assert one.name == str(one.label)
    (checkpoint,) = run.glob('epoch_1.pth')
    again = mmtransmamba.infer(checkpoint, images[0])
    np.testing.assert_allclose(again[0].scores, found[0].scores, rtol=1e-5)


def _pictures(folder):
    """The same grey digit in several forms."""
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    image = Image.fromarray(grey)
    file = io.BytesIO()
    image.convert('RGB').save(file, 'PNG')
    (folder / 'colour.png').write_bytes(file.getvalue())
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / 'deep.png')
    Image.fromarray(grey / np.float32(255)).save(folder / 'real.tiff')
    turned = Image.fromarray(np.rot90(grey))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    turned.save(folder / 'turned.png', exif=exif)
    return {
        'array': grey[..., None],
        'file': str(folder / 'colour.png'),
        'path': folder / 'colour.png',
        'content': file.getvalue(),
        'PIL image': image,
        '16 bits': folder / 'deep.png',
        'real numbers': folder / 'real.tiff',
        'turned': folder / 'turned.png',
    }


def test_a_grey_classifier_infers_from_files_and_images_of_every_kind(run, tmp_path):
    model = mmtransmamba.load(run)
    pictures = _pictures(tmp_path)
    expected = mmtransmamba.infer(model, pictures['array'])[0].scores
    for name, picture in pictures.items():
        found = mmtransmamba.infer(model, picture)[0].scores
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)


def test_a_colour_classifier_infers_from_files_as_from_arrays_of_opencv(tmp_path):
    config = read_config('digits_scratch')
    colour = dict(num_classes=10, mean=[9.0, 99.0, 199.0], std=[50.0] * 3, to_rgb=True)
    config.data_preprocessor = dict(type='ClsDataPreprocessor', **colour)
    config.merge_from_dict({**TINY, 'model.backbone.in_channels': 3})
    model = load_trained(config).eval()
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / 'x.png')
    files = mmtransmamba.infer(model, [tmp_path / 'x.png', Image.fromarray(colours)])
    array = mmtransmamba.infer(model, colours[..., ::-1].copy())[0]
    for found in files:
        np.testing.assert_allclose(found.scores, array.scores, rtol=1e-5)


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
def test_transparent_files_are_read_as_by_the_pipelines_of_training(
    run, tmp_path, mode
):
    """They show the colour that is stored where nothing is to be seen."""
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (8, 8, 4), np.uint8), 'RGBA')
    image = image.quantize(16) if mode == 'P' else image.convert(mode)
    image.save(tmp_path / 'x.png')
    read = mmcv.imread(tmp_path / 'x.png')
    for kind in (tmp_path / 'x.png', (tmp_path / 'x.png').read_bytes(), image):
        found = _as_array(kind, is_grey=False)
        assert np.abs(found.astype(int) - read).max() <= 1


def test_inferring_leaves_each_module_in_its_mode(run):
    model = mmtransmamba.load(run).train()
    model.head.eval()
    modes = [module.training for module in model.modules()]
    mmtransmamba.infer(model, np.zeros((8, 8, 1), np.uint8))
    assert [module.training for module in model.modules()] == modes


def test_a_config_can_be_trained_again_and_stays_as_it_was(tmp_path):
    config = read_config('digits_scratch')
    before = config.pretty_text
    first = mmtransmamba.train(config, tmp_path / 'a', TINY)
    assert config.pretty_text == before
    again = mmtransmamba.train(config, tmp_path / 'a', TINY)  # its result
    assert again.scalars == first.scalars


def test_images_that_cannot_be_inferred_from_are_named(run, tmp_path):
    model = mmtransmamba.load(run)
    for name, content in dict(empty=b'', half=b'\x89PNG\r\n\x1a\n\0').items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f'{name} does not decode'):
            mmtransmamba.infer(model, tmp_path / name)
    with pytest.raises(TypeError, match='not None'):
        mmtransmamba.infer(model, [None])
    sizes = [np.zeros((n, n, 1), np.uint8) for n in (8, 16)]
    with pytest.raises(ValueError, match='batch_size=1'):
        mmtransmamba.infer(model, sizes)
    assert len(mmtransmamba.infer(model, sizes, batch_size=1)) == 2
    for batch_size in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match='batch_size='):
            mmtransmamba.infer(model, sizes, batch_size=batch_size)


def test_a_trained_classifier_is_exported(run, tmp_path):
    report = mmtransmamba.export(run, tmp_path / 'digits.pt', 'torchscript')
    assert report.inputs == ('batch', 1, 8, 8)
    assert max(report.differences.values()) < 1e-4
    model = mmtransmamba.load(run)
    images = torch.rand(3, 1, 8, 8)
    written = torch.jit.load(tmp_path / 'digits.pt')(images)
    torch.testing.assert_close(written, model(images))
    with pytest.raises(ValueError, match='shape is needed'):
        mmtransmamba.export(nn.Linear(2, 2), tmp_path / 'linear.pt', 'torchscript')


def test_errors_of_loading_and_inferring_name_what_is_wrong(run, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        mmtransmamba.load(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='neither a config.json'):
        mmtransmamba.load(tmp_path)
    with pytest.raises(FileNotFoundError, match='no image "missing.png"'):
        mmtransmamba.infer(run, 'missing.png')
    with pytest.raises(TypeError, match='Linear is not an image classifier'):
        mmtransmamba.infer(nn.Linear(2, 2), [])
    torch.save(vit_state(), tmp_path / 'other.pth')
    config = next(run.glob('*.py'))
    with pytest.raises(CheckpointError, match='other.pth'):
        mmtransmamba.load(tmp_path / 'other.pth', config=config)


def test_the_verbs_cost_nothing_until_used():
    code = (
        'import json, sys, mmtransmamba; dir(mmtransmamba);'
        'print(json.dumps([m for m in ("torch", "mmengine", "transformers") '
        'if m in sys.modules]))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
