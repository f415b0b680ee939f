# LLaVA-1.5's mixture of 665K conversations. The processor is the model's. A few hundred
# rows held out from training are the validation set.
_base_ = './conversation_loader.py'

train_dataloader = dict(
    dataset=dict(
        files='data/LLaVA-Instruct/llava_v1_5_mix665k.json',
        image_root='data/LLaVA-Instruct/images',
        processor='checkpoints/llava-llama-3.2-1b',
        image_place='first',
    ),
)
val_dataloader = dict(
    dataset=dict(
        files='data/LLaVA-Instruct/val.json',
        image_root='data/LLaVA-Instruct/images',
        processor='checkpoints/llava-llama-3.2-1b',
        image_place='first',
    ),
)
test_dataloader = val_dataloader
