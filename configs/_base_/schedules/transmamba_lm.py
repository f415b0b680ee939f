# TransMamba, Section 4.2: Adam at 2e-5, one epoch. The paper specifies no schedule.
optim_wrapper = dict(
    type='AmpOptimWrapper', dtype='bfloat16', optimizer=dict(type='Adam', lr=2e-5)
)
param_scheduler = None
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
test_cfg = dict()

# Total batch size of the learning rate; used with --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=128)
