# Adds the KL divergence from the teacher's distribution.
_base_ = './llama-mamba_8xb16_llama-3.2-1b.py'

model = dict(terms=dict(kl=dict(type='mmtransmamba.TokenKLTerm', weight=0.5)))
