# TransMamba-L with reasoning: all of the teacher's attention becomes Mamba-1 and is
# distilled as in configs/multimodal/transmamba, on 40K samples.
_base_ = [
    '../../_base_/models/reasoning_llama_3_2_1b_vlm.py',
    '../../_base_/schedules/transmamba_lm.py',
    '../../_base_/language_runtime.py',
]

model = dict(
    stage='transmamba',
    student=dict(
        convert=dict(
            ratio=1.0, init='subclone', mamba_checkpoint='checkpoints/mamba-1.4b'
        ),
    ),
    # Eq. 12 with alpha = 0.5.
    terms=dict(
        task=dict(type='mmtransmamba.NextTokenTerm', weight=0.5),
        hidden=dict(
            type='mmtransmamba.HiddenStatesTerm',
            weight=0.5,
            weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
        ),
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='mmtransmamba.LayerWeightsHook')]
