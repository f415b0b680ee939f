"""PlainMamba against the official code's numbers, and as a backbone."""

import pytest
import torch

from mmtransmamba.models import (
    CheckpointError,
    PlainMamba,
    load_pretrained,
    read_state_dict,
)
from mmtransmamba.models.backbones.plain_mamba import ConvPatchEmbed

TINY = dict(embed_dims=32, depth=2, num_convs=1, dwconv_layers=(0,), drop_path_rate=0.0)


def tiny(**kwargs) -> PlainMamba:
    torch.manual_seed(0)
    settings = dict(arch=TINY, img_size=32, patch_size=8) | kwargs
    model = PlainMamba(**settings)
    model.init_weights()
    return model


def test_out_indices_and_final_norm():
    model = tiny(out_indices=(0, -1)).eval()
    first, last = model(torch.randn(1, 3, 32, 32))
    assert first.shape == last.shape == (1, 32, 4, 4)
    assert last.mean(1).abs().max() < 1e-5  # ln1 leaves no mean over channels
    assert first.mean(1).abs().max() > 1e-3


def test_activation_checkpointing_has_the_same_gradient_and_statistics():
    images = torch.randn(2, 3, 32, 32)
    grads, statistics = [], []
    for with_cp in (False, True):
        model = tiny(with_cp=with_cp)
        model(images)[0].square().sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
        statistics.append(dict(model.layers[0].dw[1].named_buffers()))
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)
    # A recomputed BatchNorm would have counted the batch twice.
    assert statistics[1]['num_batches_tracked'] == 1
    for name, value in statistics[0].items():
        assert torch.equal(statistics[1][name], value), name


def test_activation_checkpointing_recomputes_the_mixers():
    model, calls = tiny(with_cp=True), []
    for layer in model.layers:
        layer.mamba.register_forward_pre_hook(lambda *_: calls.append(0))
    model(torch.randn(2, 3, 32, 32))[0].sum().backward()
    assert len(calls) == 2 * model.depth


def test_direction_taps_sum_to_the_mixer_output():
    model = tiny()
    mixer, tap = model.layers[1].mamba, model.layers[1].mamba.direction_tap
    tokens = torch.randn(2, 12, 32)
    seen = []
    tap.listener = seen.append
    tap.select = lambda scan_order: torch.arange(12).expand(4, 12)
    out = mixer(tokens, (3, 4))
    (feature,) = seen
    total = torch.zeros(2, 12, 32)
    for k, index in enumerate(feature.token_index):
        total[:, index] += feature.project(feature.values)[:, k]
    torch.testing.assert_close(out, total + mixer.out_proj.bias)


def test_corrected_permutation_is_another_function():
    images = torch.randn(1, 3, 32, 32)
    official, corrected = tiny().eval(), tiny(permute_params=True).eval()
    corrected.load_state_dict(official.state_dict())
    assert not torch.allclose(official(images)[0], corrected(images)[0])


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch=dict(embed_dims=8, dim=3)), 'unknown: dim; missing: depth'),
        (dict(patch_size=7), 'patch_size=7 must be a multiple of 2'),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)


class TestLoadPretrained:
    def test_distributed_prefix_and_head_left_over(self, tmp_path):
        model, other = tiny(), tiny()
        state = {f'module.backbone.{k}': v + 1 for k, v in model.state_dict().items()}
        state['module.head.fc.weight'] = torch.zeros(2, 2)
        torch.save({'model': state}, tmp_path / 'ckpt.pth')
        report = load_pretrained(other, tmp_path / 'ckpt.pth')
        assert report.left_over == ['head.fc.weight']
        assert torch.equal(other.ln1.weight, model.ln1.weight + 1)

    def test_checkpoint_of_a_runner(self, tmp_path):
        from mmengine.logging import HistoryBuffer

        history = HistoryBuffer([1.0, 2.0], [1, 1])
        model = tiny()
        content = dict(
            state_dict=model.state_dict(),
            message_hub=dict(log_scalars={'train/loss': history}),
        )
        torch.save(content, tmp_path / 'epoch_1.pth')
        state = read_state_dict(tmp_path / 'epoch_1.pth')
        assert set(state) == set(model.state_dict())

    def test_missing_and_corrupt_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
            load_pretrained(tiny(), tmp_path / 'nowhere.pth')
        (tmp_path / 'bad.pth').write_bytes(b'no checkpoint')
        with pytest.raises(CheckpointError, match=r'bad\.pth" is damaged or no file'):
            load_pretrained(tiny(), tmp_path / 'bad.pth')
        torch.save({'epoch': 3}, tmp_path / 'empty.pth')
        with pytest.raises(CheckpointError, match='holds no state dict'):
            load_pretrained(tiny(), tmp_path / 'empty.pth')


def test_the_patch_embedding_computes_channels_last_and_hands_over_tokens_in_place():
    embed = ConvPatchEmbed(3, 8, patch_size=4, num_convs=1).eval()
    images = torch.randn(2, 3, 12, 8)
    tokens, grid = embed(images)
    assert grid == (3, 2) and tokens.is_contiguous()
    features = embed.convs(embed.stem(images))
    assert features.is_contiguous()  # the modules themselves leave the layout alone
    expected = embed.projection(features).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, expected)
