"""Converted vision encoders: tiny ViTs, and the students of each of their stages."""

from config_runs import batches_of, load, student
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from config_families.base import Family
from config_families.images import shrink_data, shrink_images
from mmtransmamba.transfer.convert import convert

# Side of the images, side of their tiny version, and fields of the teacher, by the
# first word of a config's name.
SUBJECTS = {
    'digits': (8, 8, dict(num_channels=1, num_labels=10)),
    'deit': (224, 32, dict(num_labels=1000)),
    'cifar10': (32, 32, dict(num_labels=10)),
}
SMALL = dict(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
)
LATER = {
    'vision_features': ['init:mimic', 'vision_align'],
    'vision_tune': ['init:mimic', 'vision_align', 'vision_features'],
}
MLP_AND_NORMS = ('.mlp.', 'norm')


def subject_of(name: str) -> str:
    return name.rpartition('/')[2].partition('_')[0]


class Encoders(Family):
    patterns = ('quickstart/hybrid_vit/*.py',)

    def write(self, root):
        for subject, (_, side, fields) in SUBJECTS.items():
            sizes = SMALL | dict(image_size=side, patch_size=side // 4)
            vit = ViTForImageClassification(ViTConfig(**sizes, **fields))
            vit.save_pretrained(root / subject)
            ViTImageProcessor().save_pretrained(root / subject)
            for ratio in (0.5, 1.0):
                hybrid, _ = convert(vit, ratio=ratio)
                for stage, history in LATER.items():
                    hybrid.config.transfer_history = history
                    hybrid.save_pretrained(root / f'{subject}-{ratio}-{stage}')

    def shrink(self, cfg, root):
        shrink_data(cfg, root)
        subject = subject_of(cfg.filename)
        self.full, self.side, fields = SUBJECTS[subject]
        if 'student' not in cfg.model:
            side = dict(image_size=self.side, patch_size=self.side // 4)
            cfg.model.config.update(SMALL | fields | side)
            return cfg
        if subject == 'deit':
            # The generated images have numbers in place of names.
            assert cfg.model.teacher.class_order == 'names'
            cfg.model.teacher.class_order = student(cfg).classes
        start = cfg.model.teacher.model = str(root / subject)
        if student(cfg).stage in LATER:
            ratio = 0.5 if 'half' in cfg.filename else 1.0
            start += f'-{ratio}-{student(cfg).stage}'
        student(cfg).path = start
        return cfg

    def build(self, cfg):
        cfg.model.data_preprocessor = cfg.data_preprocessor
        return super().build(cfg)

    def batches(self, cfg):
        return 2 * [self._first_batch(cfg.train_dataloader)]

    def _first_batch(self, loader):
        (batch,) = batches_of(loader, 1)
        for image in batch['inputs']:
            assert image.shape[-2:] == (self.full, self.full)
        return shrink_images(batch, self.side)

    def check_training(self, name, cfg, model, steps):
        if 'student' not in cfg.model:
            assert steps.trained == steps.every
            return
        encoder = model.student.encoder
        layers = encoder.config.layer_types
        linear = layers.count('linear_attention')
        assert linear == (1 if 'half' in name else 2) and len(layers) == 2
        own = {key for key in steps.trained if not key.startswith('terms.')}
        mixers = [f'layers.{i}.attention.' for i in encoder.config.mamba_layers]
        wanted = {
            'vision_align': mixers,
            'vision_features': [*mixers, *MLP_AND_NORMS],
            'vision_tune': [''],
        }[student(cfg).stage]
        every = {key for key in steps.every if not key.startswith('terms.')}
        assert own == {key for key in every if any(part in key for part in wanted)}

    def check_testing(self, name, cfg, model):
        batch = self._first_batch(cfg.val_dataloader)
        for sample in model.eval().test_step(batch):
            assert sample.pred_score.shape == (cfg.data_preprocessor.num_classes,)

    def shorten(self, cfg):
        cfg.train_cfg.update(max_iters=4, val_interval=4)
        return cfg


def stages() -> dict[str, list]:
    """The configs of the stages of each subject, in their order."""
    found = {}
    for name in Encoders().configs():
        cfg = load(name)
        if 'student' in cfg.model:
            found.setdefault(name.rpartition('_')[0], []).append(cfg)
    order = ('vision_align', *LATER)
    return {
        prefix: sorted(cfgs, key=lambda cfg: order.index(student(cfg).stage))
        for prefix, cfgs in found.items()
    }
