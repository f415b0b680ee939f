# VideoMamba-M distilled from CLIP4Clip: similarities, embedding and both scan
# directions of every layer, weighted by the meta-network. The teacher has 12 layers,
# the student 32, so the teacher's last layer supervises all (Eq. 5).
_base_ = './video_mamba_m_retriever.py'

model = dict(
    _delete_=True,
    type='mmtransmamba.MultiDirectionDistiller',
    student=_base_.model,
    teacher=dict(
        type='mmtransmamba.CLIP4ClipTeacher',
        model=dict(type='mmtransmamba.CLIP4Clip', clip=_base_.clip, aggregation='mean'),
    ),
    terms=dict(
        similarity=dict(type='mmtransmamba.SimilarityTerm'),
        feature=dict(type='mmtransmamba.FeatureTerm'),
        direction=dict(
            type='mmtransmamba.DirectionTerm',
            weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
        ),
    ),
    alpha=0.5,
    teacher_layer='auto',
    num_tokens=64,  # of a layer's 2,352, drawn anew each step
)
custom_hooks = [dict(type='mmtransmamba.LayerWeightsHook')]
