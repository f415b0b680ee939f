import copy

import pytest
import torch
import torch.nn.functional as F
from tiny_teachers import IMAGE_SIZE, MM_VIT, TIMM_VIT

from mmtransmamba.models import CheckpointError
from mmtransmamba.models.teachers import MMPretrainTeacher, TimmTeacher, loading


def build(**kwargs):
    torch.manual_seed(0)
    kwargs.setdefault('checkpoint', 'random')
    return TimmTeacher({**TIMM_VIT, 'drop_path_rate': 0.5, 'drop_rate': 0.5}, **kwargs)


def images(channels=3, size=IMAGE_SIZE):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, channels, size, size, generator=generator) * 255


def test_it_is_frozen_and_stays_in_eval_mode():
    teacher = build().train()
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    x = images().requires_grad_()
    first, second = teacher(x), teacher(x)
    assert torch.equal(first.logits, second.logits)
    assert not first.logits.requires_grad and not first.layers[0].tokens.requires_grad


def test_attributes_describe_the_output():
    teacher = build()
    output = teacher(images())
    assert teacher.layer_dims == (32, 32, 32)
    assert teacher.layer_grids == ((4, 4),) * 3
    assert (teacher.feature_dim, teacher.num_classes) == (32, 5)
    assert output.feature.shape == (2, 32) and output.logits.shape == (2, 5)
    assert [f.tokens.shape for f in output.layers] == [(2, 16, 32)] * 3


def test_images_are_resized_then_normalised():
    teacher = build(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], input_size=IMAGE_SIZE)
    small = images(size=20)
    expected = F.interpolate(small, (32, 32), mode='bilinear', align_corners=False)
    expected = (expected - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / torch.tensor(
        [4.0, 5, 6]
    ).view(3, 1, 1)
    torch.testing.assert_close(teacher.preprocess(small), expected)
    assert teacher(small).layers[0].grid == (4, 4)


def test_grey_images_are_repeated_for_a_teacher_of_colour():
    teacher = build()
    grey = images(channels=1)
    assert torch.equal(teacher(grey).logits, teacher(grey.expand(-1, 3, -1, -1)).logits)


def test_bfloat16_holds_weights_so_but_returns_float32():
    exact, rough = build(), build(dtype='bfloat16')
    assert {p.dtype for p in rough.parameters()} == {torch.bfloat16}
    with torch.autocast('cpu', dtype=torch.float16):  # must not mix in
        output = rough(images())
    tensors = [output.feature, output.logits, *(f.tokens for f in output.layers)]
    assert {t.dtype for t in tensors} == {torch.float32}
    torch.testing.assert_close(
        output.feature, exact(images()).feature, atol=0.1, rtol=0.1
    )
    assert rough.mean.dtype == torch.float32


def test_float32_follows_autocast():
    teacher = build()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = teacher(images())
    assert output.logits.dtype == torch.float32
    assert not torch.equal(output.logits, teacher(images()).logits)


def test_a_copy_records_its_own_outputs():
    teacher = build()
    clone = copy.deepcopy(teacher)
    with torch.no_grad():
        clone.model.blocks[0].mlp.fc2.bias.add_(1)
    assert torch.equal(
        teacher(images()).layers[0].tokens, build()(images()).layers[0].tokens
    )
    difference = clone(images()).layers[0].tokens - teacher(images()).layers[0].tokens
    torch.testing.assert_close(difference, torch.ones_like(difference))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(dtype='float16'), "dtype='float16' must be one of"),
        (dict(mean=[1.0]), r'mean=\[1.0\] must have one number per image channel, 3'),
        (dict(layers=['blocks.9']), r"no submodule \['blocks.9'\]"),
        (dict(layers=['head']), 'cannot be laid out'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_bad_images():
    teacher = build()
    with pytest.raises(ValueError, match=r'\[B, 3, H, W\] .*got \(2, 4, 32, 32\)'):
        teacher(images(channels=4))
    with pytest.raises(ValueError, match='32x32 pixels and refuses 40x40.*input_size'):
        teacher(images(size=40))


def test_layers_by_name():
    teacher = build(layers=['blocks.2', 'blocks.0'])
    every = build()(images())
    output = teacher(images())
    assert torch.equal(output.layers[0].tokens, every.layers[2].tokens)
    assert torch.equal(output.layers[1].tokens, every.layers[0].tokens)


def test_checkpoints_must_fit(tmp_path):
    state = build().model.state_dict()
    file = tmp_path / 'teacher.pth'

    state['blocks.0.surprise'] = torch.ones(1)
    torch.save(state, file)
    with pytest.raises(CheckpointError, match='teacher.pth.*blocks.0.surprise'):
        build(checkpoint=file)

    del state['blocks.0.surprise'], state['norm.weight']
    torch.save({'state_dict': state}, file)
    with pytest.raises(CheckpointError, match='missing in the file: norm.weight'):
        build(checkpoint=file)

    state['norm.weight'] = torch.ones(7)
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=r'norm.weight \(file \(7,\), model'):
        build(checkpoint=file)
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        build(checkpoint=tmp_path / 'nowhere.pth')


@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.', 'module.backbone.'])
def test_prefixes_of_a_backbone_checkpoint(tmp_path, prefix):
    torch.manual_seed(3)
    backbone = MMPretrainTeacher(MM_VIT, 'random').model.backbone
    file = tmp_path / 'backbone.pth'
    state = {prefix + name: t for name, t in backbone.state_dict().items()}
    torch.save({'model': state}, file)
    teacher = MMPretrainTeacher(
        MM_VIT['backbone'], checkpoint=file, mean=[0.0] * 3, std=[255.0] * 3
    )
    assert teacher.num_classes is None
    assert all(
        torch.equal(t, teacher.model.state_dict()[name])
        for name, t in backbone.state_dict().items()
    )


@pytest.mark.parametrize('others', [('head',), ('neck', 'decode_head'), ('bbox_head',)])
def test_a_backbone_is_read_out_of_a_whole_model(tmp_path, others, monkeypatch):
    backbone = MMPretrainTeacher(MM_VIT, 'random').model.backbone
    state = {f'backbone.{name}': t for name, t in backbone.state_dict().items()}
    state |= {f'{part}.layers.weight': torch.ones(2) for part in others}
    torch.save({'state_dict': state}, tmp_path / 'whole.pth')
    arguments = dict(mean=[0.0] * 3, std=[255.0] * 3)
    file = tmp_path / 'whole.pth'
    lines = []
    monkeypatch.setattr(loading, 'print_log', lambda text, *args: lines.append(text))
    teacher = MMPretrainTeacher(MM_VIT['backbone'], checkpoint=file, **arguments)
    assert f'(without its {", ".join(sorted(others))})' in lines[0]
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, teacher.model.state_dict()[name])

    # A part of the backbone that does not fit is still an error.
    state['backbone.surprise'] = torch.ones(1)
    torch.save({'state_dict': state}, file)
    with pytest.raises(CheckpointError, match='surprise'):
        MMPretrainTeacher(MM_VIT['backbone'], checkpoint=file, **arguments)


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    source = build()
    with torch.no_grad():
        source.model.head.bias.fill_(3)
    save_file(source.model.state_dict(), tmp_path / 'm.safetensors')
    loaded = build(checkpoint=tmp_path / 'm.safetensors')
    assert torch.equal(loaded(images()).logits, source(images()).logits)
