"""Students that predict parts of images: mmseg's segmentors and mmdet's detectors."""

import importlib.util

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData

from mmtransmamba.models.taps import DirectionTap, LayerTap
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.alignment import resample_tokens

pytest.importorskip('mmseg', reason='mmseg is not installed, see requirements/')
needs_ops = pytest.mark.skipif(
    importlib.util.find_spec('mmdet') is None
    or importlib.util.find_spec('mmcv._ext') is None,
    reason='mmdet needs mmcv with its compiled ops, see projects/detection',
)

TERMS = dict(
    layer=dict(type='mmtransmamba.LayerTerm'),
    direction=dict(type='mmtransmamba.DirectionTerm'),
)
BACKBONE = dict(
    type='mmtransmamba.PlainMamba',
    arch=dict(
        embed_dims=16, depth=2, num_convs=1, dwconv_layers=(), drop_path_rate=0.0
    ),
    img_size=32,
    patch_size=4,
    out_indices=(0, 1),
)
NORMALISATION = dict(mean=[120.0, 110.0, 100.0], std=[50.0, 60.0, 70.0])
TEACHER = dict(
    type='mmtransmamba.MMPretrainTeacher',
    checkpoint='random',
    model=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48),
        img_size=16,
        patch_size=8,
    ),
    mean=[127.5] * 3,
    std=[127.5] * 3,
)
NORM = dict(type='BN')


def segmentor(**preprocessor):
    return dict(
        type='mmseg.EncoderDecoder',
        data_preprocessor=dict(
            type='mmseg.SegDataPreProcessor',
            bgr_to_rgb=True,
            size_divisor=8,
            **NORMALISATION,
        )
        | preprocessor,
        backbone=BACKBONE,
        decode_head=dict(
            type='mmseg.UPerHead',
            in_channels=[16, 16],
            in_index=[0, 1],
            channels=8,
            num_classes=3,
            dropout_ratio=0,
            norm_cfg=NORM,
            loss_decode=dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True),
        ),
        auxiliary_head=dict(
            type='mmseg.FCNHead',
            in_channels=16,
            channels=8,
            num_convs=1,
            num_classes=3,
            dropout_ratio=0,
            norm_cfg=NORM,
            loss_decode=dict(
                type='mmseg.CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4
            ),
        ),
        test_cfg=ConfigDict(mode='whole'),
    )


def detector():
    return dict(
        type='mmdet.FCOS',
        data_preprocessor=dict(
            type='mmdet.DetDataPreprocessor',
            bgr_to_rgb=True,
            pad_size_divisor=16,
            **NORMALISATION,
        ),
        backbone=BACKBONE,
        neck=None,
        bbox_head=dict(
            type='mmdet.FCOSHead',
            num_classes=3,
            in_channels=16,
            stacked_convs=1,
            feat_channels=16,
            strides=[4, 4],
            regress_ranges=((-1, 16), (16, 1e8)),
            norm_cfg=NORM,
        ),
        test_cfg=ConfigDict(
            nms_pre=100,
            score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=10,
        ),
    )


def distiller(student, terms=TERMS, **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mmtransmamba.MultiDirectionDistiller',
            student=student,
            teacher=TEACHER,
            terms=terms,
            **kwargs,
        )
    )
    model.student.backbone.init_weights()
    return model


def segmentation_batch(*sizes):
    """Random BGR images with labels, as mmseg's datasets give them."""
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    images, samples = [], []
    for height, width in sizes:
        image = torch.randint(0, 256, (3, height, width), generator=generator)
        images.append(image.to(torch.uint8))
        labels = torch.randint(0, 3, (1, height, width), generator=generator)
        meta = dict(img_shape=(height, width), ori_shape=(height, width))
        samples.append(SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=labels)))
    return dict(inputs=images, data_samples=samples)


