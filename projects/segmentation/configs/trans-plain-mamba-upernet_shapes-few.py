# The segmentor on 40 labelled scenes, with its backbone taught by a ViT classifier:
# initialised from the ViT's weights, then distilled block by block and direction by
# direction. This shows how to set up a dense student; here it does not help, see the
# README.
_base_ = './plain-mamba-upernet_shapes-few.py'

adaptive = dict(type='mmtransmamba.AdaptiveWeighting')
model = dict(
    _delete_=True,
    type='mmtransmamba.MultiDirectionDistiller',
    student=_base_.model,
    teacher=dict(
        type='mmtransmamba.MMPretrainTeacher',
        model='{{fileDirname}}/vit-teacher_shapes.py',
        checkpoint='work_dirs/vit-teacher_shapes/epoch_20.pth',
    ),
    alpha=0.5,
    # The weights turn the sums over four layers and four directions into means.
    terms=dict(
        layer=dict(type='mmtransmamba.LayerTerm', weight=1 / 4, weighting=adaptive),
        direction=dict(
            type='mmtransmamba.DirectionTerm', weight=1 / 16, weighting=adaptive
        ),
    ),
    num_tokens=64,
)
custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer'),
    dict(type='mmtransmamba.TermDecayHook', terms=['layer', 'direction'], end=0.6),
]
