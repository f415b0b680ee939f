"""The study on converted encoders: rows that are there are not measured again."""

from argparse import Namespace
from pathlib import Path

import _convert_vit
import _convert_vit_page
import _convert_vit_trained
import pytest
import torch
from _convert_vit import FIELDS, MIXERS, RATIOS, Table, take_mixers
from tiny_encoders import tiny_encoder
from tiny_imagenette import write_imagenette
from transformers import ViTImageProcessor

import mmtransmamba
from mmtransmamba.datasets import IMAGENETTE_CLASSES
from mmtransmamba.datasets.imagenette import IMAGENETTE_INDICES
from mmtransmamba.models.folders import load_encoder


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


def test_the_trained_part_has_a_row_for_each_stage_and_goes_on(tmp_path, monkeypatch):
    write_data(tmp_path / 'data')
    args = Namespace(
        parts=['trained'],
        mixers=['GatedDeltaNet'],
        ratios=[0.5],
        train_steps=2,
        batch=2,
        images=4,
        calibration=4,
        fit_steps=1,
        seed=0,
        threads=1,
        page_only=False,
        data=tmp_path / 'data',
        out=tmp_path / 'out',
        work_dir=tmp_path / 'work',
    )

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
    monkeypatch.delattr(_convert_vit_trained, 'run_experiment')
    assert study(0) == rows
    page = (tmp_path / 'out' / 'convert_vit.md').read_text()
    assert '| GatedDeltaNet | 50 % | `align` | 2 | 1 |' in page


def test_trainings_of_other_lengths_are_other_rows(tmp_path):
    def row(steps, seed, top1, stage='align'):
        values = dict(mixer='Mamba2', ratio='1', seed=seed, steps=steps, batch='16')
        return values | dict(stage=stage, top1=top1, agreement=top1, seconds='9')

    before = dict(mixer='teacher', images='200', top1='90')
    rows = [row('100', '0', '80'), row('20', '0', '60'), row('20', '1', '62')]
    _convert_vit_page.write_page(
        tmp_path, dict(before=[before], trained=rows, latency=[])
    )
    page = (tmp_path / 'convert_vit.md').read_text()
    assert 'trained for 20 or 100 steps of 16 images in each of\n' in page
    table = page[page.index('| mixer | layers | after') :].splitlines()[2:]
    assert table == [
        '| Mamba2 | 100 % | `align` | 20 | 2 | 61.0 ± 1.4 | 61.0 ± 1.4 | 9 |',
        '| Mamba2 | 100 % | `align` | 100 | 1 | 80.0 | 80.0 | 9 |',
    ]
