"""A recipe of several stages in Runners, each from the folder of the last."""

import json

import markov_tokens  # noqa: F401 (registers its data set)
import pytest
import torch
from language_models import make_teacher
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmtransmamba.models import load_pretrained, read_state_dict
from mmtransmamba.models.trainable import CausalLM
from mmtransmamba.models.trainable.stages import StageError

MIXER = dict(type='mmtransmamba.MixerOutputTerm')
KL = dict(type='mmtransmamba.TokenKLTerm')
LM = 'mmtransmamba.CausalLM'


def data(first, count):
    return dict(
        batch_size=4,
        dataset=dict(
            type='mmtransmamba.MarkovTokens',
            vocab_size=29,
            length=12,
            num_samples=count,
            first=first,
        ),
        sampler=dict(type='InfiniteSampler' if not first else 'DefaultSampler'),
        collate_fn=dict(type='mmtransmamba.collate_tokens'),
    )


def runner_of(
    folder, student, teacher, stage, terms, iters=4, hooks=(), **kwargs
) -> Runner:
    return Runner(
        dict(
            type='mmtransmamba.LanguageDistiller',
            student=student,
            teacher=teacher,
            stage=stage,
            terms=terms,
        ),
        str(folder),
        train_dataloader=data(0, 64),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iters, val_interval=iters),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1e-2), clip_grad=dict(max_norm=5.0)
        ),
        param_scheduler=dict(type='mmtransmamba.WSD', by_epoch=False),
        val_dataloader=data(100, 8),
        val_cfg=dict(),
        val_evaluator=dict(type='mmtransmamba.TokenMetric'),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=iters),
            logger=dict(type='LoggerHook', interval=1),
            teacher=dict(type='mmtransmamba.TeacherCheckHook'),
        ),
        custom_hooks=[dict(type='mmtransmamba.SaveStudentHook'), *hooks],
        default_scope='mmpretrain',
        log_level='WARNING',
        experiment_name=f'{folder.parent.name}-{folder.name}-{iters}',
        **kwargs,
    )


@pytest.fixture(scope='module')
def teacher_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('lm') / 'teacher'
    make_teacher(tie_word_embeddings=False).save_pretrained(folder)
    (folder / 'tokenizer.json').write_text('{}')
    (folder / 'chat_template.jinja').write_text('{{ messages }}')
    return str(folder)


@pytest.fixture(scope='module')
def stages(teacher_folder, tmp_path_factory):
    """Work directories of mmMamba's three stages."""
    root = tmp_path_factory.mktemp('stages')
    student = dict(
        type=LM,
        path=teacher_folder,
        convert=dict(layers='interleaved', ratio=2 / 3, init='mimic'),
    )
    for stage in ('stage1', 'stage2', 'stage3'):
        terms = dict(kl=KL) if stage == 'stage3' else dict(mixer=MIXER)
        teacher = dict(type=LM, path=teacher_folder)
        runner_of(root / stage, student, teacher, stage, terms).train()
        student = dict(type=LM, path=str(root / stage / 'student'))
    return root


def load(folder):
    return CausalLM(path=str(folder)).lm


def test_each_stage_goes_on_from_the_last(stages):
    history = ['init:mimic']
    previous = None
    for stage in ('stage1', 'stage2', 'stage3'):
        history.append(stage)
        student = load(stages / stage / 'student')
        assert student.config.transfer_history == history
        assert student.config.mamba_layers == [1, 2]
        state = student.state_dict()
        if previous is not None:
            differ = {k for k in state if not torch.equal(state[k], previous[k])}
            assert differ
            assert all('layers.0.' not in k and '.mlp.' not in k for k in differ)
        previous = state


def test_the_model_card_names_the_stages(stages):
    card = (stages / 'stage2' / 'student' / 'README.md').read_text()
    assert '| history | init:mimic, stage1, stage2 |' in card
    assert '| inherited | ' in card
    for stage in ('stage1', 'stage2'):
        assert f'| data of {stage} | MarkovTokens |' in card
    assert card.count(' (last validation) |') == card.count('| token/') > 1
    assert str(stages) not in card


