# PMamba-T under DeiT-T: logits, final feature and every scan direction of every
# layer, weighed by the meta-network (the last row of TransMamba's Table VII).
_base_ = './plain_mamba_t.py'

model = dict(
    _delete_=True,
    type='mmtransmamba.MultiDirectionDistiller',
    student=_base_.model,
    teacher=dict(
        type='mmtransmamba.MMPretrainTeacher',
        model=dict(
            type='ImageClassifier',
            backbone=dict(
                type='VisionTransformer',
                arch='deit-tiny',
                img_size=224,
                patch_size=16,
            ),
            neck=None,
            head=dict(
                type='VisionTransformerClsHead', num_classes=1000, in_channels=192
            ),
        ),
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),
    terms=dict(
        logits=dict(type='mmtransmamba.LogitsTerm'),
        feature=dict(type='mmtransmamba.FeatureTerm'),
        direction=dict(
            type='mmtransmamba.DirectionTerm',
            weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
        ),
    ),
    alpha=0.5,
    teacher_layer='auto',
    num_tokens=32,  # of the 14x14, drawn anew each step
)

custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer', weight_map='vit_to_plainmamba'),
    dict(type='mmtransmamba.LayerWeightsHook'),
]
