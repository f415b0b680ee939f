# Last stage: everything is trained with the labels and the teacher's logits. With
# `alpha=0.0` only the logits are used, with `alpha=1.0` only the labels.
_base_ = './align.py'

encoder_stage = dict(
    student=dict(stage='vision_tune', convert=None),
    alpha=0.5,
    terms=dict(layer=None, feature=None, logits=dict(type='mmtransmamba.LogitsTerm')),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
