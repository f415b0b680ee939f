# A randomly initialised LLaVA of 0.45M parameters learns to describe what it sees, to
# count and to draw conclusions.
_base_ = [
    '../../_base_/datasets/shapes_reasoning.py',
    '../../_base_/schedules/stories260k.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    type='mmtransmamba.VisionLanguageModel',
    config=dict(
        model_type='llava',
        vision_config=dict(
            model_type='clip_vision_model',
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ),
        text_config=dict(
            model_type='llama',
            vocab_size=101,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            tie_word_embeddings=True,
        ),
        image_token_index=4,
        image_seq_length=4,
        vision_feature_layer=-2,
        vision_feature_select_strategy='default',
        tie_word_embeddings=True,
    ),
    processor='data/shapes_reasoning/processor',
    head=dict(type='mmtransmamba.ReasoningHead', max_new_tokens=400),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3, weight_decay=0.01), clip_grad=dict(max_norm=1.0)
)
param_scheduler = dict(warmup=0.05, decay=0.4)
train_cfg = dict(max_iters=1500, val_interval=1500)
custom_hooks = [dict(type='mmtransmamba.SaveStudentHook', folder='model')]
