"""The study on converted encoders: rows that are there are not measured again."""

from argparse import Namespace
from pathlib import Path

import _convert_vit
import _convert_vit_page
import _convert_vit_subjects
import _convert_vit_trained
import pytest
import torch
from _convert_vit import FIELDS, MIXERS, RATIOS, Table, take_mixers
from mmengine.registry import DefaultScope
from safetensors.torch import save_file
from tiny_encoders import tiny_encoder
from tiny_imagenette import write_cifar10, write_imagenette
from transformers import ViTImageProcessor

import mmtransmamba
from mmtransmamba.apis.configs import read_config
from mmtransmamba.datasets import IMAGENETTE_CLASSES
from mmtransmamba.datasets.imagenette import IMAGENETTE_INDICES
from mmtransmamba.models.folders import load_encoder
from mmtransmamba.registry import MODELS


@pytest.mark.parametrize('ratio', RATIOS)
def test_a_row_is_found_again(ratio, tmp_path):
    row = dict.fromkeys(FIELDS['before'], 'a') | dict(ratio=ratio, kl=0.123456789)
    Table(tmp_path, 'before').add(**row)
    again = Table(tmp_path, 'before')
    assert again.has(ratio=ratio, mixer='a')
    assert not again.has(ratio=ratio, mixer='b')
    assert again.rows[0]['kl'] == '0.12346'


@pytest.mark.parametrize('mixer', MIXERS)
def test_half_a_hybrid_takes_mixers_and_keeps_its_attention(mixer):
    vit = tiny_encoder('ViTForImageClassification')
    whole, _ = mmtransmamba.convert(vit, mixer=mixer, init='scratch', seed=1)
    half, _ = mmtransmamba.convert(vit, mixer=mixer, ratio=0.5)
    (converted,) = half.config.mamba_layers
    take_mixers(half, whole.state_dict())
    for i in range(2):
        found = half.vit.layers[i].attention.state_dict()
        expected = whole if i == converted else vit
        expected = expected.vit.layers[i].attention.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def write_data(folder: Path) -> None:
    """Images of noise, and a ViT of two blocks with the classes of ImageNet-1k."""
    write_imagenette(folder / 'imagenette96')
    names = {i: f'class {i}' for i in range(1000)}
    names |= dict(zip(IMAGENETTE_INDICES, IMAGENETTE_CLASSES, strict=True))
    vit = tiny_encoder(
        'ViTForImageClassification',
        image_size=224,
        patch_size=56,
        num_labels=1000,
        id2label=names,
        label2id={name: i for i, name in names.items()},
    )
    vit.save_pretrained(folder / 'deit_tiny')
    processor = ViTImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor.save_pretrained(folder / 'deit_tiny')


def arguments(folder: Path, part: str) -> Namespace:
    """Arguments of a study of one hybrid, trained for two steps."""
    return Namespace(
        parts=[part],
        mixers=['GatedDeltaNet'],
        ratios=[0.5],
        train_steps=2,
        batch=2,
        images=4,
        seeds=[0],
        threads=1,
        page_only=False,
        data=folder / 'data',
        out=folder / 'out',
        work_dir=folder / 'work',
    )


def test_the_trained_part_has_a_row_for_each_stage_and_goes_on(tmp_path, monkeypatch):
    write_data(tmp_path / 'data')
    args = arguments(tmp_path, 'trained')
    monkeypatch.setattr(_convert_vit, 'CALIBRATION', 4)
    monkeypatch.setattr(_convert_vit, 'FIT_STEPS', 1)

    def study(*seeds: int) -> list[dict[str, str]]:
        args.seeds = seeds
        _convert_vit.run(args)
        return Table(tmp_path / 'out' / 'convert_vit', 'trained').rows

    rows = study(0)
    found = [(row['ratio'], row['stage']) for row in rows]
    assert found == [('0.5', 'align'), ('0.5', 'tune')]
    folder = tmp_path / 'work' / 'GatedDeltaNet_0.5_0_2x2' / 'tune' / 'student'
    history = load_encoder(folder).config.transfer_history
    assert history == ['init:mimic', 'vision_align', 'vision_tune']
    assert all(float(row['seconds']) > 0 for row in rows)
    with monkeypatch.context() as patch:
        patch.delattr(_convert_vit_trained, 'run_experiment')
        assert study(0) == rows
    page = (tmp_path / 'out' / 'convert_vit.md').read_text()
    assert '| GatedDeltaNet | 50 % | `align` | 2 | 2 | 1 |' in page
    # The time of a training that an earlier command began is not known.
    (tmp_path / 'out' / 'convert_vit' / 'trained.csv').unlink()
    again = study(0)
    assert again == [row | dict(seconds='') for row in rows]
    page = (tmp_path / 'out' / 'convert_vit.md').read_text()
    (line,) = (x for x in page.splitlines() if '| `tune` | 2 | 2 | 1 |' in x)
    assert line.endswith('| – |')


