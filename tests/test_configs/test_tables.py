"""The values of the papers: recipes, the layers they convert, and rows of tables."""

import pytest
from config_runs import (
    DEPTHS,
    NAMES,
    changes,
    flat,
    layers_of,
    load,
    optimizer_of,
    teacher_of,
)

from mmtransmamba.registry import MODELS

IMAGES = 'image_classification/transmamba'
SCOPE = 'mmtransmamba.'


def named(*patterns: str) -> list[str]:
    """Configs whose paths contain one of the patterns."""
    found = [n for n in NAMES.values() if any(pattern in n for pattern in patterns)]
    assert found, patterns
    return found


# ------------------------------------------------------------------------ recipes

RECIPES = {
    # stage of the model: type, rate, betas, decay of the optimizer, total batch size,
    # and length
    'stage1': ('AdamW', 1e-3, (0.9, 0.999), 0.05, 128, 20000),
    'stage2': ('AdamW', 5e-4, (0.9, 0.999), 0.05, 128, 20000),
    'stage3': ('AdamW', 5e-5, (0.9, 0.999), 0.05, 64, 20000),
    'matvlm': ('AdamW', 2e-4, (0.9, 0.95), 0.01, 64, 1),
    'transmamba': ('Adam', 2e-5, (0.9, 0.999), 0, 128, 1),
    'llava_pretrain': ('AdamW', 1e-3, (0.9, 0.999), 0, 256, 1),
    'llava_finetune': ('AdamW', 2e-5, (0.9, 0.999), 0, 128, 1),
    'reasoning': ('AdamW', 2e-5, (0.9, 0.999), 0, 128, 1),
}
# Mostly 10 % of warm-up and 10 % of decay; LLaVA's decay is a cosine.
SCHEDULES = {
    'transmamba': None,
    'llava_pretrain': (0.03, 0.97, 'cosine'),
    'llava_finetune': (0.03, 0.97, 'cosine'),
    'reasoning': (0.03, 0.97, 'cosine'),
}
TERMS = {
    'stage1': dict(mixer='MixerOutputTerm'),
    'stage2': dict(mixer='MixerOutputTerm'),
    'stage3': dict(kl='TokenKLTerm'),
    'matvlm': dict(kl='TokenKLTerm', layer='ForcedLayerTerm'),
    'transmamba': dict(task='NextTokenTerm', hidden='HiddenStatesTerm'),
    'mohawk': dict(matrix='MixingMatrixTerm'),
}


@pytest.mark.parametrize(
    'name', [n for n in named('language/', 'multimodal/') if '8xb' in n or '4xb' in n]
)
def test_the_recipe_of_a_stage(name):
    cfg = load(name)
    stage = cfg.model.stage
    *optimizer, batch, length = RECIPES[stage]
    assert optimizer_of(cfg) == tuple(optimizer)
    assert cfg.auto_scale_lr.base_batch_size == batch
    lengths = cfg.train_cfg.get('max_iters'), cfg.train_cfg.get('max_epochs')
    assert length in lengths
    schedule = cfg.param_scheduler
    schedule = schedule and (
        schedule.warmup,
        schedule.decay,
        schedule.get('form', 'linear'),
    )
    assert schedule == SCHEDULES.get(stage, (0.1, 0.1, 'linear'))
    if stage.startswith('stage'):
        assert cfg.optim_wrapper.clip_grad.max_norm == 5.0
    if 'student' not in cfg.model or 'logits' in name:
        return
    terms = {key: term for key, term in cfg.model.terms.items() if term}
    types = {key: term.type.removeprefix(SCOPE) for key, term in terms.items()}
    assert types == TERMS['mohawk' if 'mohawk/' in name else stage]
    # TransMamba's Eq. 12 with alpha = 0.5.
    weight = 0.5 if stage == 'transmamba' else 1.0
    assert {term.get('weight', 1.0) for term in terms.values()} == {weight}
    if stage == 'transmamba':
        weighting = MODELS.build(terms['hidden']).weighting
        assert type(weighting).__name__ == 'AdaptiveWeighting'
    if 'layer' in terms:
        assert MODELS.build(terms['kl']).divergence.temperature == 1.0


