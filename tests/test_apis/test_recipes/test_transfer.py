"""Whole transfers: what they write, and that they go on where they were killed."""

import json
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from processes import PRELOAD
from tiny_transfers import transfer, transfer_killed, write_files
from transformers import AutoModelForCausalLM

import mmtransmamba
from mmtransmamba.apis.configs import config_folder
from mmtransmamba.apis.recipes import run as module
from mmtransmamba.apis.recipes.report import _change
from mmtransmamba.visualization.report.reading import read_run


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp('files'))


def same(one, other) -> bool:
    states = [
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (one, other)
    ]
    return states[0].keys() == states[1].keys() and all(
        torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()
    )


HISTORIES = {
    'mmmamba': ['init:mimic', 'stage1', 'stage2', 'stage3'],
    'calibrated': ['init:calibrate', 'align', 'kl'],
}


@pytest.mark.parametrize('recipe', HISTORIES)
def test_a_transfer_ends_with_student_scores_and_report(files, tmp_path, recipe):
    shown = []
    result = transfer(
        *(files, tmp_path / 'out', recipe), tokens=4096, show=shown.append
    )
    model = AutoModelForCausalLM.from_pretrained(result.student)
    assert model.config.transfer_history == HISTORIES[recipe]
    assert (result.student / 'tokenizer.json').is_file()
    steps = ['converted', *HISTORIES[recipe][1:]]
    assert list(result.scores) == steps == list(result.seconds)
    assert all(proof.tokens == 3 * 15 for proof in result.scores.values())
    assert shown[0] == str(result.plan) and recipe in shown[0]
    page = result.report.read_text()
    for step in steps:
        assert f'{result.scores[step].kl:.4f}' in page and f'>{step}<' in page
    assert page.count('<svg') >= 3
    # Each stage is validated several times on the way.
    for number, stage in enumerate(result.plan.stages, 1):
        run = read_run(result.out / f'{number}_{stage.name}')
        points = [step for step, _ in run.metrics['token/kl']]
        assert points[-1] == stage.steps and len(points) >= min(stage.steps, 4)
    assert not list((tmp_path / 'out').rglob('*.pth'))


def test_the_student_is_closer_to_its_teacher_than_before(files, tmp_path):
    result = transfer(files, tmp_path / 'out', 'matvlm', tokens=4096)
    before, after = (result.scores[step].kl for step in ('converted', 'matvlm'))
    assert after < before / 2


def test_killed_anywhere_it_ends_with_the_same_student(files, tmp_path):
    """In a stage of layers, and in a stage of adapters."""
    recipe, tokens, stages = 'lolcats', 192, ('1_align', '2_recover')
    whole = transfer(files, tmp_path / 'whole', recipe, tokens=tokens)
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([*PRELOAD, 'mmtransmamba.apis.recipes'])
    out, codes = tmp_path / 'killed', []
    for kill_at in (12, 24, None):
        process = context.Process(
            target=transfer_killed, args=(files, out, recipe, tokens, kill_at)
        )
        process.start()
        process.join(300)
        codes.append(process.exitcode)
    assert codes == [-signal.SIGKILL] * 2 + [0]
    starts = [len(list((out / stage).glob('*/vis_data'))) for stage in stages]
    assert starts == [2, 2]  # each was interrupted once
    assert same(out / 'student', whole.student)
    scores = [json.loads((p / 'scores.json').read_text()) for p in (out, whole.out)]
    assert scores[0]['scores'] == scores[1]['scores']
    assert scores[0]['seconds'].keys() == scores[1]['seconds'].keys()


def test_a_finished_transfer_is_not_repeated(files, tmp_path, monkeypatch):
    first = transfer(files, tmp_path / 'out', 'matvlm')

    def never(*args, **kwargs):
        raise AssertionError('done again')

    for name in ('measure', 'prove', 'write_model'):
        monkeypatch.setattr(module, name, never)
    monkeypatch.setattr('mmtransmamba.apis.experiment.build_runner', never)
    second = transfer(files, tmp_path / 'out', 'matvlm')
    assert (second.scores, second.seconds) == (first.scores, first.seconds)


