"""Stages: what they train, and what they refuse to start from."""

import re

import pytest
import torch
from language_models import make_hybrid, make_teacher, tokens
from mmengine.optim import OptimWrapper

from mmtransmamba.models.trainable.stages import (
    GROUPS,
    StageError,
    group_of_parameters,
)
from mmtransmamba.transfer import LanguageDistiller
from mmtransmamba.transfer.distillers import language

MIXER = dict(mixer=dict(type='mmtransmamba.MixerOutputTerm'))
KL = dict(kl=dict(type='mmtransmamba.TokenKLTerm'))
SSM = {'A_log', 'dt_bias', 'dt_proj', 'conv1d', 'z_proj', 'norm', 'D'}
QKV = {'x_proj', 'B_proj', 'C_proj', 'B_norm', 'C_norm'}
TERMS = dict(stage1=MIXER, stage2=MIXER, stage3=KL, matvlm=KL, transmamba=KL)
HISTORIES = dict(
    stage1=['init:mimic'],
    stage2=['init:mimic', 'stage1'],
    stage3=['init:mimic', 'stage1', 'stage2'],
    matvlm=['init:vkq'],
    transmamba=['init:subclone'],
)


def student_of(teacher, history, init='mimic', **fields):
    student = make_hybrid(teacher, init=init, **fields)
    student.config.transfer_history = list(history)
    return student


def distill(stage, family='llama', history=None, **kwargs):
    teacher = make_teacher(family)
    history = HISTORIES[stage] if history is None else history
    init = history[0].removeprefix('init:') if history else 'mimic'
    student = student_of(teacher, history, init=init)
    return LanguageDistiller(student, teacher, TERMS[stage], stage=stage, **kwargs)


def changed_by_a_step(distiller) -> set[str]:
    before = {name: p.clone() for name, p in distiller.student.named_parameters()}
    # Weight decay would change even what gets no gradient, if it were trained.
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=0.1, weight_decay=0.5)
    wrapper = OptimWrapper(optimizer)
    for seed in range(2):  # dt_proj is zero at first and holds gradients back
        distiller.train_step(tokens(seed=seed), wrapper)
    return {
        name
        for name, p in distiller.student.named_parameters()
        if not torch.equal(p, before[name])
    }


def parts(names) -> set[str]:
    """Which parts of the converted layers' mixers, and what else."""
    names = list(names)
    mixers = [re.search(r'layers\.[02]\.self_attn\.(\w+)', name) for name in names]
    return {m[1] if m else name for m, name in zip(mixers, names, strict=True)}


@pytest.mark.parametrize('family', ['llama', 'phi', 'qwen3'])
@pytest.mark.parametrize('stage', HISTORIES)
def test_what_a_stage_trains(stage, family):
    distiller = distill(stage, family)
    student = distiller.student
    names = {name for name, _ in student.named_parameters()}
    trained = changed_by_a_step(distiller)
    assert trained == {n for n, p in student.named_parameters() if p.requires_grad}
    mixers = {n for n in names if re.search(r'layers\.[02]\.self_attn', n)}
    if stage == 'transmamba':
        assert trained == names
        return
    kept = {
        'stage1': QKV | {'out_proj'},
        'stage2': {'out_proj'},
        'stage3': {'out_proj'},
        'matvlm': set(),
    }[stage]
    assert trained == {n for n in mixers if not parts([n]) & kept}
    assert parts(trained) & SSM
    biases = {'phi': True, 'llama': False, 'qwen3': False}[family]
    if stage == 'stage2':
        assert any(n.endswith('x_proj.bias') for n in trained) == biases
        assert any('B_norm' in n for n in trained) == (family == 'qwen3')


@pytest.mark.parametrize('init', ['mimic', 'vkq', 'subclone'])
@pytest.mark.parametrize('family', ['llama', 'phi'])
def test_every_parameter_has_its_group(family, init):
    teacher = make_teacher(family)
    student = make_hybrid(teacher, init=init)
    groups = group_of_parameters(student)
    assert set(groups) == {name for name, _ in student.named_parameters()}
    assert 'other' not in groups.values()
    mixers = parts(n for n, g in groups.items() if g in ('ssm', 'qkv', 'out_proj'))
    assert mixers == {
        n.split('.')[0] for n, _ in student.model.layers[0].self_attn.named_parameters()
    }
    for name, group in (
        ('model.embed_tokens.weight', 'embeddings'),
        ('model.layers.1.self_attn.q_proj.weight', 'attention'),
        ('model.layers.0.input_layernorm.weight', 'norms'),
        ('model.layers.0.self_attn.out_proj.weight', 'out_proj'),
        ('model.layers.0.self_attn.conv1d.weight', 'ssm'),
    ):
        assert groups[name] == group
    assert ('head' in groups.values()) == (family == 'phi')  # Llama's is tied
    # Mamba-1's x_proj makes dt, B and C, and has nothing of v.
    x_proj = groups['model.layers.0.self_attn.x_proj.weight']
    assert x_proj == ('ssm' if init == 'subclone' else 'qkv')


