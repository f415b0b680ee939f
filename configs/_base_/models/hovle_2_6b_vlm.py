# Teacher and student start from one folder with a decoder-only vision-language model,
# see docs/decoder_only_vlm.md. Trained weights are float32.
_base_ = '../datasets/solo_sft.py'

model = dict(
    type='mmtransmamba.LanguageDistiller',
    student=dict(
        type='mmtransmamba.VisionLanguageModel',
        path='checkpoints/hovle-2.6b',
        dtype='float32',
    ),
    teacher=dict(
        type='mmtransmamba.VisionLanguageModel',
        path='checkpoints/hovle-2.6b',
        dtype='bfloat16',
    ),
    compare=True,
)