def test_a_plan_trains_nothing_and_is_kept(files, tmp_path, monkeypatch):
    plan = mmtransmamba.transfer_lm(
        *(files / 'teacher', files / 'tokens.npz', tmp_path / 'out', 'radlads'),
        tokens=6000,
        only_plan=True,
        show=lambda text: None,
    )
    assert [stage.name for stage in plan.stages] == ['align', 'kl']
    first, second = plan.stages
    assert second.tokens == pytest.approx(5 * first.tokens, rel=0.05)
    assert plan.tokens == pytest.approx(6000, rel=0.05)
    assert second.trained > first.trained > 0
    assert second.bytes > first.bytes and plan.seconds > 0
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {'request.json', 'plan.json'}
    monkeypatch.setattr(module, 'measure', None)  # it is not measured again
    again = transfer(files, tmp_path / 'out', 'radlads', tokens=6000, only_plan=True)
    assert again == plan


def test_another_request_is_refused(files, tmp_path):
    transfer(files, tmp_path / 'out', 'matvlm', only_plan=True)
    (tmp_path / 'out' / 'converted').mkdir()  # it has begun
    for options, words in (
        (dict(tokens=1024), 'holds a transfer with tokens=512, not 1024'),
        (dict(layers=[1]), r'layers=None, not \[1\]'),
        (dict(seed=1), 'seed=0, not 1'),
    ):
        with pytest.raises(ValueError, match=words):
            transfer(files, tmp_path / 'out', 'matvlm', **options)
    with pytest.raises(ValueError, match="recipe='matvlm', not 'mmmamba'"):
        transfer(files, tmp_path / 'out', 'mmmamba')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'mine').touch()
    with pytest.raises(ValueError, match='is not empty and holds no transfer'):
        transfer(files, tmp_path / 'full', 'matvlm')


def test_plans_can_be_tried_until_one_is_begun(files, tmp_path):
    out = tmp_path / 'out'
    first = transfer(files, out, 'matvlm', only_plan=True)
    for recipe, options in (
        *(('radlads', dict(tokens=6000)), ('matvlm', dict(tokens=6000))),
        ('matvlm', dict(layers=[1])),
    ):
        other = transfer(files, out, recipe, only_plan=True, **options)
        assert other != first
        assert transfer(files, out, recipe, only_plan=True, **options) == other
    again = transfer(files, out, 'matvlm', only_plan=True)
    assert [stage.steps for stage in again.stages] == [s.steps for s in first.stages]


@pytest.mark.parametrize('name', ['teacher/model.safetensors', 'tokens.npz'])
def test_files_that_changed_since_the_beginning_are_named(files, tmp_path, name):
    shutil.copytree(files, tmp_path / 'files')
    out = tmp_path / 'out'
    transfer(tmp_path / 'files', out, 'matvlm', only_plan=True)
    os.utime(tmp_path / 'files' / name)
    transfer(tmp_path / 'files', out, 'matvlm', only_plan=True)
    (out / 'converted').mkdir()
    os.utime(tmp_path / 'files' / name)
    changed = tmp_path / 'files' / name.partition('/')[0]
    with pytest.raises(ValueError, match=f'^{changed} has changed since the transfer'):
        transfer(tmp_path / 'files', out, 'matvlm')


@pytest.mark.parametrize('name', ['data', 'val'])
@pytest.mark.parametrize('token', [-100, -1, 258, 10**6])
def test_ids_that_the_teacher_does_not_have_are_told_before_anything_is_done(
    files, tmp_path, name, token
):
    with np.load(files / 'tokens.npz') as there:
        tokens = there['tokens'].astype(np.int64)
    tokens[-1, -1] = token
    file = tmp_path / 'wrong.npz'
    np.savez(file, tokens=tokens)
    message = f'wrong.npz has the token id {token}; the teacher has the ids 0 to 257'
    with pytest.raises(ValueError, match=message):
        transfer(files, tmp_path / 'out', 'matvlm', **{name: file})
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'schedule, words',
    [
        (
            'warmup=100',
            'stage stage1, schedule: WSD: warmup=100 and decay=0.1 are 100',
        ),
        ('warmup=0.6, decay=0.6', 'schedule: WSD: warmup=0.6 and decay=0.6'),
        ('warmup="x"', "WSD: warmup='x' must be a part of the training"),
    ],
)
def test_a_schedule_that_does_not_fit_is_told_before_anything_is_done(
    files, tmp_path, schedule, words
):
    file = tmp_path / 'short.py'
    base = config_folder() / '_base_' / 'recipes' / 'language' / 'mmmamba.py'
    file.write_text(f'_base_ = {str(base)!r}\nschedule = dict({schedule})\n')
    (tmp_path / 'empty').mkdir()
    for out in ('new', 'empty'):
        with pytest.raises(ValueError, match=words):
            transfer(files, tmp_path / out, str(file))
    assert not (tmp_path / 'new').exists()
    # What failed did not claim the folder.
    assert not list((tmp_path / 'empty').iterdir())
    file.write_text(f'_base_ = {str(base)!r}\nschedule = dict(warmup=0.1)\n')
    transfer(files, tmp_path / 'empty', str(file), only_plan=True)


