# The detector of blood cells with a backbone taught by DeiT-Tiny of ImageNet-1k
# (docs/data.md), block by block and direction by direction. DeiT-Tiny sees the same
# pictures, at 320x240.
_base_ = './vmamba-faster-rcnn_bccd.py'

adaptive = dict(type='mmtransmamba.AdaptiveWeighting')
model = dict(
    _delete_=True,
    type='mmtransmamba.MultiDirectionDistiller',
    student=_base_.model,
    teacher=dict(
        type='mmtransmamba.TransformersTeacher',
        model='{{$MMTRANSMAMBA_DATA:data}}/deit_tiny',
    ),
    alpha=0.5,
    # As many as DeiT-Tiny has; the student has 4,800 after its first block.
    num_tokens=300,
    # The weights turn the sums over five blocks and four directions into means.
    terms=dict(
        layer=dict(type='mmtransmamba.LayerTerm', weight=1 / 5, weighting=adaptive),
        direction=dict(
            type='mmtransmamba.DirectionTerm', weight=1 / 20, weighting=adaptive
        ),
    ),
)
custom_hooks = [
    dict(type='mmtransmamba.TermDecayHook', terms=['layer', 'direction'], end=0.6),
]
