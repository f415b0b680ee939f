"""Shared parts of backbones: base class, checkpoints, taps, position embeddings."""

import re

import mmpretrain.models  # noqa: F401  (it registers the classifier)
import numpy as np
import pytest
import torch
from torch import nn

from mmtransmamba.models import CheckpointError, load_pretrained, read_state_dict
from mmtransmamba.models.backbones.base import VisionBackbone, drop_path_rates
from mmtransmamba.models.pos_embed import resize_pos_embed
from mmtransmamba.models.taps import DirectionTap, LayerTap, patch_index
from mmtransmamba.registry import MODELS

WIDTH = 8


@MODELS.register_module()
class TokenNet(VisionBackbone):
    """Linear blocks on patches and a class token in their middle."""

    OFFICIAL_HEADS = {'classifier.head.': 'head.fc.', 'head.': 'head.fc.'}
    NO_DECAY = ('pos_embed', 'scale')

    def __init__(self, img_size=16, depth=3, with_cp=False, init_cfg=None):
        super().__init__(init_cfg)
        self.depth, self.patch_size, self.with_cp = depth, 4, with_cp
        self.pos_embed_grid = self._grid_of(img_size, 4)
        self.patch_embed = nn.Conv2d(3, WIDTH, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        positions = self.pos_embed_grid[0] * self.pos_embed_grid[1] + 1
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, WIDTH))
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self._register_load_state_dict_pre_hook(self._fit_pos_embed)

    @staticmethod
    def cls_at(num_patches):
        return num_patches // 2

    def reset_parameters(self):
        nn.init.normal_(self.pos_embed)
        nn.init.normal_(self.norm.weight)

    def forward(self, images):
        self._check_images(images)
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        at = self.cls_at(x.shape[1])
        cls = self.cls_token.expand(len(x), -1, -1)
        x = torch.cat((x[:, :at], cls, x[:, at:]), dim=1) + self.pos_embed
        for layer in self.layers:
            x = x + self._run(layer, x)
        return (self.norm(x)[:, at] * self.scale,)


def net(**kwargs):
    torch.manual_seed(0)
    model = TokenNet(**kwargs)
    model.init_weights()
    return model


def classifier():
    torch.manual_seed(1)
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmtransmamba.TokenNet'),
            head=dict(
                type='mmpretrain.LinearClsHead', num_classes=5, in_channels=WIDTH
            ),
        )
    ).eval()


