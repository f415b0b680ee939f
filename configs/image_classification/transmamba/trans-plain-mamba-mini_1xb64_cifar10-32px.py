# The same student on the same 5,000 images, distilled from the teacher.
_base_ = '../plain_mamba/plain-mamba-mini_1xb64_cifar10-32px.py'

model = dict(
    _delete_=True,
    type='mmtransmamba.MultiDirectionDistiller',
    student=_base_.model,
    teacher=dict(
        type='mmtransmamba.MMPretrainTeacher',
        model='{{fileDirname}}/../deit/deit-mini_1xb128_cifar10-32px.py',
        checkpoint='checkpoints/deit-mini_cifar10-32px.pth',
    ),
    terms=dict(
        logits=dict(type='mmtransmamba.LogitsTerm'),
        feature=dict(type='mmtransmamba.FeatureTerm'),
        direction=dict(
            type='mmtransmamba.DirectionTerm',
            weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
        ),
    ),
)
custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer', weight_map='vit_to_plainmamba'),
    dict(type='mmtransmamba.LayerWeightsHook'),
]
