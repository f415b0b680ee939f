# LLaVA-1.5's: as in its pre-training, at 2e-5.
_base_ = './llava_pretrain.py'

optim_wrapper = dict(optimizer=dict(lr=2e-5))
auto_scale_lr = dict(base_batch_size=128)
