# Adaptive weights in the directions alone, the sum of Eq. 12.
_base_ = './digits_full.py'

model = dict(terms=dict(layer=None))