class TestVisionBackbone:
    def test_indices_count_from_the_end_too(self):
        model = net()
        assert model._resolve_indices(-1, 3) == (2,)
        assert model._resolve_indices((0, -2), 3) == (0, 1)
        message = r'TokenNet: out_indices=\(3,\) must lie in \[-3, 2\] for 3 stages'
        with pytest.raises(ValueError, match=message):
            model._resolve_indices(3, 3, 'stages')

    def test_numpy_integers_are_integers(self):
        model = net()
        indices = model._resolve_indices(np.arange(2), 3)
        indices += model._resolve_indices(np.int64(-1), 3)
        assert indices == (0, 1, 2) and {type(i) for i in indices} == {int}
        grid = model._grid_of(np.int64(18), 4) + model._grid_of(np.array([8, 20]), 4)
        assert grid == (4, 4, 2, 5) and {type(n) for n in grid} == {int}

    @pytest.mark.parametrize('indices', [1.0, '1', (0, 1.5), None, {0: 1}])
    def test_indices_are_integers(self, indices):
        message = re.escape(f'TokenNet: out_indices={indices!r} must be an integer or')
        with pytest.raises(ValueError, match=message):
            net()._resolve_indices(indices, 3)

    @pytest.mark.parametrize('size', [64.0, '64', (8, 8, 8), (), (8, 9.5), None])
    def test_image_size_is_one_integer_or_two(self, size):
        message = re.escape(f'TokenNet: img_size={size!r} must be an integer, or')
        with pytest.raises(ValueError, match=message):
            net()._grid_of(size, 4)

    @pytest.mark.parametrize('value', [0, -4, 4.0, '4'])
    def test_patch_size_and_stride_are_positive(self, value):
        message = f'TokenNet: patch_size={value!r} must be a positive integer'
        with pytest.raises(ValueError, match=message):
            net()._grid_of(16, value)
        message = f'TokenNet: stride={value!r} must be a positive integer'
        with pytest.raises(ValueError, match=message):
            net()._grid_of(16, 4, value)

    def test_grid_of_whole_patches(self):
        model = net()
        assert model._grid_of(18, 4) == (4, 4)
        assert model._grid_of((8, 20), 4) == (2, 5)
        assert model._grid_of(16, 4, stride=2) == (7, 7)
        with pytest.raises(ValueError, match=r'img_size=\(8, 3\) is smaller than one'):
            model._grid_of((8, 3), 4)
        with pytest.raises(ValueError, match='images of 16x3 pixels are smaller'):
            model(torch.zeros(1, 3, 16, 3))

    @pytest.mark.parametrize('shape', [(1, 1, 16, 16), (3, 16, 16), (1, 3, 2, 16, 16)])
    def test_images_have_the_shape_of_the_patch_embedding(self, shape):
        message = re.escape(f'shape {list(shape)}; accepted: [B, 3, H, W]')
        with pytest.raises(ValueError, match=message):
            net()(torch.zeros(shape))

    def test_blocks_are_run_again_in_the_backward_pass_if_asked(self):
        for with_cp in (False, True):
            model, calls = net(with_cp=with_cp), []
            model.layers[0].register_forward_pre_hook(
                lambda *_, calls=calls: calls.append(0)
            )
            model(torch.randn(1, 3, 16, 16))[0].sum().backward()
            assert len(calls) == 1 + with_cp
            with torch.no_grad():
                model(torch.randn(1, 3, 16, 16))
            assert len(calls) == 2 + with_cp

    def test_weight_decay_spares_by_the_last_part_of_the_name(self):
        assert net().no_weight_decay() == {'pos_embed', 'scale'}

    @pytest.mark.parametrize(
        'name, depth',
        [
            ('pos_embed', 0),
            ('patch_embed.weight', 0),
            ('cls_token', 0),
            ('layers.0.weight', 1),
            ('layers.2.bias', 3),
            ('norm.weight', 4),
        ],
    )
    def test_depth_of_parameters(self, name, depth):
        assert net().get_layer_depth(name) == (depth, 5)
        assert net().get_layer_depth(f'backbone.{name}', 'backbone.') == (depth, 5)
        assert net().get_layer_depth('head.fc.weight', 'backbone.') == (4, 5)

    def test_initialisation_then_init_cfg(self, tmp_path):
        assert not torch.equal(net().norm.weight, torch.ones(WIDTH))
        constant = dict(type='Constant', layer='LayerNorm', val=3.0)
        model = net(init_cfg=constant)
        assert torch.equal(model.norm.weight, torch.full((WIDTH,), 3.0))
        assert model.pos_embed.abs().sum() > 0

        torch.save(model.state_dict(), tmp_path / 'net.pth')
        pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'net.pth'))
        assert torch.equal(net(init_cfg=pretrained).norm.weight, model.norm.weight)

    def test_a_part_of_a_file_is_loaded_by_its_prefix(self, tmp_path):
        one, other = net(), net()
        torch.nn.init.constant_(other.norm.weight, 3.0)
        state = {f'image.encoder.{n}': v for n, v in one.state_dict().items()}
        state |= {f'video.encoder.{n}': v for n, v in other.state_dict().items()}
        state['text.norm.weight'] = one.norm.weight
        torch.save(state, tmp_path / 'both.pth')
        pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'both.pth'))
        for prefix in ('video.encoder', 'video.encoder.'):
            loaded = net(init_cfg=dict(pretrained, prefix=prefix))
            assert torch.equal(loaded.norm.weight, other.norm.weight)
        with pytest.raises(ValueError, match='with which no tensor of .*both.pth'):
            net(init_cfg=dict(pretrained, prefix='audio'))
        with pytest.raises(CheckpointError, match='both.pth does not fit'):
            net(init_cfg=dict(pretrained, prefix='text'))

    @pytest.mark.parametrize('prefix', [None, 'a'])
    def test_as_many_positions_in_another_grid_are_resampled(self, tmp_path, prefix):
        square = net(img_size=16)
        name = '' if prefix is None else f'{prefix}.'
        state = {f'{name}{n}': v for n, v in square.state_dict().items()}
        torch.save(state, tmp_path / 'net.pth')
        given = dict(type='Pretrained', checkpoint=str(tmp_path / 'net.pth'))
        given |= dict(prefix=prefix, pos_embed_grid=(4, 4))
        wide = net(img_size=(8, 32), init_cfg=given)
        expected = resize_pos_embed(square.pos_embed, (4, 4), (2, 8), net().cls_at)
        torch.testing.assert_close(wide.pos_embed, expected)

    def test_a_url_means_the_file_in_torchs_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv('TORCH_HOME', str(tmp_path))
        folder = tmp_path / 'hub' / 'checkpoints'
        folder.mkdir(parents=True)
        model = net()
        torch.nn.init.constant_(model.norm.weight, 3.0)
        torch.save(model.state_dict(), folder / 'net.pth')
        pretrained = dict(type='Pretrained', checkpoint='https://a.invalid/net.pth')
        assert torch.equal(net(init_cfg=pretrained).norm.weight, model.norm.weight)

    @pytest.mark.parametrize(
        ('given', 'message'),
        [
            (dict(), 'needs checkpoint, and accepts prefix and pos_embed_grid.$'),
            (dict(checkpoint='a.pth', revise_keys=[]), 'revise_keys is unknown'),
        ],
        ids=str,
    )
    def test_keys_that_nobody_reads_are_refused(self, given, message):
        with pytest.raises(ValueError, match=message):
            net(init_cfg=dict(type='Pretrained', **given))

    def test_a_backbone_must_say_how_it_begins(self):
        with pytest.raises(NotImplementedError):
            VisionBackbone().init_weights()

    def test_drop_path_rises_linearly(self):
        assert drop_path_rates(0.2, 3) == pytest.approx([0, 0.1, 0.2])
        assert drop_path_rates(0.2, 1) == [0.0]
        assert drop_path_rates(1, 2) == [0, 1]

    @pytest.mark.parametrize('rate', [-0.1, 1.1, float('nan'), '0.1', (0.1,)])
    def test_drop_path_rate_is_a_probability(self, rate):
        message = re.escape(f'drop_path_rate={rate!r} must lie in [0, 1]')
        with pytest.raises(ValueError, match=message):
            drop_path_rates(rate, 3)

    def test_loaded_position_embedding_moves_with_its_class_token(self):
        small, large = net(), net(img_size=24)
        report = load_pretrained(large, small.state_dict())
        assert report.converted == {'pos_embed': '(1, 17, 8) to (1, 37, 8)'}
        assert torch.equal(large.pos_embed[:, 18], small.pos_embed[:, 8])

    def test_position_embedding_of_no_square_is_not_guessed(self):
        wide = net(img_size=(8, 16)).state_dict()
        with pytest.raises(CheckpointError, match=r'pos_embed \(file \(1, 9, 8\)'):
            load_pretrained(net(), wide)

    # As many patches as nothing else, as the model, as another square; the same grid.
    @pytest.mark.parametrize('size', [(8, 12), (8, 32), (4, 36), (16, 16)])
    def test_position_embedding_of_a_grid_that_is_said(self, size):
        source, model = net(img_size=size), net()
        model.loaded_pos_embed_grid = source.pos_embed_grid
        model.load_state_dict(source.state_dict())
        expected = resize_pos_embed(
            source.pos_embed, source.pos_embed_grid, (4, 4), TokenNet.cls_at
        )
        assert torch.equal(model.pos_embed, expected)
        unchanged = torch.equal(model.pos_embed, net().pos_embed)
        assert unchanged == (size == (16, 16))

    def test_a_grid_that_is_not_the_position_embeddings(self):
        model = net()
        model.loaded_pos_embed_grid = (3, 4)
        with pytest.raises(ValueError, match='has 17 positions, but its grid 3x4 need'):
            model.load_state_dict(net().state_dict())


