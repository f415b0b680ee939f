# The same student on the same photographs under DeiT-Tiny of ImageNet-1k, whose outputs
# at 224 pixels are recorded. Settings are those of digits_transfer.py: means over six
# layers and four directions, feature terms that fade out. The student has half the
# teacher's depth, so the last layer is there for all (Eq. 5).
_base_ = './imagenette_scratch.py'

adaptive = dict(type='mmtransmamba.AdaptiveWeighting')
decay = dict(
    type='mmtransmamba.TermDecayHook', terms=['feature', 'layer', 'direction'], end=0.6
)
model = dict(
    _delete_=True,
    type='mmtransmamba.MultiDirectionDistiller',
    student=_base_.model,
    teacher=dict(
        type='mmtransmamba.TransformersTeacher',
        model='data/deit_tiny',
        input_size=224,
        class_order='names',
    ),
    alpha=0.2,
    terms=dict(
        logits=dict(type='mmtransmamba.LogitsTerm'),
        feature=dict(type='mmtransmamba.FeatureTerm'),
        layer=dict(type='mmtransmamba.LayerTerm', weight=1 / 6, weighting=adaptive),
        direction=dict(
            type='mmtransmamba.DirectionTerm', weight=1 / 24, weighting=adaptive
        ),
    ),
)
# One batch shows whether the teacher knows the classes; what it scores on all of
# them is measured once for the whole study.
default_hooks = dict(teacher=dict(batches=1))
custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer'),
    decay,
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
]
