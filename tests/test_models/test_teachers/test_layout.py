import pytest
import torch
from torch import nn

from mmtransmamba.models.teachers.layout import (
    Layout,
    find_blocks,
    find_layout,
    pooled_feature,
    recorded_outputs,
    split_tokens,
)


def layout(has_cls=True, channels_last=False, norm=None):
    return Layout((), nn.Conv2d(3, 4, 8, 8), norm, has_cls, channels_last)


@pytest.mark.parametrize('prefix', [0, 1, 2, 5])
def test_prefix_tokens_are_split_off(prefix):
    tokens = torch.randn(2, prefix + 12, 4)
    feature = split_tokens(tokens, (3, 4), layout())
    assert feature.grid == (3, 4)
    assert torch.equal(feature.tokens, tokens[:, prefix:])
    if prefix:
        assert torch.equal(feature.cls, tokens[:, 0])
    else:
        assert feature.cls is None


def test_register_tokens_without_class_token_give_no_cls():
    assert (
        split_tokens(torch.randn(1, 14, 4), (3, 4), layout(has_cls=False)).cls is None
    )


def test_merged_tokens_lie_on_the_coarser_grid():
    feature = split_tokens(torch.randn(1, 2 * 3, 4), (7, 9), layout())
    assert feature.grid == (2, 3)


@pytest.mark.parametrize('channels_last', [False, True])
def test_maps_become_tokens_in_raster_order(channels_last):
    maps = torch.randn(2, 5, 3, 4)
    given = maps.permute(0, 2, 3, 1) if channels_last else maps
    feature = split_tokens(given, (99, 99), layout(channels_last=channels_last))
    assert feature.grid == (3, 4)
    assert torch.equal(feature.tokens, maps.flatten(2).transpose(1, 2))


@pytest.mark.parametrize('shape', [(1, 40, 4), (1, 11, 4), (2, 4)])
def test_what_fits_no_grid_is_refused(shape):
    with pytest.raises(ValueError, match='cannot be laid out on the patch grid 3x4'):
        split_tokens(torch.randn(shape), (3, 4), layout(has_cls=False))


def test_pooled_feature_of_every_kind_of_output():
    tokens = torch.randn(2, 13, 4)
    last = split_tokens(tokens, (3, 4), layout())
    assert torch.equal(pooled_feature(tokens, last, layout()), tokens[:, 0])
    patches = split_tokens(tokens[:, 1:], (3, 4), layout())
    torch.testing.assert_close(
        pooled_feature(tokens[:, 1:], patches, layout()), tokens[:, 1:].mean(1)
    )
    maps = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(
        pooled_feature(maps, patches, layout()), maps.mean((2, 3))
    )
    assert torch.equal(pooled_feature(tokens[:, 3], last, layout()), tokens[:, 3])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 4, 8, 8)
        stages = [nn.Module(), nn.Module()]
        for stage in stages:
            stage.blocks = nn.ModuleList([nn.Identity(), nn.ReLU()])
        self.stages = nn.ModuleList(stages)
        self.norm = nn.Identity()
        self.ln1 = nn.LayerNorm(4)


def test_blocks_of_stages_are_found_in_order():
    model = Model()
    found = find_layout(model, None, ('norm', 'ln1'))
    assert found.blocks == (*model.stages[0].blocks, *model.stages[1].blocks)
    assert found.patch_conv is model.patch_embed
    assert found.final_norm is model.ln1
    assert not found.has_cls


def test_named_blocks():
    model = Model()
    assert find_blocks(model, ['stages.1.blocks.0']) == [model.stages[1].blocks[0]]
    with pytest.raises(ValueError, match=r"no submodule \['stages.9'\]"):
        find_blocks(model, ['stages.9'])


def test_a_model_without_known_places_says_how_to_name_them():
    with pytest.raises(ValueError, match="layers=.*its children are .*'0', '1'"):
        find_blocks(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()), None)
    with pytest.raises(ValueError, match='no convolution'):
        find_layout(nn.Linear(2, 2), None, ())


def test_hooks_are_gone_after_recording_even_after_an_error():
    model = Model()
    found = find_layout(model, None, ('ln1',))
    with pytest.raises(RuntimeError, match='on purpose'):
        with recorded_outputs(found, 1) as outputs:
            model.ln1(torch.ones(1, 4))
            assert set(outputs) == {model.ln1}
            raise RuntimeError('on purpose')
    assert not any(module._forward_hooks for module in model.modules())
