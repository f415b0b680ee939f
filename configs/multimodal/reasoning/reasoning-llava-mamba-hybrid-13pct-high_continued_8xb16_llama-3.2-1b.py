# The 1B model; see the 3B model's config.
_base_ = './reasoning-llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-1b.py'

model = dict(
    student=dict(
        path='work_dirs/llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-1b/student',
        convert=None,
    ),
    requires='transmamba',
)
