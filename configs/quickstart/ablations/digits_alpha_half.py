# As digits_transfer.py with the paper's alpha.
_base_ = '../digits_transfer.py'

model = dict(alpha=0.5)