def test_folder_has_what_the_checkpoint_has(stages):
    student = load(stages / 'stage3' / 'student').state_dict()
    state = read_state_dict(stages / 'stage3' / 'iter_4.pth')
    assert set(state) == set(student)
    assert all(torch.equal(state[key], student[key]) for key in state)
    assert (stages / 'stage3' / 'student' / 'config.json').is_file()
    # Only a student that came from a folder with a tokenizer has one.
    assert (stages / 'stage1' / 'student' / 'tokenizer.json').read_text() == '{}'
    assert (stages / 'stage3' / 'student' / 'tokenizer.json').read_text() == '{}'
    assert (stages / 'stage3' / 'student' / 'chat_template.jinja').is_file()
    assert not list(stages.rglob('*.partial'))


@pytest.mark.parametrize(
    'ema',
    [
        dict(momentum=0.3),
        dict(momentum=0.3, update_buffers=True),
        dict(momentum=0.3, begin_iter=4),  # the last iteration
        dict(momentum=0.3, interval=3),
        dict(ema_type='StochasticWeightAverage'),
        dict(ema_type='MomentumAnnealingEMA', gamma=3),
    ],
    ids=str,
)
def test_folder_has_the_averaged_weights(ema, teacher_folder, tmp_path):
    student = dict(type=LM, path=teacher_folder, convert=dict(layers=[1], init='vkq'))
    teacher = dict(type=LM, path=teacher_folder)
    runner = runner_of(
        tmp_path / 'run',
        student,
        teacher,
        None,
        dict(kl=KL),
        hooks=[dict(type='EMAHook', **ema)],
    )
    runner.train()
    saved = load(tmp_path / 'run' / 'student').state_dict()
    state = read_state_dict(tmp_path / 'run' / 'iter_4.pth')
    assert set(saved) == set(state)
    assert all(torch.equal(saved[key], state[key]) for key in state)
    # The model itself goes on with its own weights.
    live = runner.model.student.state_dict()
    averaged = any(not torch.equal(live[key], saved[key]) for key in saved)
    assert averaged == ('begin_iter' not in ema)  # else the first is a copy
    file = torch.load(tmp_path / 'run' / 'iter_4.pth', weights_only=False)
    own = {k.removeprefix('module.'): v for k, v in file['ema_state_dict'].items()}
    assert all(torch.equal(live[key], own[key]) for key in live)


def test_what_is_logged(stages, teacher_folder):
    records = [
        json.loads(line)
        for path in (stages / 'stage3').glob('*/vis_data/scalars.json')
        for line in path.read_text().splitlines()
    ]
    names = {name for record in records for name in record}
    assert {'loss', 'loss_kl', 'lr', 'grad_norm', 'token/kl', 'token/ppl'} <= names
    assert [r['lr'] for r in records if 'lr' in r][-1] == 0  # the decay is reached
    (teacher,) = (r for r in records if 'teacher/token/ppl' in r)
    expected = runner_of(
        stages / 'alone',
        dict(type=LM, path=teacher_folder, convert=dict(layers=[1])),
        dict(type=LM, path=teacher_folder),
        None,
        dict(kl=KL),
    )
    expected.model.student = expected.model.teacher
    metrics = expected.val()
    assert teacher['teacher/token/ppl'] == pytest.approx(metrics['token/ppl'])
    assert teacher['teacher/token/accuracy'] == metrics['token/accuracy']


def test_a_later_stage_does_not_start_from_an_earlier_folder(stages, teacher_folder):
    student = dict(type=LM, path=str(stages / 'stage1' / 'student'))
    teacher = dict(type=LM, path=teacher_folder)
    with pytest.raises(StageError, match='init:mimic > stage1'):
        runner_of(stages / 'x', student, teacher, 'stage3', dict(kl=KL))


def second_stage(stages, teacher_folder, folder, **kwargs) -> Runner:
    student = dict(type=LM, path=str(stages / 'stage1' / 'student'))
    teacher = dict(type=LM, path=teacher_folder)
    terms = dict(mixer=MIXER)
    return runner_of(folder, student, teacher, 'stage2', terms, **kwargs)


