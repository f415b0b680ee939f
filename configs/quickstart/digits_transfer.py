# The same student on the same 60 digits, under the teacher: both stages of
# the transfer. Weights of the layer and direction terms make means of their sums over
# four layers and four directions; docs/results/digits.md has the ablation.
_base_ = './digits_scratch.py'

adaptive = dict(type='mmtransmamba.AdaptiveWeighting')
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
        layer=dict(type='mmtransmamba.LayerTerm', weight=1 / 4, weighting=adaptive),
        direction=dict(
            type='mmtransmamba.DirectionTerm', weight=1 / 16, weighting=adaptive
        ),
    ),
)
custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer'),
    dict(type='mmtransmamba.ProgressBarHook', title='transfer'),
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
]
