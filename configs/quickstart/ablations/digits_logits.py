# Table VII, row "Logits".
_base_ = './digits_full.py'

model = dict(terms=dict(feature=None, layer=None, direction=None))
