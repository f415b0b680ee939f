# A CLIP vision tower that learns to name what each patch shows, in place of CLIP's
# pre-training. Classes, pictures and processor are the set's.
model = dict(
    type='mmtransmamba.PatchClassifier',
    config=dict(
        hidden_size=96,
        intermediate_size=384,
        # LLaVA takes the features of the last layer but one.
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_act='gelu',
        initializer_range=0.1,
    ),
)
