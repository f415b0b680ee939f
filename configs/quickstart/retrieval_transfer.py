# The same student on the same 1,024 clips, distilled from CLIP4Clip. The weights of the
# layer and direction terms turn their sums over four layers and two directions into
# means.
_base_ = './retrieval_scratch.py'

adaptive = dict(type='mmtransmamba.AdaptiveWeighting')
model = dict(
    _delete_=True,
    type='mmtransmamba.MultiDirectionDistiller',
    student=_base_.model,
    teacher=dict(
        type='mmtransmamba.CLIP4ClipTeacher',
        model=dict(
            type='mmtransmamba.CLIP4Clip',
            clip=_base_.clip,
            aggregation='transformer',
            temporal=dict(num_layers=2, max_frames=4, head_dim=16),
        ),
        checkpoint='work_dirs/retrieval_teacher/epoch_12.pth',
    ),
    alpha=0.5,
    terms=dict(
        similarity=dict(type='mmtransmamba.SimilarityTerm'),
        feature=dict(type='mmtransmamba.FeatureTerm'),
        layer=dict(type='mmtransmamba.LayerTerm', weight=1 / 4, weighting=adaptive),
        direction=dict(
            type='mmtransmamba.DirectionTerm', weight=1 / 8, weighting=adaptive
        ),
    ),
)
custom_hooks = [
    dict(type='mmtransmamba.ProgressBarHook', title='transfer'),
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
]
