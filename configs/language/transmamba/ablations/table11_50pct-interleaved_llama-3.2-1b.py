# Interleaved, as mentioned in the text; Table XI has no row for it.
_base_ = '../llama-mamba-hybrid-13pct-high_8xb16_llama-3.2-1b.py'

model = dict(student=dict(convert=dict(layers='interleaved', ratio=0.5)))
