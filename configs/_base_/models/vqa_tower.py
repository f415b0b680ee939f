# A CLIP vision tower trained to name the content of each patch, in place of CLIP's
# pre-training. Classes, pictures and processor come from the data set.
model = dict(
    type='mmtransmamba.PatchClassifier',
    config=dict(
        hidden_size=96,
        intermediate_size=384,
        # LLaVA uses the features of the second-to-last layer.
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_act='gelu',
        initializer_range=0.1,
    ),
)
