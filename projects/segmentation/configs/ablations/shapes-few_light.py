# Terms of a tenth of the weight beside the labels at full weight, and no inherited
# weights: as little of the teacher as there is.
_base_ = './shapes-few_distil.py'

model = dict(alpha=1.0, distill_weight=0.05)
