# The student starts from the student that was distilled on LLaVA's conversations
# instead of from the teacher's weights; its Mamba layers are already trained on images
# and text.
_base_ = './reasoning-llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-3b.py'

model = dict(
    student=dict(
        path='work_dirs/llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-3b/student',
        convert=None,
    ),
    requires='transmamba',
)
