# The same student on the same 30 digits, under the teacher: both stages of
# the transfer. Weights of the layer and direction terms make means of their sums over
# four layers and four directions; docs/results/digits.md has the ablation.
_base_ = './digits_scratch.py'

adaptive = dict(type='mmtransmamba.AdaptiveWeighting')
# Features lead the first part of the way, labels and logits the rest.
decay = dict(
    type='mmtransmamba.TermDecayHook', terms=['feature', 'layer', 'direction'], end=0.6
)
model = dict(
    _delete_=True,
    type='mmtransmamba.MultiDirectionDistiller',
    student=_base_.model,
    teacher=dict(
        type='mmtransmamba.MMPretrainTeacher',
        model='{{fileDirname}}/digits_teacher.py',
        checkpoint='work_dirs/digits_teacher/epoch_150.pth',
    ),
    # With 30 labels the teacher has more to say than they have.
    alpha=0.2,
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
    decay,
    dict(type='mmtransmamba.ProgressBarHook', title='transfer'),
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
]
