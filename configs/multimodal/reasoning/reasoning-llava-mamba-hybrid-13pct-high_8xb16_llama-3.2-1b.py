# TransMamba-H with reasoning: 13 % of the layers, the last two, become Mamba.
_base_ = './reasoning-llava-mamba_8xb16_llama-3.2-1b.py'

model = dict(student=dict(convert=dict(layers='high', ratio=0.13)))
