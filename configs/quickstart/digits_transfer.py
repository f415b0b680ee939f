# The same student on the same 30 digits, with both stages of the transfer. The weights
# of the layer and direction terms turn their sums over four layers and four directions
# into means; docs/results/digits.md has the ablation.
_base_ = './digits_scratch.py'

adaptive = dict(type='mmtransmamba.AdaptiveWeighting')
# Features dominate early in training, labels and logits later.
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
    # The teacher carries more information than 30 labels.
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
