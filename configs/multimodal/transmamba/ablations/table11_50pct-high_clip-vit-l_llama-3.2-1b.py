# TransMamba, Table XI.
_base_ = '../llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-1b.py'

model = dict(student=dict(convert=dict(layers='high', ratio=0.5)))
