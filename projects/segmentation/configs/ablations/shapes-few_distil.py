# The transfer without inherited weights.
_base_ = '../trans-plain-mamba-upernet_shapes-few.py'

model = dict(teacher=dict(model='{{fileDirname}}/../vit-teacher_shapes.py'))
custom_hooks = [
    dict(type='mmtransmamba.TermDecayHook', terms=['layer', 'direction'], end=0.6),
]
