# A LLaVA of 0.6M parameters that learns easy-VQA from nothing.
_base_ = [
    '../../_base_/datasets/easy_vqa.py',
    '../../_base_/schedules/vqa.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    type='mmtransmamba.VisionLanguageModel',
    config=dict(
        model_type='llava',
        vision_config=dict(
            model_type='clip_vision_model',
            hidden_size=96,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            hidden_act='gelu',
            image_size=64,
            patch_size=16,
            initializer_range=0.1,
        ),
        text_config=dict(
            model_type='llama',
            # 7 special tokens and the words of the training questions and answers.
            vocab_size=35,
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            initializer_range=0.05,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=4,
        image_seq_length=16,
        vision_feature_layer=-2,
        vision_feature_select_strategy='default',
        tie_word_embeddings=False,
    ),
    processor='data/easy_vqa/start',
    head=dict(type='mmtransmamba.AnswerHead', max_new_tokens=4),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook', folder='model'),
    dict(type='mmtransmamba.ProgressBarHook', title='teacher'),
]