def test_other_lengths_batches_and_tests_are_no_seeds(tmp_path):
    def row(steps, seed, top1, batch='16', images='200'):
        values = dict(mixer='Mamba2', ratio='1', seed=seed, steps=steps, batch=batch)
        results = dict(stage='align', top1=top1, agreement=top1, seconds='9')
        return values | results | dict(images=images)

    def before(mixer, images, top1):
        values = dict(mixer=mixer, init='mimic', ratio='1', images=images)
        return values | dict(top1=top1, agreement=top1, kl='1')

    rows = [
        *(row('100', '0', '80'), row('20', '0', '60'), row('20', '1', '62')),
        *(row('20', '0', '70', batch='32'), row('20', '2', '99', images='100')),
    ]
    _convert_vit_page.write_page(
        tmp_path,
        dict(
            before=[
                *(before('teacher', '100', '95'), before('teacher', '200', '90')),
                *(before('Mamba2', '200', '8'), before('Mamba2', '100', '9')),
            ],
            trained=rows,
            latency=[],
        ),
        dict(before=[], trained=[]),
    )
    page = (tmp_path / 'convert_vit.md').read_text()
    assert 'The teacher is right in 90.0 % of the images.' in page
    assert 'the same 200 images' in page
    lines = page.splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith('| ---')]
    one, other = (lines[i + 1 : i + 4] for i in heads)
    assert one[0] == '| Mamba2 | `mimic` | 100 % | 8.0 | 8.0 | 1.00 |' and not one[1]
    assert other == [
        '| Mamba2 | 100 % | `align` | 20 | 16 | 2 | 61.0 ± 1.4 | 61.0 ± 1.4 | 9 |',
        '| Mamba2 | 100 % | `align` | 20 | 32 | 1 | 70.0 | 70.0 | 9 |',
        '| Mamba2 | 100 % | `align` | 100 | 16 | 1 | 80.0 | 80.0 | 9 |',
    ]


def before_row(mixer, images):
    values = dict(mixer=mixer, init='mimic', ratio='1', images=images)
    return values | dict(top1='9', agreement='9', kl='1')


def test_a_page_has_what_there_is(tmp_path):
    def page(**rows):
        none = dict(before=[], trained=[], latency=[])
        imagenette = none | rows.pop('imagenette', {})
        _convert_vit_page.write_page(tmp_path, imagenette, none | rows)
        return (tmp_path / 'convert_vit.md').read_text()

    assert page() == '# DeiT-Tiny converted: accuracy on Imagenette\n'
    rows = [before_row('teacher', '40'), before_row('Mamba2', '40')]
    assert '| Mamba2 | `mimic` | 100 % | 9.0 |' in page(before=rows)
    latency = [dict(model='Mamba2', pixels='224', milliseconds='7')]
    assert '| Mamba2 | 224 | 7 |' in page(imagenette=dict(latency=latency))
    # A teacher on more images alone takes no row away.
    rows.append(before_row('teacher', '400'))
    text = page(imagenette=dict(before=rows))
    assert '| Mamba2 | `mimic` | 100 % | 9.0 |' in text and 'same 40 images' in text


def test_the_part_cifar10_converts_the_teacher_of_its_own_study(tmp_path, monkeypatch):
    write_data(tmp_path / 'data')
    write_cifar10(tmp_path / 'data' / 'cifar10')
    args = arguments(tmp_path, 'cifar10')
    with pytest.raises(SystemExit, match=r'test\.npz has 10 images, not 40'):
        _convert_vit.run(args)
    args.images = 1
    monkeypatch.setattr(_convert_vit, 'CALIBRATION', 1)
    monkeypatch.setattr(_convert_vit, 'FIT_STEPS', 1)
    with pytest.raises(SystemExit, match=r'cifar10_teacher\.py trains it'):
        _convert_vit.run(args)

    config = tmp_path / 'tiny.py'
    config.write_text(
        f"_base_ = '{_convert_vit_subjects.CONFIG}'\n"
        'arch = dict(embed_dims=24, num_layers=2, num_heads=3, '
        'feedforward_channels=48)\n'
        'model = dict(backbone=dict(arch=arch), head=dict(in_channels=24))\n'
    )
    monkeypatch.setattr(_convert_vit_subjects, 'CONFIG', config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        teacher = MODELS.build(read_config(config).model).eval()
    weights = {n: value.half() for n, value in teacher.state_dict().items()}
    (args.out / 'cifar10').mkdir(parents=True)
    save_file(weights, args.out / 'cifar10' / 'teacher.safetensors')
    folder = _convert_vit_subjects.CIFAR10.teacher(args)
    image = torch.randn(2, 3, 32, 32)
    teacher.load_state_dict({n: value.float() for n, value in weights.items()})
    torch.testing.assert_close(
        load_encoder(folder).eval()(image).logits, teacher(image)
    )

    # The page needs DeiT-Tiny's row as well.
    table = Table(args.out / 'convert_vit', 'before')
    table.add(mixer='teacher', images=4, top1=90.0)
    _convert_vit.run(args)
    rows = Table(args.out / 'convert_vit', 'trained', 'cifar10_').rows
    assert [row['stage'] for row in rows] == ['align', 'tune']
    assert {row['images'] for row in rows} == {'10'}
    page = (tmp_path / 'out' / 'convert_vit.md').read_text()
    _, section = page.split('## The teacher on CIFAR-10')
    assert '% of the first 10 test images.' in section
    assert '| GatedDeltaNet | `calibrate` | 50 % |' in section
    assert '| GatedDeltaNet | 50 % | `tune` | 2 | 2 | 1 |' in section
