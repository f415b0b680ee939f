"""Released vision checkpoints whose names or containers differ, each a case."""

from functools import partial

import pytest
import torch

from mmtransmamba.models import (
    VRWKV,
    CheckpointError,
    PlainMamba,
    VideoMamba,
    Vim,
    VMamba,
    load_pretrained,
)

SIZE = dict(img_size=32, patch_size=8)
PLAIN = PlainMamba.ARCHS['L1'] | dict(embed_dims=16, depth=4)
WKV = dict(embed_dims=16, depth=2)
BI = Vim.ARCHS['tiny'] | dict(embed_dims=16, depth=2)
VSS = dict(depths=(1, 1, 1, 1), embed_dims=8)

plain = partial(PlainMamba, PLAIN, **SIZE)
adapted = partial(plain, out_indices=(1, 3), final_norm=False)
wkv = partial(VRWKV, VRWKV.ARCHS['tiny'] | WKV, **SIZE)
video = partial(VideoMamba, BI, num_frames=4, **SIZE)
image = partial(VideoMamba, BI, **SIZE)


def vmamba(arch, **kwargs):
    return VMamba(VMamba.ARCHS[arch] | VSS, **kwargs)


def large(**kwargs):
    return VRWKV(VRWKV.ARCHS['large'] | WKV, img_size=24, patch_size=8, **kwargs)


def dense_tiny(**kwargs):
    arch = VRWKV.ARCHS['tiny'] | WKV | dict(init_values=1.0)
    return VRWKV(arch, final_norm=False, **SIZE, **kwargs)


