# Table VII: final feature alone.
_base_ = '../trans-plain-mamba-t_1xb128_in100.py'

model = dict(terms=dict(logits=None, direction=None))
