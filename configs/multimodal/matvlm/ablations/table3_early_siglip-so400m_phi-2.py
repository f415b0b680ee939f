# MaTVLM, Table 3: the Mamba layers in one block.
_base_ = '../matvlm-25pct_4xb16_siglip-so400m_phi-2.py'

model = dict(student=dict(convert=dict(layers='early')))