class TestCheckpoint:
    def test_container_by_name_or_the_first_there_is(self, tmp_path):
        path = tmp_path / 'official.pth'
        state = net().state_dict()
        ema = {name: tensor + 1 for name, tensor in state.items()}
        torch.save({'model_ema': ema, 'model': state, 'epoch': 3}, path)
        assert torch.equal(read_state_dict(path)['scale'], state['scale'])
        loaded = net()
        report = load_pretrained(loaded, path, container='model_ema')
        assert set(report.loaded) == set(state)
        assert torch.equal(loaded.scale, state['scale'] + 1)

    def test_a_container_that_is_not_there(self, tmp_path):
        torch.save({'model': net().state_dict()}, tmp_path / 'a.pth')
        message = (
            r"a\.pth holds no state dict: .* under 'model_ema'; it has \['model'\]"
        )
        with pytest.raises(CheckpointError, match=message):
            read_state_dict(tmp_path / 'a.pth', container='model_ema')
        torch.save(net().state_dict(), tmp_path / 'flat.pth')
        with pytest.raises(CheckpointError, match="under 'model'"):
            read_state_dict(tmp_path / 'flat.pth', container='model')
        torch.save([1], tmp_path / 'list.pth')
        with pytest.raises(CheckpointError, match="under 'model'; it has list"):
            read_state_dict(tmp_path / 'list.pth', container='model')

    def test_what_hooks_change_is_reported(self):
        model = net()

        def translate(state, prefix, *_):
            if 'norm.gamma' not in state:  # called again, by torch
                return
            state['norm.weight'] = state.pop('norm.gamma')
            state['norm.bias'] = state.pop('norm.beta').reshape(WIDTH)
            state['scale'] = state.pop('scale_a') + state.pop('scale_b')

        model._register_load_state_dict_pre_hook(translate)
        state = model.state_dict()
        state['norm.gamma'] = state.pop('norm.weight') + 1
        state['norm.beta'] = state.pop('norm.bias').reshape(WIDTH, 1, 1) + 2
        state['scale_a'], state['scale_b'] = state.pop('scale'), torch.ones(WIDTH)
        report = load_pretrained(model, state)
        assert report.converted == {
            'norm.weight': 'named norm.gamma',
            'norm.bias': 'named norm.beta, (8, 1, 1) to (8,)',
            'scale': 'made from others',
        }
        assert len(report.loaded) == len(model.state_dict()) - 3
        assert torch.equal(model.norm.bias, torch.full((WIDTH,), 2.0))
        assert torch.equal(model.scale, torch.full((WIDTH,), 2.0))
        assert 'named norm.gamma' in str(report)

    def test_a_backbone_says_what_may_be_missing_and_left_over(self, monkeypatch):
        state = net().state_dict()
        del state['scale']
        state['pooler.weight'] = torch.zeros(1)
        for name in ('scale', 'pooler.weight'):
            with pytest.raises(CheckpointError, match=name):
                load_pretrained(net(), state)
        monkeypatch.setattr(TokenNet, 'allowed_missing', ('scale',))
        monkeypatch.setattr(TokenNet, 'allowed_left_over', ('pooler.',))
        report = load_pretrained(net(), state)
        assert report.missing == ['scale']
        assert report.left_over == ['pooler.weight']

    @pytest.mark.parametrize('prefix', ['', 'module.'])
    @pytest.mark.parametrize('head', TokenNet.OFFICIAL_HEADS)
    def test_official_names_load_into_a_classifier(self, prefix, head, tmp_path):
        backbone, fc = net().eval(), nn.Linear(WIDTH, 5)
        state = backbone.state_dict()
        state |= {head + name: tensor for name, tensor in fc.state_dict().items()}
        state = {prefix + name: tensor for name, tensor in state.items()}
        torch.save({'model': state}, tmp_path / 'official.pth')
        model = classifier()
        report = load_pretrained(model, tmp_path / 'official.pth')
        assert not (report.loaded or report.missing or report.left_over)
        assert report.converted['head.fc.weight'] == f'named {head}weight'
        images = torch.randn(2, 3, 16, 16)
        assert torch.equal(model(images), fc(backbone(images)[0]))

    def test_own_names_of_a_classifier_are_left_alone(self):
        model, other = classifier(), classifier()
        nn.init.normal_(model.head.fc.weight)
        report = load_pretrained(other, model.state_dict())
        assert set(report.loaded) == set(model.state_dict())
        assert torch.equal(other.head.fc.weight, model.head.fc.weight)