def detection_batch(*sizes):
    from mmdet.structures import DetDataSample

    batch = segmentation_batch(*sizes)
    batch['data_samples'] = [
        DetDataSample(
            metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)),
            gt_instances=InstanceData(
                bboxes=torch.tensor([[2.0, 3.0, 20.0, 24.0], [10.0, 4.0, 15.0, 9.0]]),
                labels=torch.tensor([0, 2]),
            ),
        )
        for size in sizes
    ]
    return batch


def training_losses(model, batch):
    data = model.data_preprocessor(batch, True)
    return data, model(**data, mode='loss')


KINDS = [
    pytest.param(segmentor, segmentation_batch, id='segmentor'),
    pytest.param(detector, detection_batch, id='detector', marks=needs_ops),
]


@pytest.mark.parametrize('num_tokens', [None, 7])
@pytest.mark.parametrize('student, batch', KINDS)
def test_gradients_reach_every_part_of_the_student(student, batch, num_tokens):
    model = distiller(student(), num_tokens=num_tokens)
    _, losses = training_losses(model, batch((32, 32), (32, 32)))
    assert {'loss_layer', 'loss_direction'} <= set(losses)
    total, _ = model.parse_losses(losses)
    total.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad is None for p in model.teacher.parameters())


@pytest.mark.parametrize('student, batch', KINDS)
def test_terms_alone_teach_the_backbone_and_not_the_heads(student, batch):
    model = distiller(student(), alpha=0.0)
    _, losses = training_losses(model, batch((32, 32), (32, 32)))
    total, _ = model.parse_losses(losses)
    total.backward()
    taught = {
        name.split('.')[1]
        for name, p in model.named_parameters()
        if name.startswith('student.') and p.grad is not None and p.grad.any()
    }
    assert taught == {'backbone'}


@pytest.mark.parametrize('student, batch', KINDS)
def test_task_losses_are_the_students_times_alpha(student, batch):
    model = distiller(student(), alpha=0.25)
    data, losses = training_losses(model, batch((32, 32), (32, 32)))
    model.recorder.close()
    alone = model.student(**data, mode='loss')
    for name, value in alone.items():
        if 'loss' in name:
            mine = losses[name.replace('loss', 'loss_task')]
            torch.testing.assert_close(mine, 0.25 * value)
        else:
            assert torch.equal(losses[name], value)
    assert len(losses) == len(alone) + len(TERMS)


@pytest.mark.parametrize('student, batch', KINDS)
def test_layer_term_compares_the_whole_padded_image(student, batch):
    """Student and teacher have differing grids; both cover the same pixels."""
    model = distiller(student(), terms=dict(layer=TERMS['layer']), alpha=0.0)
    size = (32, 48)
    data, losses = training_losses(model, batch(size, size))
    tokens = []
    for tap in model.recorder.layer_taps:
        tap.listener = tokens.append
    model.student.extract_feat(data['inputs'])
    layer = model.teacher(model.teacher_images(data['inputs'])).layers[-1]
    assert layer.grid == (4, 6)
    target = resample_tokens(layer.tokens, layer.grid, (8, 12))
    expected = 0.0
    for feature, aligner in zip(tokens, model.terms['layer'].aligners, strict=True):
        assert feature.grid == (8, 12)
        similarity = torch.cosine_similarity(aligner(feature.tokens), target, dim=-1)
        expected = expected + (1 - similarity).mean()
    torch.testing.assert_close(losses['loss_layer'], expected)


@pytest.mark.parametrize('student, batch', KINDS)
def test_prediction_is_the_students(student, batch):
    model = distiller(student()).eval()
    training_losses(model, batch((32, 32)))
    with torch.no_grad():
        mine = model.test_step(batch((40, 32)))
        alone = model.student.test_step(batch((40, 32)))
    for a, b in zip(mine, alone, strict=True):
        if 'pred_sem_seg' in a:
            assert a.pred_sem_seg.data.shape == (1, 40, 32)
            assert torch.equal(a.seg_logits.data, b.seg_logits.data)
        else:
            assert torch.equal(a.pred_instances.bboxes, b.pred_instances.bboxes)
    taps = [m for m in model.modules() if isinstance(m, LayerTap | DirectionTap)]
    assert taps and all(tap.listener is None for tap in taps)