def under(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def extra(*names):
    return dict.fromkeys(names, torch.ones(2, 2))


def without(state, *prefixes):
    return {k: v for k, v in state.items() if not k.startswith(prefixes)}


def linear2d(state):
    """Matrices as kernels of 1x1 convolutions."""
    ends = ('in_proj.weight', 'out_proj.weight', 'fc1.weight', 'fc2.weight')
    return {k: v[..., None, None] if k.endswith(ends) else v for k, v in state.items()}


MMDET = ('neck.fpn_convs.0.conv.weight', 'rpn_head.rpn_cls.weight', 'roi_head.x.weight')
MMSEG = ('decode_head.conv_seg.weight', 'auxiliary_head.conv_seg.weight')
ADAPTER = (
    *('level_embed', 'spm.stem.0.weight', 'spm.fc4.bias', 'up.weight'),
    *('interactions.0.injector.gamma', 'interactions.3.extractor.ffn.fc1.weight'),
    'interactions.3.extra_extractors.1.attn.value_proj.weight',
)
AD_NORMS = tuple(f'ad_norm{i}.weight' for i in (1, 2, 3, 4))
NORMS = tuple(f'norm{i}.running_mean' for i in (1, 2, 3, 4))
PRE_TRAINED = ('clip_decoder.0.head.weight', 'clip_decoder.0.norm.weight')
MULTIMODAL = (
    *('text_encoder.embeddings.word_embeddings.weight', 'vision_proj.weight'),
    *('text_proj.bias', 'temp', 'itm_head.weight'),
    *('clip_teacher.transformer.layers.0.norm.weight', 'clip_teacher.proj'),
)


def renamed_norm(state):
    return {k.replace('norm_f.', 'norm.'): v for k, v in state.items()}


# The model that is loaded, the one whose tensors the file has, and the file. What is
# in the file besides is left over, and what the file lacks is missing.
CASES = {
    'VMamba v2 detector': (
        partial(vmamba, 'tiny_s1l8', out_indices=(0, 1, 2, 3), with_outnorms=True),
        None,
        lambda state: dict(
            meta=dict(epoch=12),
            state_dict=under('backbone.', linear2d(state)) | extra(*MMDET),
        ),
        MMDET,
        (),
    ),
    'VMamba v0 segmenter': (
        partial(vmamba, 'vanilla_tiny', out_indices=(0, 1, 2, 3), with_outnorms=True),
        None,
        lambda state: dict(state_dict=under('backbone.', state) | extra(*MMSEG)),
        MMSEG,
        (),
    ),
    'VMamba classifier into a detector': (
        partial(vmamba, 'tiny_s2l5', out_indices=(2, 3), with_outnorms=True),
        partial(vmamba, 'tiny_s2l5'),
        lambda state: dict(model=state | extra('classifier.head.weight')),
        ('classifier.norm.weight', 'classifier.norm.bias', 'classifier.head.weight'),
        ('outnorm2.weight', 'outnorm2.bias', 'outnorm3.weight', 'outnorm3.bias'),
    ),
    'PlainMamba detector': (
        adapted,
        None,
        lambda state: dict(
            state_dict=under('backbone.', state | extra(*ADAPTER, *AD_NORMS))
            | extra(*MMDET)
        ),
        (*ADAPTER, *AD_NORMS, *MMDET),
        (),
    ),
    'PlainMamba RetinaNet': (
        adapted,
        None,
        lambda state: dict(
            state_dict=under('backbone.', state | extra(*ADAPTER, *AD_NORMS))
            | extra('bbox_head.retina_cls.weight')
        ),
        (*ADAPTER, *AD_NORMS, 'bbox_head.retina_cls.weight'),
        (),
    ),
    'PlainMamba segmenter': (
        partial(plain, out_indices=(0, 1, 2, 3), with_outnorms=True),
        None,
        lambda state: dict(state_dict=under('backbone.', state) | extra(*MMSEG)),
        MMSEG,
        (),
    ),
    'PlainMamba segmenter into a bare backbone': (
        plain,
        partial(plain, out_indices=(1, 3), with_outnorms=True),
        lambda state: dict(state_dict=under('backbone.', state)),
        ('norm_layer1.weight', 'norm_layer1.bias'),
        (),
    ),
    'PlainMamba classifier into a segmenter': (
        partial(plain, out_indices=(1, 3), with_outnorms=True),
        plain,
        lambda state: dict(
            state_dict=under('backbone.', state) | extra('head.fc.weight')
        ),
        ('head.fc.weight',),
        ('norm_layer1.weight', 'norm_layer1.bias'),
    ),
    'VRWKV detector, tiny': (
        dense_tiny,
        None,
        lambda state: dict(
            state_dict=under('backbone.', state | extra(*ADAPTER, *NORMS))
            | extra(*MMDET)
        ),
        (*ADAPTER, *NORMS, *MMDET),
        (),
    ),
    'VRWKV segmenter, large': (
        partial(large, final_norm=False),
        None,
        lambda state: dict(
            state_dict=under('backbone.', state | extra(*ADAPTER, *NORMS))
            | extra(*MMSEG)
        ),
        (*ADAPTER, *NORMS, *MMSEG),
        (),
    ),
    'VRWKV classifier, large, whose head has two layers': (
        large,
        None,
        lambda state: dict(
            state_dict=under('backbone.', state)
            | extra('head.layers.0.weight', 'head.layers.1.weight')
        ),
        ('head.layers.0.weight', 'head.layers.1.weight'),
        (),
    ),
    'Vim+': (
        partial(Vim, BI, img_size=32, patch_size=16, stride=8),
        None,
        lambda state: dict(
            model=state | extra('head.weight', 'head.bias'),
            optimizer=dict(state={}),
            scaler={},
            epoch=29,
        ),
        ('head.weight', 'head.bias'),
        (),
    ),
    'VideoMamba, flat': (
        image,
        None,
        lambda state: state | extra('head.weight'),
        ('head.weight',),
        (),
    ),
    'VideoMamba by self-distillation': (
        image,
        None,
        lambda state: dict(model=state | extra('head.weight', 'distill_head.weight')),
        ('head.weight', 'distill_head.weight'),
        (),
    ),
    'VideoMamba of videos': (
        video,
        None,
        lambda state: dict(module=under('backbone.', state | extra('head.weight'))),
        ('head.weight',),
        (),
    ),
    'VideoMamba under encoder': (
        video,
        None,
        lambda state: dict(model=under('encoder.', state)),
        (),
        (),
    ),
    'VideoMamba of images into videos': (
        video,
        image,
        lambda state: dict(model=state),
        (),
        ('temporal_pos_embedding',),
    ),
    'VideoMamba of half the frames': (
        video,
        partial(VideoMamba, BI, num_frames=2, **SIZE),
        lambda state: state,
        (),
        (),
    ),
    'VideoMamba, masked pre-training': (
        video,
        None,
        lambda state: dict(model=renamed_norm(state) | extra(*PRE_TRAINED)),
        PRE_TRAINED,
        (),
    ),
    'VideoMamba, multimodal': (
        video,
        None,
        lambda state: dict(
            model=under(
                'vision_encoder.',
                renamed_norm(state) | extra(*PRE_TRAINED, 'pool_norm.weight'),
            )
            | extra(*MULTIMODAL)
        ),
        (*PRE_TRAINED, 'pool_norm.weight', *MULTIMODAL),
        (),
    ),
}


def filled(make, seed):
    """A model with random tensors everywhere."""
    generator = torch.Generator().manual_seed(seed)
    model = make().eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return model


@pytest.mark.parametrize('case', CASES)
def test_a_released_file_loads(tmp_path, case):
    make, make_other, content, left_over, missing = CASES[case]
    origin = filled(make_other or make, seed=1)
    torch.save(content(origin.state_dict()), tmp_path / 'file.pth')
    model = filled(make, seed=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = load_pretrained(model, tmp_path / 'file.pth')
    assert set(report.left_over) == set(left_over)
    assert set(report.missing) == set(missing)
    loaded, given = model.state_dict(), origin.state_dict()
    for name, tensor in loaded.items():
        if name in missing:
            assert torch.equal(tensor, before[name]), name
        elif name in given and tensor.shape == given[name].shape:
            assert torch.equal(tensor, given[name]), name
    if make_other is None:
        size = (1, 3, 4, 32, 32) if make is video else (1, 3, 32, 32)
        x = torch.rand(size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            ours, theirs = model(x), origin(x)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ('make', 'name', 'message'),
    [
        (plain, 'PlainMamba detector', 'missing in the file: ln1.weight'),
        (wkv, 'VRWKV detector, tiny', 'missing in the file: ln1.weight'),
        (partial(wkv, final_norm=False), 'VRWKV detector, tiny', 'gamma1'),
        (image, 'VideoMamba of videos', 'patch_embed.proj.weight'),
        (partial(Vim, BI, **SIZE), 'Vim+', 'patch_embed.proj.weight'),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, make, name, message):
    origin = filled(CASES[name][0], seed=1)
    torch.save(CASES[name][2](origin.state_dict()), tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(make(), tmp_path / 'file.pth')


def test_the_class_token_of_vim_plus_is_in_the_middle_of_729_patches():
    model = Vim(BI, img_size=224, patch_size=16, stride=8)
    assert model.pos_embed.shape == (1, 730, 16)
    assert model.cls_at(729) == 364


def test_norms_of_outputs_belong_to_the_features_alone():
    """The published segmenter does not pass normalised tokens on."""
    model = filled(partial(plain, out_indices=(1, 3), with_outnorms=True), seed=3)
    bare = filled(partial(plain, out_indices=(1, 3)), seed=4)
    load_pretrained(bare, model.state_dict())
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        (early, late), (raw, same) = model(x), bare(x)
    norm = model.norm_layer1
    assert norm.eps == 1e-6
    torch.testing.assert_close(early, norm(raw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    assert torch.equal(late, same)


def test_without_a_final_norm_the_last_block_is_the_output():
    for make, depth in ((plain, 4), (wkv, 2)):
        normal = filled(make, seed=3)
        bare = filled(partial(make, final_norm=False), seed=4)
        load_pretrained(bare, without(normal.state_dict(), 'ln1.'))
        x = torch.rand(1, 3, 32, 32)
        with torch.no_grad():
            (out,), (raw,) = normal(x), bare(x)
        expected = normal.ln1(raw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(out, expected)
        assert len(bare.layers) == depth
