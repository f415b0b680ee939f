# Table VII, row "Feature".
_base_ = './digits_full.py'

model = dict(terms=dict(logits=None, layer=None, direction=None))