class TestTeacherImages:
    """The teacher sees the RGB pixels of the files, whatever the student sees."""

    @pytest.mark.parametrize(
        'preprocessor, channel_order, swapped',
        [
            (dict(), None, True),
            (dict(bgr_to_rgb=False), None, True),
            (dict(bgr_to_rgb=False), 'rgb', False),
            (dict(bgr_to_rgb=False, rgb_to_bgr=True), 'bgr', False),
            (dict(mean=None, std=None), None, True),
        ],
    )
    def test_of_a_segmentor(self, preprocessor, channel_order, swapped):
        model = distiller(segmentor(**preprocessor), channel_order=channel_order)
        batch = segmentation_batch((32, 24))
        read = batch['inputs'][0].float()
        inputs = model.data_preprocessor(batch, True)['inputs']
        seen = model.teacher_images(inputs)[0]
        expected = read.flip(0) if swapped else read
        torch.testing.assert_close(seen, expected, atol=1e-3, rtol=0)

    def test_padding_has_the_mean_colour(self):
        model = distiller(segmentor(size=(32, 40), size_divisor=None))
        batch = segmentation_batch((32, 40), (24, 32))
        read = batch['inputs'][1].float().flip(0)
        data = model.data_preprocessor(batch, True)
        seen = model.teacher_images(data['inputs'])[1]
        torch.testing.assert_close(seen[:, :24, :32], read, atol=1e-3, rtol=0)
        mean = torch.tensor(NORMALISATION['mean']).view(3, 1, 1)
        torch.testing.assert_close(seen[:, 24:], mean.expand(3, 8, 40))
        torch.testing.assert_close(seen[:, :24, 32:], mean.expand(3, 24, 8))

    @needs_ops
    def test_of_a_detector(self):
        model = distiller(detector())
        batch = detection_batch((32, 24))
        read = batch['inputs'][0].float().flip(0)
        seen = model.teacher_images(model.data_preprocessor(batch, True)['inputs'])[0]
        assert seen.shape == (3, 32, 32)
        torch.testing.assert_close(seen[..., :24], read, atol=1e-3, rtol=0)

    def test_are_resized_for_a_teacher_of_one_size(self):
        model = distiller(segmentor())
        model.teacher.input_size = (16, 16)
        sizes = []
        conv = model.teacher.layout.patch_conv
        handle = conv.register_forward_pre_hook(
            lambda _, args: sizes.append(tuple(args[0].shape[-2:]))
        )
        _, losses = training_losses(model, segmentation_batch((40, 56), (40, 56)))
        handle.remove()
        assert sizes == [(16, 16)]
        assert losses['loss_direction'].isfinite()


@pytest.mark.parametrize('term', ['LogitsTerm', 'FeatureTerm'])
def test_terms_on_whole_images_are_refused(term):
    with pytest.raises(ValueError, match=f'{term}: the student EncoderDecoder has no'):
        distiller(segmentor(), terms=dict(a=dict(type=f'mmtransmamba.{term}')))


def test_what_is_no_student_is_refused():
    with pytest.raises(ValueError, match='PlainMamba must be a classifier'):
        distiller(MODELS.build(BACKBONE))


def test_layer_depth_is_the_backbones():
    model = distiller(segmentor())
    depths = {name: model.get_layer_depth(name) for name, _ in model.named_parameters()}
    assert depths['student.backbone.pos_embed'] == (0, 4)
    assert depths['student.backbone.layers.1.norm.weight'] == (2, 4)
    assert depths['student.decode_head.conv_seg.weight'] == (3, 4)
    assert depths['terms.layer.aligners.0.weight'] == (3, 4)


def test_checkpoint_is_the_segmentors():
    model = distiller(segmentor())
    state = model.state_dict()
    own = {name for name in state if name.startswith('distiller.')}
    plain = MODELS.build(segmentor())
    plain.load_state_dict({k: v for k, v in state.items() if k not in own})
    assert own
