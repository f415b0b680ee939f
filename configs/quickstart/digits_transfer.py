# The same student on the same tenth of the digits, under the teacher.
_base_ = './digits_scratch.py'

model = dict(
    _delete_=True,
    type='mmtransmamba.MultiDirectionDistiller',
    student=_base_.model,
    teacher=dict(
        type='mmtransmamba.MMPretrainTeacher',
        model='{{fileDirname}}/digits_teacher.py',
        checkpoint='work_dirs/digits_teacher/epoch_150.pth',
    ),
    terms=dict(
        logits=dict(type='mmtransmamba.LogitsTerm'),
        feature=dict(type='mmtransmamba.FeatureTerm'),
        layer=None,
        direction=dict(
            type='mmtransmamba.DirectionTerm',
            weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
        ),
    ),
)
custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer'),
    dict(type='mmtransmamba.ProgressBarHook', title='transfer'),
    dict(type='mmtransmamba.LayerWeightsHook'),
]
