# Table VII, row "Logits+Feature".
_base_ = './digits_full.py'

model = dict(terms=dict(layer=None, direction=None))
