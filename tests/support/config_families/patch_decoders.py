"""mmMamba: a decoder-only vision-language model of four layers."""

from pathlib import Path

from config_runs import LATER, LOADERS, batches_of, in_float32
from tiny_conversations import save_tiny_conversations
from tiny_patch_decoders import LAYOUTS, save_tiny_patch_decoder

from config_families.base import Family
from mmtransmamba.transfer.convert import convert


def parts(name: str) -> tuple[str, int]:
    """Kind and stage of a config."""
    kind, stage, *_ = Path(name).name.split('_')
    return kind, int(stage[-1])


class PatchDecoders(Family):
    patterns = ('multimodal/mmmamba/*.py',)

    def write(self, root):
        save_tiny_patch_decoder(root / 'teacher')
        save_tiny_conversations(root / 'data')
        for stage, history in LATER.items():
            for kind, ratio in (('hybrid', 0.75), ('linear', 1.0)):
                hybrid, _ = convert(root / 'teacher', 'interleaved', ratio)
                hybrid.config.text_config.transfer_history = history
                hybrid.save_pretrained(root / f'{kind}-{stage}')

    def shrink(self, cfg, root):
        teacher = str(root / 'teacher')
        kind, stage = parts(cfg.filename)
        data = root / 'data'
        for key in LOADERS:
            cfg[key].update(batch_size=4, num_workers=0)
            if 'batch_size' in cfg[key].sampler:
                cfg[key].sampler.batch_size = 4
            cfg[key].dataset.update(
                processor=teacher,
                files=str(data / 'train.jsonl'),
                image_root=str(data / 'images'),
            )
        start = teacher if stage == 1 else str(root / f'{kind}-stage{stage}')
        cfg.model.teacher.update(path=teacher, dtype='float32')
        cfg.model.student.path = start
        return in_float32(cfg)

    def batches(self, cfg):
        batches = batches_of(cfg.train_dataloader)
        # Batches of text alone are among them.
        assert {'pixel_values' in batch for batch in batches} == {True, False}
        return batches

    def check_training(self, name, cfg, model, steps):
        kind, stage = parts(name)
        layout = 'attention first' if kind == 'hybrid' else 'pure'
        assert model.student.config.text_config.layer_types == LAYOUTS[layout]
        assert set(steps.losses) == {'loss', 'loss_kl' if stage == 3 else 'loss_mixer'}
        learning = {key.split('self_attn.')[-1].split('.')[0] for key in steps.changed}
        new = {'A_log', 'dt_bias', 'dt_proj', 'conv1d', 'z_proj', 'norm'}
        inherited = {'x_proj', 'B_proj', 'C_proj'}
        assert learning == new | (set() if stage == 1 else inherited)

    def check_metrics(self, name, cfg, metrics):
        assert metrics['token/kl'] > 0