@pytest.mark.parametrize(
    'of, resume, accepted',
    [
        ('stage1', False, True),  # what it starts from
        ('stage2', False, True),
        ('stage3', False, False),
        ('stage1', True, False),
        ('stage3', True, False),
    ],
)
def test_a_stage_takes_no_checkpoint_of_another(
    stages, teacher_folder, tmp_path, of, resume, accepted
):
    runner = second_stage(stages, teacher_folder, tmp_path / 'run', resume=resume)
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    file = stages / of / 'iter_4.pth'
    if accepted:
        runner.load_checkpoint(str(file))
        state = read_state_dict(file)
        assert all(
            torch.equal(v, state[k]) for k, v in runner.model.state_dict().items()
        )
        return
    with pytest.raises(StageError) as caught:
        runner.load_checkpoint(str(file))
    history = ' > '.join(
        ['init:mimic', 'stage1', 'stage2', 'stage3'][: int(of[-1]) + 1]
    )
    what = 'resume from' if resume else 'load'
    assert f"'stage2' cannot {what} a checkpoint of {history};" in str(caught.value)
    after = runner.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_a_checkpoint_without_a_history_is_loaded(stages, teacher_folder, tmp_path):
    """Weights from elsewhere; whether they fit the model is looked at all the same."""
    state = read_state_dict(stages / 'stage3' / 'iter_4.pth')
    torch.save(dict(state_dict=state), tmp_path / 'weights.pth')
    runner = second_stage(stages, teacher_folder, tmp_path / 'run')
    runner.load_checkpoint(str(tmp_path / 'weights.pth'))
    loaded = runner.model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_a_work_dir_of_another_stage_is_not_resumed(stages, teacher_folder):
    """Its last iteration is this one's, too: nothing would be trained."""
    runner = second_stage(stages, teacher_folder, stages / 'stage1', resume=True)
    with pytest.raises(StageError, match='a work_dir of its own'):
        runner.train()
    history = load(stages / 'stage1' / 'student').config.transfer_history
    assert history == ['init:mimic', 'stage1']


def test_resumed_stage_is_saved_once(stages, teacher_folder, tmp_path):
    student = dict(type=LM, path=str(stages / 'stage2' / 'student'))
    teacher = dict(type=LM, path=teacher_folder)
    for iters, resume in ((4, False), (6, True)):
        runner_of(
            tmp_path / 'run',
            student,
            teacher,
            'stage3',
            dict(kl=KL),
            iters,
            resume=resume,
        ).train()
    saved = load(tmp_path / 'run' / 'student')
    assert saved.config.transfer_history == ['init:mimic', 'stage1', 'stage2', 'stage3']
    short = load(stages / 'stage3' / 'student').state_dict()
    name = 'model.layers.1.self_attn.x_proj.weight'
    assert not torch.equal(saved.state_dict()[name], short[name])
    report = load_pretrained(saved, tmp_path / 'run' / 'iter_6.pth')
    assert not report.missing


def alone(model, folder) -> Runner:
    return Runner(
        model,
        str(folder),
        train_dataloader=data(0, 8),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[dict(type='mmtransmamba.SaveStudentHook', folder='model')],
        default_hooks=dict(checkpoint=None),
        log_level='ERROR',
        experiment_name=folder.name,
    )


def test_a_model_without_teacher_is_saved(teacher_folder, tmp_path):
    runner = alone(dict(type=LM, path=teacher_folder), tmp_path)
    runner.train()
    saved = load(tmp_path / 'model')
    assert saved.config.transfer_history == ['finetuned']
    trained = runner.model.lm.state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in saved.state_dict().items())
    assert not torch.equal(saved.lm_head.weight, load(teacher_folder).lm_head.weight)
    assert (tmp_path / 'model' / 'tokenizer.json').read_text() == '{}'


class NoLanguage(BaseModel):
    """A model that transformers cannot save."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, mode, **_):
        return dict(loss=self.weight.sum())


def test_other_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match='the model is not a LanguageDistiller'):
        alone(NoLanguage(), tmp_path).train()
