# Table VII, row "Adapt-Layer+Feature+Logits".
_base_ = './digits_full.py'

model = dict(terms=dict(direction=None))