EVERY = slice(None)
# Among the layers of the teacher, those that become Mamba; mmMamba's hybrids keep the
# first of every four.
LAYERS = {
    '/hybrid_stage1': {1, 2, 3},
    'delta_rule/': {1, 2, 3},
    'mohawk/': {1, 2, 3},
    'linear_stage1': EVERY,
    'matvlm-12p5pct': slice(4, None, 8),
    'matvlm-25pct': slice(2, None, 4),
    'matvlm-50pct': slice(1, None, 2),
    'table3_early': slice(0, 8),
    'table3_middle': slice(12, 20),
    'table3_late': slice(24, 32),
    'mamba_8xb16_llama-3.2-1b': EVERY,
    'mamba-logits': EVERY,
    'mamba-hybrid-13pct-high_8xb16_llama-3.2-1b': slice(14, 16),
    'table11_25pct-high': slice(12, 16),
    'table11_50pct-high': slice(8, 16),
    'table11_50pct-low': slice(0, 8),
    'table11_50pct-interleaved': slice(1, 16, 2),
    'table11_75pct-high': slice(4, 16),
}
INITS = {'stage': 'mimic', 'matvlm': 'vkq', 'transmamba': 'subclone'}


@pytest.mark.parametrize(
    'name, layers',
    [(n, layers) for each, layers in LAYERS.items() for n in named(each)],
)
def test_layers_that_become_mamba(name, layers):
    cfg = load(name)
    every = list(range(DEPTHS[teacher_of(name)]))
    if isinstance(layers, slice):
        expected = every[layers]
    else:
        expected = [i for i in every if i % 4 in layers]
    assert layers_of(cfg, len(every)) == expected
    convert = cfg.model.student.convert
    assert convert is None or convert.init == INITS[cfg.model.stage.rstrip('123')]


# ------------------------------------------------------------------ rows of tables

STUDENT = 'model.student.'


def new(key: str, kind: str, **fields) -> dict:
    """The part of a config that a term adds."""
    given = {'type': SCOPE + kind} | fields
    return {f'model.terms.{key}.{field}': value for field, value in given.items()}


def off(*keys: str) -> dict:
    """The settings of a config without some terms."""
    return {f'model.terms.{key}': None for key in keys}


def converted(**fields) -> dict:
    return {f'{STUDENT}convert.{key}': value for key, value in fields.items()}


TASK = new('task', 'NextTokenTerm')
WEIGHTING = 'model.terms.{}.weighting.type'
MATVLM = {
    '12p5pct_4xb16': converted(ratio=0.125),
    '50pct_4xb16': converted(ratio=0.5),
}
MATVLM_ROWS = {
    'table3_early': converted(layers='early'),
    'table3_middle': converted(layers='middle'),
    'table3_late': converted(layers='late'),
    'table4_kl': off('layer'),
    'table4_layer': off('kl'),
    'table4_task': off('kl', 'layer') | TASK,
    'table4_kl-layer-task': TASK,
}
TABLE_11 = {
    '25pct-high': converted(ratio=0.25),
    '50pct-high': converted(ratio=0.5),
    '50pct-low': converted(layers='low', ratio=0.5),
    '50pct-interleaved': converted(layers='interleaved', ratio=0.5),
    '75pct-high': converted(ratio=0.75),
}
UNIFORM = {WEIGHTING.format('direction'): f'{SCOPE}UniformWeighting'}
ADAPTIVE = {WEIGHTING.format('layer'): f'{SCOPE}AdaptiveWeighting'}
TABLE_7 = {
    'logits': off('feature', 'direction'),
    'feature': off('logits', 'direction'),
    'logits-feature': off('direction'),
    'layer': off('direction') | new('layer', 'LayerTerm'),
    'adapt-layer': off('direction') | new('layer', 'LayerTerm') | ADAPTIVE,
    'direction': UNIFORM,
    'full': {},
}