class TestTaps:
    # Two directions over four patches with a class token in the middle.
    ORDER = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])

    def test_steps_of_a_class_token_are_never_read(self):
        tap = DirectionTap(WIDTH, 2)
        tap.listener = lambda feature: None
        seen = []

        def select(order):
            seen.append(order)
            return torch.tensor([[0, 2], [1, 3]])

        tap.select = select
        steps = tap.steps(self.ORDER, cls_index=2)
        # It chooses among the patches alone, numbered without the class token.
        assert torch.equal(seen[0], torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]]))
        assert torch.equal(steps, torch.tensor([[0, 3], [1, 4]]))
        tokens = patch_index(self.ORDER, steps, cls_index=2)
        assert torch.equal(tokens, torch.tensor([[0, 2], [2, 0]]))

    def test_steps_without_a_class_token(self):
        tap = DirectionTap(WIDTH, 2)
        tap.listener = lambda feature: None
        tap.select = lambda order: torch.tensor([[4], [0]])
        steps = tap.steps(self.ORDER)
        assert torch.equal(steps, torch.tensor([[4], [0]]))
        assert torch.equal(patch_index(self.ORDER, steps), torch.tensor([[4], [4]]))

    def test_nobody_listening_nothing_is_asked_for(self):
        tap = DirectionTap(WIDTH, 2)
        assert tap.steps(self.ORDER, cls_index=2) is None
        tap.listener = lambda feature: None
        assert tap.steps(self.ORDER) is None

    @pytest.mark.parametrize('cls_index', [0, 2, 4])
    def test_a_layers_class_token_is_told_apart(self, cls_index):
        tap, seen = LayerTap(WIDTH), []
        tokens = torch.randn(3, 5, WIDTH)
        assert tap(tokens, (2, 2), cls_index) is tokens
        tap.listener = seen.append
        assert tap(tokens, (2, 2), cls_index) is tokens
        (feature,) = seen
        patches = [i for i in range(5) if i != cls_index]
        assert torch.equal(feature.tokens, tokens[:, patches])
        assert torch.equal(feature.cls, tokens[:, cls_index])
        assert feature.grid == (2, 2)


