"""Every config trains and predicts, with its sizes shrunk; some in a whole run."""

import pytest
import torch
from config_families import FAMILIES, FAMILY_OF
from config_runs import NAMES, logged, run, stage_of, student, train

from mmtransmamba.engine.student import transformers_part
from mmtransmamba.registry import MODELS

TRANSFER = 'image_classification/transmamba'


def test_every_config_is_of_one_family():
    assert sorted(FAMILY_OF) == sorted(NAMES.values())
    assert sum(len(family.configs()) for family in FAMILIES) == len(NAMES)


@pytest.mark.parametrize('name', FAMILY_OF)
def test_trains_and_predicts(name, shrunk):
    family, cfg = FAMILY_OF[name], shrunk(name)
    model = family.build(cfg)
    if cfg.get('train_cfg'):
        steps = train(cfg, model, family.batches(cfg))
        unchanged = steps.trained - steps.changed
        assert not [key for key in unchanged if not family.may_stay(name, key)]
        family.check_training(name, cfg, model, steps)
    if cfg.test_cfg is not None:
        family.check_testing(name, cfg, model)


@pytest.mark.parametrize(
    'name',
    [
        f'{TRANSFER}/trans-plain-mamba-t_1xb128_cifar100.py',
        f'{TRANSFER}/trans-plain-mamba-t_released-1xb256_in100.py',
        'image_classification/plain_mamba/plain-mamba-l2_8xb256_in1k.py',
        f'{TRANSFER}/trans-vmamba-t_1xb32_in100.py',
        f'{TRANSFER}/trans-vim-t_1xb128_cifar100.py',
        f'{TRANSFER}/trans-vrwkv-s_1xb128_in100.py',
        'quickstart/hybrid_vit/digits_vit_align.py',
        'video_retrieval/trans-video-mamba-m_4xb32_msrvtt.py',
        'language/stories260k/mmmamba_stage1.py',
        'language/matvlm/matvlm-25pct_4xb16_llama-3.2-1b.py',
        'language/transmamba/llama-mamba_8xb16_llama-3.2-1b.py',
    ],
)
def test_a_run_with_its_hooks(name, shrunk, tmp_path):
    cfg = FAMILY_OF[name].shorten(shrunk(name))
    cfg.default_hooks.logger.interval = 1
    hooks = {hook.type.rpartition('.')[2]: hook for hook in cfg.custom_hooks}
    if 'LayerWeightsHook' in hooks:
        hooks['LayerWeightsHook'].interval = 1
    run(cfg, tmp_path)

    if 'SaveStudentHook' in hooks:
        path = str(tmp_path / 'student')
        saved = MODELS.build(dict(type=student(cfg).type, path=path))
        history = transformers_part(saved).config.transfer_history
        assert history[-1] == stage_of(cfg)
    else:
        path = (tmp_path / 'last_checkpoint').read_text()
        state = torch.load(tmp_path / path, weights_only=False)['state_dict']
        names = {key for key in state if not key.startswith('distiller.')}
        assert names == set(MODELS.build(student(cfg)).state_dict())
    reported = (tmp_path / 'subclone_report.json').is_file()
    assert reported == ('SubcloneInitializer' in hooks)
    records = logged(tmp_path)
    metrics = {key for record in records for key in record}
    assert metrics & {'accuracy/top1', 'retrieval/t2v_R@1', 'token/kl'}
    weighted = any('layer_weight' in key for key in metrics)
    assert weighted == ('LayerWeightsHook' in hooks)
    rates = [record['lr'] for record in records if 'lr' in record]
    if name.startswith('language'):
        assert len(rates) == 10
        assert (rates[-1] == 0) == (cfg.param_scheduler is not None)
