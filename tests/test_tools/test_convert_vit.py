"""``tools/convert_vit.py`` writes what ``convert`` makes of a model in memory."""

import runpy
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_encoders import ENCODERS, images, tiny_encoder
from transformers import AutoConfig, CLIPConfig, CLIPModel, ViTImageProcessor

import mmtransmamba
from mmtransmamba.models.folders import load_encoder


@pytest.fixture
def tool(repo_dir, monkeypatch, tmp_path):
    """Run the tool; returns the folder that it writes."""
    monkeypatch.syspath_prepend(str(repo_dir / 'tools'))
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['convert_vit.py', 'vit', *arguments])
        runpy.run_path(str(repo_dir / 'tools' / 'convert_vit.py'), run_name='__main__')
        return tmp_path / 'out'

    return run


def save(model, folder):
    """A model with its image processor."""
    model.save_pretrained(folder)
    ViTImageProcessor(size=dict(height=16, width=16)).save_pretrained(folder)


@pytest.mark.parametrize('name', ENCODERS)
def test_every_family_is_written_as_it_is_converted(name, tool, tmp_path, capsys):
    vit = tiny_encoder(name)
    save(vit, tmp_path / 'vit')
    out = tool('--out', 'out', '--ratio', '0.5', '--seed', '3')
    assert f'written to {out.name}' in capsys.readouterr().out
    hybrid, _ = mmtransmamba.convert(vit, ratio=0.5, seed=3)
    written = load_encoder(out).eval()
    pixels = images()
    with torch.no_grad():
        expected, found = hybrid.eval()(pixels), written(pixels)
    torch.testing.assert_close(found[0], expected[0])
    processor = (out / 'preprocessor_config.json').read_text()
    assert processor == (tmp_path / 'vit' / 'preprocessor_config.json').read_text()
    assert (out / 'conversion_report.json').is_file()
    assert (out / 'README.md').is_file()
    assert AutoConfig.from_pretrained(out).transfer_history == ['init:mimic']


def test_of_a_pair_its_tower_is_written(tool, tmp_path):
    sizes = dict(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    pair = CLIPModel(
        CLIPConfig(
            vision_config=dict(sizes, image_size=16, patch_size=4),
            text_config=dict(sizes, vocab_size=20),
        )
    )
    pair.save_pretrained(tmp_path / 'vit')
    written = load_encoder(tool('--out', 'out'))
    assert type(written).__name__ == 'HybridCLIPVisionModel'


@pytest.mark.parametrize('mixer', ['Mamba2', 'GatedDeltaNet'])
def test_a_calibrated_folder_holds_the_fitted_mixers(mixer, tool, tmp_path):
    save(tiny_encoder('ViTForImageClassification'), tmp_path / 'vit')
    (tmp_path / 'images').mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'images' / f'{i}.png')
    calibrated = ('--init', 'calibrate', '--calibration', 'images', '--mixer', mixer)
    out = tool('--out', 'out', *calibrated, '--calibration-steps', '2')
    fitted = load_encoder(out).state_dict()
    tool('--out', 'out', '--overwrite', '--mixer', mixer)
    plain = load_encoder(out).state_dict()
    changed = {n for n, value in fitted.items() if not torch.equal(value, plain[n])}
    assert changed and all('.attention.' in name for name in changed)


def test_a_dry_run_writes_nothing(tool, tmp_path, capsys):
    save(tiny_encoder('Dinov2Model'), tmp_path / 'vit')
    assert not tool('--dry-run').exists()
    assert 'parameters inherited' in capsys.readouterr().out
