# MaTVLM, Table 4.
_base_ = '../matvlm-25pct_4xb16_siglip-so400m_phi-2.py'

model = dict(terms=dict(layer=None))