class TestPosEmbed:
    @pytest.mark.parametrize('cls_at', [lambda n: 0, lambda n: n // 2, lambda n: n])
    def test_class_token_moves_and_patches_are_resampled(self, cls_at):
        patches, cls = torch.randn(1, 6, WIDTH), torch.randn(1, 1, WIDTH)
        at, to = cls_at(6), cls_at(20)
        pos_embed = torch.cat((patches[:, :at], cls, patches[:, at:]), dim=1)
        resized = resize_pos_embed(pos_embed, (2, 3), (4, 5), cls_at)
        assert torch.equal(resized[:, to : to + 1], cls)
        rest = torch.cat((resized[:, :to], resized[:, to + 1 :]), dim=1)
        assert torch.equal(rest, resize_pos_embed(patches, (2, 3), (4, 5)))

    def test_the_same_grid_changes_nothing(self):
        pos_embed = torch.randn(1, 7, WIDTH)
        assert resize_pos_embed(pos_embed, (2, 3), (2, 3), lambda n: 0) is pos_embed

    def test_positions_must_be_those_of_the_grid(self):
        with pytest.raises(
            ValueError, match='has 6 positions, but its grid 2x3 needs 7'
        ):
            resize_pos_embed(torch.randn(1, 6, WIDTH), (2, 3), (4, 4), lambda n: 0)

    def test_half_precision_comes_back(self):
        out = resize_pos_embed(torch.randn(1, 4, WIDTH).bfloat16(), (2, 2), (3, 3))
        assert out.dtype == torch.bfloat16 and out.shape == (1, 9, WIDTH)
