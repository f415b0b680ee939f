# Distillation from DeiT-T: logits, final feature and every scan direction of every
# layer, weighted by the meta-network (the last row of TransMamba's Table VII). If
# student and teacher differ in depth, the teacher's last layer supervises all (Eq. 5).
distiller = dict(
    type='mmtransmamba.MultiDirectionDistiller',
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
    num_tokens=32,  # of a layer's tokens, drawn anew each step
)
