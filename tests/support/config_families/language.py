"""Language models: generated tokens, a Llama and a Phi of four layers."""

import markov_tokens  # noqa: F401 (registers its data set)
from config_runs import (
    LATER,
    LOADERS,
    convertible,
    in_float32,
    student,
)
from language_models import make_hybrid, make_teacher
from mmengine.config import ConfigDict

from config_families.base import Family


class Language(Family):
    patterns = ('language/**/*.py',)
    # So small a Mamba-1 gives these gradients below Adam's epsilon.
    still = ('.dt_proj.',)

    def write(self, root):
        for family in ('llama', 'phi'):
            teacher = make_teacher(family, num_hidden_layers=4)
            teacher.save_pretrained(root / family)
            hybrid = make_hybrid(teacher, layers=[1, 2, 3])
            for stage, history in LATER.items():
                hybrid.config.transfer_history = history
                hybrid.save_pretrained(root / f'{family}-{stage}')

    def shrink(self, cfg, root):
        for i, name in enumerate(LOADERS):
            if name in cfg:
                cfg[name].update(batch_size=4, num_workers=0)
                cfg[name].dataset = ConfigDict(
                    type='mmtransmamba.MarkovTokens',
                    vocab_size=29,
                    length=12,
                    num_samples=8,
                    first=8 * min(i, 1),
                )
        if 'student' not in cfg.model:
            cfg.model.path = str(root / 'llama')
            return cfg
        family = 'phi' if 'phi' in cfg.model.teacher.path else 'llama'
        stage = cfg.model.stage
        cfg.model.teacher.path = str(root / family)
        student(cfg).path = str(
            root / (f'{family}-{stage}' if stage in LATER else family)
        )
        return in_float32(convertible(cfg))

    def may_stay(self, name, key):
        # The matrices come before norm and gate, and without the values.
        beyond = ('self_attn.norm.', 'self_attn.z_proj.', 'self_attn.x_proj.')
        unseen = 'mohawk/' in name and any(part in key for part in beyond)
        return unseen or super().may_stay(name, key)

    def check_training(self, name, cfg, model, steps):
        wanted = {key.split('_')[0] for key, term in cfg.model.terms.items() if term}
        found = {key.split('_')[1] for key in steps.losses if '_' in key}
        assert found == wanted

    def check_metrics(self, name, cfg, metrics):
        assert metrics['token/ppl'] > 1
        compared = {'token/kl', 'token/agreement'} if 'student' in cfg.model else set()
        alone = {'token/nll', 'token/ppl', 'token/accuracy'}
        assert set(metrics) == alone | compared
        assert metrics.get('token/kl', 1) > 0

    def shorten(self, cfg):
        if 'max_iters' in cfg.train_cfg:
            cfg.train_cfg.update(max_iters=10, val_interval=10)
        else:
            cfg.train_dataloader.dataset.num_samples = 40
        return cfg
