# The same student under the teacher that tools/studies/cifar10_teacher.py trains, a ViT
# of six blocks. Terms and schedules are those of imagenette_transfer.py.
_base_ = './cifar10_scratch.py'

adaptive = dict(type='mmtransmamba.AdaptiveWeighting')
decay = dict(
    type='mmtransmamba.TermDecayHook', terms=['feature', 'layer', 'direction'], end=0.6
)
model = dict(
    _delete_=True,
    type='mmtransmamba.MultiDirectionDistiller',
    student=_base_.model,
    teacher=dict(
        type='mmtransmamba.MMPretrainTeacher',
        model='{{fileDirname}}/cifar10_teacher.py',
        checkpoint='docs/results/cifar10/teacher.safetensors',
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
# One batch shows whether the teacher knows the classes.
default_hooks = dict(teacher=dict(batches=1))
custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer'),
    decay,
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
]
