# LLaVA's 558K images with captions, for pre-training the projector: the prompt is the
# image alone. The processor is the model's. A few hundred rows held out from training
# are the validation set.
_base_ = './conversation_loader.py'

train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        files='data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json',
        image_root='data/LLaVA-Pretrain/images',
        processor='checkpoints/llava-llama-3.2-1b',
        template='llava_plain',
    ),
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        files='data/LLaVA-Pretrain/val.json',
        image_root='data/LLaVA-Pretrain/images',
        processor='checkpoints/llava-llama-3.2-1b',
        template='llava_plain',
    ),
)
test_dataloader = val_dataloader
