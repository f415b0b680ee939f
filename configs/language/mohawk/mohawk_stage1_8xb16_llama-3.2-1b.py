# MOHAWK's first stage: the mixers learn the attention's matrices, layer by layer, with
# the projections of q and k. mmMamba's stages 2 and 3 go on from it.
_base_ = '../mmmamba/hybrid_stage1_8xb16_llama-3.2-1b.py'

model = dict(
    trains=['ssm', 'qkv'],
    terms=dict(
        mixer=None,
        matrix=dict(type='mmtransmamba.MixingMatrixTerm'),
    ),
)
