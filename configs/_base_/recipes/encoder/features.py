# Second stage: the feed-forward layers and norms are trained with the mixers.
_base_ = './align.py'

encoder_stage = dict(student=dict(stage='vision_features', convert=None))
optim_wrapper = dict(optimizer=dict(lr=3e-4))
