"""The teacher of the study on CIFAR-10: what it starts from, and what is kept."""

import argparse

import _cifar10_teacher as module
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from tiny_imagenette import write_cifar10
from transformers import ViTConfig, ViTForImageClassification

from mmtransmamba.models.checkpoint import read_state_dict

WIDTH = 24


@pytest.mark.parametrize('patch', [2, 4, 8])
def test_smaller_patches_see_an_image_as_if_it_were_enlarged(patch):
    kernel, image = torch.randn(5, 3, 8, 8).double(), torch.randn(2, 3, 16, 16).double()
    factor = 8 // patch
    large = image.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    small = module.smaller_patches(kernel, patch)
    torch.testing.assert_close(
        F.conv2d(image, small, stride=patch), F.conv2d(large, kernel, stride=8)
    )


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Arguments of a study of a tiny ViT and a few pictures."""
    deit = ViTForImageClassification(
        ViTConfig(
            hidden_size=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=2 * WIDTH,
            image_size=96,
            patch_size=16,
            num_labels=7,
        )
    )
    deit.save_pretrained(tmp_path / 'data' / 'deit_tiny')
    write_cifar10(tmp_path / 'data' / 'cifar10')
    config = tmp_path / 'tiny.py'
    config.write_text(
        f"_base_ = '{module.CONFIG}'\n"
        f'arch = dict(embed_dims={WIDTH}, num_layers=2, num_heads=3, '
        f'feedforward_channels={2 * WIDTH})\n'
        f'model = dict(backbone=dict(arch=arch), head=dict(in_channels={WIDTH}))\n'
        'train_cfg = dict(max_epochs=1)\nparam_scheduler = []\n'
    )
    monkeypatch.setattr(module, 'CONFIG', config)
    return argparse.Namespace(
        data=tmp_path / 'data',
        work_dir=tmp_path / 'work',
        out=tmp_path / 'out' / 'teacher.safetensors',
        threads=1,
    )


def test_it_starts_from_the_first_blocks_and_keeps_half_precision(study, capsys):
    module.run(study)
    start = read_state_dict(study.work_dir / 'start.pth')
    source = read_state_dict(study.data / 'deit_tiny' / 'model.safetensors')
    found = [
        value
        for name, value in source.items()
        if 'layer' in name and value.shape == (2 * WIDTH, WIDTH)
    ]
    for i in range(2):
        kept = start[f'backbone.layers.{i}.ffn.layers.0.0.weight']
        assert any(torch.equal(kept, value) for value in found)
    assert start['backbone.pos_embed'].shape == (1, 65, WIDTH)

    with safe_open(study.out, 'pt') as file:
        trained = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()
    assert {value.dtype for value in trained.values()} == {torch.float16}
    assert trained.keys() == start.keys()
    assert 0 <= float(metadata['accuracy/top1']) <= 100
    assert f'top-1 {metadata["accuracy/top1"]} %' in capsys.readouterr().out