@pytest.mark.parametrize(
    'first, last, scores, words',
    [
        *((2, 1, 3, 'fell from 2'), (1, 2, 3, 'rose from 1'), (1, 1, 1, 'is 1')),
        (1, 1, 2, 'stayed 1'),
    ],
)
def test_the_report_says_what_became_of_the_divergence(first, last, scores, words):
    assert _change(first, last, scores).startswith(words)


def test_keys_of_texts_are_refused_with_token_ids(files, tmp_path):
    for options in (dict(prompt_key='question'), dict(text_key='body')):
        with pytest.raises(ValueError, match='goes with texts in a .jsonl file; .*npz'):
            transfer(files, tmp_path / 'out', 'matvlm', **options)


def test_keys_of_texts_are_read_where_one_of_two_files_has_texts(files, tmp_path):
    plan = transfer(
        *(files, tmp_path / 'out', 'matvlm'),
        val=files / 'text.jsonl',
        prompt_key='question',
        only_plan=True,
    )
    assert plan.held_out > 0


def test_text_is_learned_with_its_prompts_masked(files, tmp_path):
    recipe = tmp_path / 'both.py'
    recipe.write_text(
        f"_base_ = '{config_folder()}/_base_/recipes/language/matvlm.py'\n"
        'stages = [dict(stage, name=name, completion_only=only) for stage in '
        "_base_.stages for name, only in (('all', False), ('answers', True))]\n"
    )
    result = transfer(
        *(files, tmp_path / 'out', str(recipe)),
        data=files / 'text.jsonl',
        prompt_key='question',
    )
    learned = {}
    for number, name in ((1, 'all'), (2, 'answers')):
        config = (result.out / f'{number}_{name}' / 'experiment.py').read_text()
        learned[name] = f'learn_prompts={name == "all"}' in config
    assert learned == {'all': True, 'answers': True}
    # Prompts are not scored either.
    assert result.scores['all'].tokens < result.plan.held_out - len('What')
    assert result.student.is_dir()


def test_layers_are_chosen_by_their_cost(files, tmp_path):
    shown = []
    result = transfer(
        files, tmp_path / 'out', 'matvlm', layers='auto', ratio=0.4, show=shown.append
    )
    assert any('rank  layer' in text for text in shown)
    ranking = json.loads((result.out / 'converted/layer_ranking.json').read_text())
    model = AutoModelForCausalLM.from_pretrained(result.student)
    assert model.config.mamba_layers == ranking['order'][:1]


def test_a_file_of_a_ranking_chooses_the_layers(files, tmp_path):
    path = tmp_path / 'ranking.json'
    path.write_text(json.dumps(dict(order=[2, 1, 0])))
    given = dict(layers=str(path), ratio=0.4, only_plan=True)
    plan = transfer(files, tmp_path / 'out', 'matvlm', **given)
    assert '1 of 3 layers' in str(plan)
    path.write_text(json.dumps(dict(order=[2])))
    with pytest.raises(ValueError, match='has 1 layers, but 3 are to be converted'):
        transfer(files, tmp_path / 'other', 'matvlm', **given | dict(ratio=1.0))


def test_a_file_of_heads_is_counted_in_heads(files, tmp_path):
    path = tmp_path / 'ranking.json'
    order = [[layer, head] for layer in range(3) for head in range(2)]
    path.write_text(json.dumps(dict(order=order, unit='heads')))
    given = dict(layers=str(path), ratio=0.5, only_plan=True)
    plan = transfer(files, tmp_path / 'out', 'matvlm', **given)
    assert '3 of 6 key-value heads' in str(plan)


def test_a_vision_language_model_is_refused(tmp_path, files):
    from tiny_vlms import save_tiny_llava

    save_tiny_llava(tmp_path / 'vlm')
    with pytest.raises(ValueError, match='is a vision-language model'):
        mmtransmamba.transfer_lm(
            tmp_path / 'vlm', files / 'tokens.npz', tmp_path / 'out'
        )
    assert not (tmp_path / 'out').exists()