def rows() -> dict[str, tuple[str, dict]]:
    """By the config of a row: the main config, and what the row changes in it."""
    found = {}
    for folder, subject in (
        ('language', 'phi-2'),
        ('multimodal', 'siglip-so400m_phi-2'),
    ):
        prefix = f'{folder}/matvlm'
        main = f'{prefix}/matvlm-25pct_4xb16_{subject}'
        for row, change in MATVLM.items():
            found[f'{prefix}/matvlm-{row}_{subject}'] = main, change
        for row, change in MATVLM_ROWS.items():
            found[f'{prefix}/ablations/{row}_{subject}'] = main, change
    for folder, model, tower in (
        ('language', 'llama', ''),
        ('multimodal', 'llava', 'clip-vit-l_'),
    ):
        prefix, subject = f'{folder}/transmamba', 'llama-3.2-1b'
        pure = f'{prefix}/{model}-mamba_8xb16_{subject}'
        main = f'{prefix}/{model}-mamba-hybrid-13pct-high_8xb16_{subject}'
        found[main] = pure, converted(layers='high', ratio=0.13)
        kl = new('kl', 'TokenKLTerm', weight=0.5)
        found[f'{prefix}/{model}-mamba-logits_8xb16_{subject}'] = pure, kl
        for row, change in TABLE_11.items():
            path = f'{prefix}/ablations/table11_{row}_{tower}{subject}'
            found[path] = main, change
    for stage, batch in ((2, 16), (3, 8)):
        tail = f'stage{stage}_8xb{batch}_llama-3.2-1b'
        path = f'work_dirs/linear_stage{stage - 1}_8xb16_llama-3.2-1b/student'
        linear = f'language/mmmamba/linear_{tail}'
        found[linear] = f'language/mmmamba/hybrid_{tail}', {f'{STUDENT}path': path}
    for dataset in ('cifar100', 'in100'):
        for row, change in TABLE_7.items():
            path = f'{IMAGES}/ablations/table7_{row}_{dataset}'
            found[path] = f'{IMAGES}/trans-plain-mamba-t_1xb128_{dataset}', change
    main = f'{IMAGES}/trans-plain-mamba-s_1xb128_in100'
    for percent in (25, 50, 75, 100):
        change = {'train_dataloader.dataset.proportion': percent / 100}
        found[f'{IMAGES}/ablations/table8_{percent}pct_in100'] = main, change
    for layer in (4, 8, 12):
        change = {'model.teacher_layer': layer - 1}
        found[f'{IMAGES}/ablations/table9_layer{layer}_in100'] = main, change
    return found


ROWS = rows()


def test_every_row_of_a_table_is_compared():
    assert {n for n in named('/ablations/table') if 'baseline' not in n} <= {
        f'{name}.py' for name in ROWS
    }


@pytest.mark.parametrize('row', ROWS)
def test_a_row_changes_what_it_says_and_nothing_else(row):
    main, change = ROWS[row]
    cfg, main = load(f'{row}.py'), load(f'{main}.py')
    found = changes(cfg, main)
    # A setting of the main config is not a change.
    assert found == {k: v for k, v in change.items() if k in found}
    assert change.items() <= flat(cfg.to_dict()).items()
    # Nothing is gone but terms that are switched off.
    gone = flat(main.to_dict()).keys() - flat(cfg.to_dict()).keys()
    assert all(key.startswith(tuple(k + '.' for k in change)) for key in gone)


@pytest.mark.parametrize('dataset', ['cifar100', 'in100'])
def test_the_baseline_of_table_7_has_no_teacher(dataset):
    cfg = load(f'{IMAGES}/ablations/table7_baseline_{dataset}.py')
    main = load(f'{IMAGES}/trans-plain-mamba-t_1xb128_{dataset}.py')
    assert cfg.model == main.model.student
    assert cfg.train_dataloader.dataset.proportion == 1.0