def test_the_table_is_printed(monkeypatch):
    printed = []
    monkeypatch.setattr(
        language, 'print_log', lambda text, logger: printed.append(text)
    )
    distiller = distill('stage1')
    (table,) = printed
    assert "LanguageDistiller, stage 'stage1'" in table
    counts = {}
    for line in table.splitlines():
        found = re.match(r'(\w+)\s+([\d,]+)\s+([\d,]+)  ', line)
        if found:
            counts[found[1]] = [int(n.replace(',', '')) for n in found.groups()[1:]]
    params = list(distiller.student.parameters())
    trained = sum(p.numel() for p in params if p.requires_grad)
    total = sum(p.numel() for p in params)
    assert counts.pop('all') == [trained, total - trained]
    assert counts['ssm'] == [trained, 0]
    assert counts['mlp'][0] == 0 < counts['mlp'][1]
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == [
        trained,
        total - trained,
    ]
    assert set(counts) < set(GROUPS)


def test_groups_can_be_chosen():
    distiller = distill('stage3', trains=['ssm', 'qkv', 'out_proj'])
    assert 'out_proj' in parts(changed_by_a_step(distiller))
    distiller = distill('stage3', trains=['mlp'])
    assert all('.mlp.' in name for name in changed_by_a_step(distiller))
    with pytest.raises(StageError, match=r"names \['lora'\]; groups are ssm, qkv"):
        distill('stage3', trains=['lora'])
    with pytest.raises(StageError, match='nothing would be trained'):
        distill('stage3', trains=['connector'])


# -------------------------------------------------------------------------- histories


@pytest.mark.parametrize(
    'stage, history, needed',
    [
        ('stage1', [], 'init:mimic'),
        ('stage1', ['init:scratch'], 'init:mimic'),
        ('stage1', ['init:mimic', 'stage1'], 'init:mimic'),
        ('stage2', ['init:mimic'], "'stage1'"),
        ('stage3', ['init:mimic', 'stage1'], "'stage2'"),
        ('stage3', ['init:mimic'], "'stage2'"),
        ('matvlm', ['init:scratch'], 'init:vkq'),
        ('transmamba', ['init:vkq'], 'init:subclone'),
    ],
)
def test_a_stage_refuses_the_wrong_student(stage, history, needed):
    with pytest.raises(StageError) as caught:
        distill(stage, history=history)
    message = str(caught.value)
    assert repr(stage) in message
    assert needed in message
    assert (' > '.join(history) or 'empty') in message
    last = history[-1] if history else ''
    assert f'requires={last!r}' in message
    assert ('Run the stage before' in message) == (stage in ('stage2', 'stage3'))
    # What the message advises works.
    distill(stage, history=history, requires=last)


def test_a_transformer_is_no_student():
    teacher = make_teacher()
    with pytest.raises(StageError, match='empty: no tool of this package made it'):
        LanguageDistiller(make_teacher(), teacher, KL, stage='stage3')


def test_patterns():
    distill('stage3', history=['init:mimic', 'stage1'], requires=['stage*'])
    distill('stage1', history=[], requires='*')
    with pytest.raises(StageError):
        distill('stage3', history=['init:mimic'], requires=['stage*'])


def test_unknown_stage():
    with pytest.raises(StageError, match="stage='stage4' must be one of stage1"):
        LanguageDistiller(make_hybrid(make_teacher()), make_teacher(), KL, 'stage4')


def test_a_stage_of_ones_own_needs_what_it_trains_and_requires():
    student, teacher = make_hybrid(make_teacher()), make_teacher()
    distiller = LanguageDistiller(
        student, teacher, KL, 'mine', trains=['qkv'], requires='init:mimic'
    )
    assert distiller.stage == 'mine'
    with pytest.raises(StageError, match="Stage 'mine' needs trains"):
        LanguageDistiller(student, teacher, KL, 'mine', requires='init:mimic')
    with pytest.raises(StageError, match="'stage1'. The history of this one is init:m"):
        LanguageDistiller(
            student, teacher, KL, 'mine', trains=['qkv'], requires='stage1'
        )
