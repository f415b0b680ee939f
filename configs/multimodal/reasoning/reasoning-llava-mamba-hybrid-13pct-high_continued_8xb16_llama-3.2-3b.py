# The student does not begin with the teacher's weights but with those of the student
# that was distilled on LLaVA's conversations, whose Mamba layers know images and text.
_base_ = './reasoning-llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-3b.py'

model = dict(
    student=dict(
        path='work_dirs/llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-3b/student',
        convert=None,
    ),
    requires='transmamba',
)
