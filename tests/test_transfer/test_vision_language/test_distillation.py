"""Training of vision-language models: teachers alone, and students under them."""

import re

import pytest
import torch
from mmengine.optim import OptimWrapper
from tiny_llavas import (
    enlarge,
    learning_batch,
    question_batch,
    save_language_model,
    save_tower,
)
from tiny_vlms import save_tiny_llava
from transformers import AutoProcessor

from mmtransmamba.models.folders import load_vlm
from mmtransmamba.models.trainable import VisionLanguageModel, vision_language_model
from mmtransmamba.models.trainable.stages import (
    LANGUAGE,
    STAGES,
    StageError,
    group_of_parameters,
    history_of,
)
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer import LanguageDistiller

VLM = 'mmtransmamba.VisionLanguageModel'
MIXER = dict(mixer=dict(type='mmtransmamba.MixerOutputTerm'))
KL = dict(kl=dict(type='mmtransmamba.TokenKLTerm'))
LAYER = dict(layer=dict(type='mmtransmamba.ForcedLayerTerm'))
TRANSMAMBA = dict(
    task=dict(type='mmtransmamba.NextTokenTerm'),
    hidden=dict(
        type='mmtransmamba.HiddenStatesTerm',
        weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
    ),
)
RECIPES = dict(
    stage1=('mimic', MIXER),
    stage2=('mimic', MIXER),
    stage3=('mimic', KL),
    matvlm=('vkq', KL | LAYER),
    transmamba=('subclone', TRANSMAMBA | KL),
)
HISTORIES = dict(stage2=['stage1'], stage3=['stage1', 'stage2'])
TRAINED = dict(
    stage1={'ssm'},
    stage2={'ssm', 'qkv'},
    stage3={'ssm', 'qkv'},
    matvlm={'ssm', 'qkv', 'out_proj', 'connector'},
    transmamba={*LANGUAGE, 'connector'} - {'other'},
    llava_pretrain={'connector'},
    llava_finetune={'attention', 'mlp', 'norms', 'embeddings', 'head', 'connector'},
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A teacher whose every part matters."""
    path = tmp_path_factory.mktemp('vlm') / 'teacher'
    save_tiny_llava(path)
    enlarge(load_vlm(path)).save_pretrained(path)
    return str(path)


def distill(folder, stage, layers=(0, 2), **kwargs):
    init, terms = RECIPES[stage]
    student = VisionLanguageModel(folder, convert=dict(layers=list(layers), init=init))
    config = student.lm.config.get_text_config()
    config.transfer_history = config.transfer_history + HISTORIES.get(stage, [])
    settings = dict(terms=terms, stage=stage) | kwargs
    return LanguageDistiller(student, VisionLanguageModel(folder), **settings)


def train(model, batches, lr=1e-2, steps=12):
    """Losses of steps over the batches, and which parameters have changed."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0)
    wrapper = OptimWrapper(optimizer)
    before = {name: p.clone() for name, p in model.named_parameters()}
    losses = []
    for step in range(steps):
        batch = batches[step % len(batches)]
        losses.append(model.train_step(batch, wrapper)['loss'].item())
    after = dict(model.named_parameters())
    changed = {n for n, p in before.items() if not torch.equal(p, after[n])}
    return losses, changed


def groups_of(model, names, prefix) -> set[str]:
    groups = group_of_parameters(model)
    return {groups[name.removeprefix(prefix)] for name in names if prefix in name}


@pytest.mark.parametrize('stage', RECIPES)
def test_every_recipe_learns_what_it_should(folder, stage):
    distiller = distill(folder, stage).train()
    batch = learning_batch()
    losses, changed = train(distiller, [batch])
    assert losses[-1] < 0.9 * losses[0]
    assert groups_of(distiller.student, changed, 'student.') == TRAINED[stage]
    trained = {n for n, p in distiller.named_parameters() if p.requires_grad}
    assert changed <= trained
    # The teacher has not moved, and is in no checkpoint.
    origin = load_vlm(folder).state_dict()
    for name, tensor in distiller.teacher.state_dict().items():
        assert torch.equal(tensor, origin[name])
    state = distiller.state_dict()
    assert {k for k in state if not k.startswith('distiller.')} == set(
        distiller.student.state_dict()
    )
    for name in origin:
        if 'vision_tower' in name:
            assert torch.equal(state[name], origin[name])


@pytest.mark.parametrize('stage', RECIPES)
def test_the_loss_depends_on_the_images(folder, stage):
    distiller = distill(folder, stage).eval()
    batch = learning_batch()
    other = batch | dict(pixel_values=batch['pixel_values'].flip(0))
    first, second = (distiller(**b, mode='loss') for b in (batch, other))
    assert any(not torch.allclose(first[key], second[key]) for key in first)


@pytest.mark.parametrize('stage', ['matvlm', 'transmamba', 'stage1'])
def test_batches_with_and_without_images(folder, stage):
    distiller = distill(folder, stage).train()
    text = learning_batch(images=False)
    losses = distiller(**text, mode='loss')
    sum(losses.values()).backward()
    # As DDP demands.
    missing = {
        n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None
    }
    assert not missing
    connector = [
        p
        for n, p in distiller.named_parameters()
        if 'multi_modal_projector' in n and p.requires_grad
    ]
    assert bool(connector) == (stage != 'stage1')
    assert all((p.grad == 0).all() for p in connector)
    distiller.zero_grad()
    losses, _ = train(distiller, [text, learning_batch()])
    assert losses[-2] < losses[0] and losses[-1] < losses[1]


@pytest.mark.parametrize('images', [True, False])
def test_a_trained_vision_tower_has_all_its_gradients(folder, images):
    """Those behind the layer that is read are zero."""
    model = VisionLanguageModel(folder, trains=['vision', 'connector']).train()
    model(**learning_batch(images=images), mode='loss')['loss_task'].backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    used = {n for n, p in trained.items() if p.grad.abs().sum() > 0}
    assert any('layers.0' in n for n in used) == images
    assert not any('layers.1' in n for n in used)


def test_terms_on_layers_alone_leave_no_gradient_out(folder):
    distiller = distill(folder, 'matvlm', terms=LAYER).train()
    sum(distiller(**learning_batch(), mode='loss').values()).backward()
    trained = [p for p in distiller.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)


@pytest.mark.parametrize('images', [True, False])
def test_parts_of_the_loss_add_up_with_images(folder, images):
    """A backward pass per layer gives the gradients of the sum."""
    batch = learning_batch(images=images)
    whole, parts = (distill(folder, 'matvlm').train() for _ in range(2))
    sum(whole(**batch, mode='loss').values()).backward()
    parts.losses(
        {k: v for k, v in batch.items() if k != 'labels'},
        batch['labels'],
        backward=lambda loss: loss.backward(),
    )
    expected = dict(whole.named_parameters())
    for name, parameter in parts.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name].grad)


def test_gradient_checkpointing(folder):
    batch, gradients = learning_batch(), []
    for checkpointing in (False, True):
        student = VisionLanguageModel(
            folder,
            convert=dict(layers=[1], init='vkq'),
            gradient_checkpointing=checkpointing,
        )
        teacher = VisionLanguageModel(folder)
        distiller = LanguageDistiller(student, teacher, KL | LAYER, 'matvlm').train()
        sum(distiller(**batch, mode='loss').values()).backward()
        gradients.append({n: p.grad for n, p in distiller.named_parameters()})
    for name, gradient in gradients[0].items():
        if gradient is not None:
            torch.testing.assert_close(gradients[1][name], gradient)


# ------------------------------------------------------------------- a model alone


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp('parts')
    return dict(
        vision=save_tower(root / 'tower'),
        language=save_language_model(root / 'lm'),
    )


@pytest.mark.parametrize('stage', ['llava_pretrain', 'llava_finetune'])
def test_llava_trains(parts, stage, monkeypatch):
    printed = []
    monkeypatch.setattr(
        vision_language_model, 'print_log', lambda text, logger: printed.append(text)
    )
    requires = 'init:llava'  # of the second stage as well
    model = VisionLanguageModel(**parts, stage=stage, requires=requires).train()
    assert f"VisionLanguageModel, stage '{stage}'" in printed[0]
    image = model.lm.config.image_token_id
    batch = learning_batch()
    batch['input_ids'][batch['input_ids'] == 4] = image
    losses, changed = train(model, [batch, batch], steps=20)
    assert losses[-1] < 0.97 * losses[0]
    assert groups_of(model.lm, changed, 'lm.') == TRAINED[stage]
    counts = dict(re.findall(r'(\w+) +([\d,]+) ', printed[0]))
    assert int(counts['vision'].replace(',', '')) == 0
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert int(counts['all'].replace(',', '')) == total


def test_stages_follow_each_other(parts, folder):
    model = VisionLanguageModel(**parts, stage='llava_pretrain')
    assert history_of(model.lm) == ['init:llava']
    with pytest.raises(StageError, match="'llava_pretrain'. The history .*init:llava"):
        VisionLanguageModel(**parts, stage='llava_finetune')
    with pytest.raises(StageError, match='Put vision tower and language model'):
        VisionLanguageModel(folder, stage='llava_pretrain')
    with pytest.raises(StageError, match="last step was 'init:subclone'"):
        VisionLanguageModel(folder, stage='transmamba')
    student = VisionLanguageModel(folder, convert=dict(layers=[1]))
    with pytest.raises(StageError, match="last step was 'stage1'"):
        LanguageDistiller(student, VisionLanguageModel(folder), MIXER, 'stage2')


def test_processor_of_a_model_put_together_is_saved(parts, tmp_path):
    model = VisionLanguageModel(**parts, seed=4)
    model.lm.save_pretrained(tmp_path)
    model.companions.save(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    image = model.lm.config.image_token_id
    assert processor.tokenizer.convert_tokens_to_ids('<image>') == image
    same = VisionLanguageModel(str(tmp_path), stage='llava_pretrain')
    for key, value in model.state_dict().items():
        assert torch.equal(same.state_dict()[key], value)


def test_groups_can_be_chosen(folder):
    model = VisionLanguageModel(folder, trains=['vision'])
    trained = {n for n, p in model.lm.named_parameters() if p.requires_grad}
    assert trained and all('vision_tower' in name for name in trained)
    everything = VisionLanguageModel(folder)
    assert all(p.requires_grad for p in everything.parameters())
    assert STAGES['transmamba'].trains == (*LANGUAGE, 'connector')


def test_every_parameter_has_its_group(folder):
    student = distill(folder, 'transmamba').student
    groups = group_of_parameters(student)
    assert 'other' not in groups.values()
    for name, group in groups.items():
        assert ('vision_tower' in name) == (group == 'vision')
        assert ('multi_modal_projector' in name) == (group == 'connector')


# ---------------------------------------------------------------------------- answers


def test_both_answer_with_their_heads(folder):
    batch = question_batch(['Red?', 'How many?'], ['no', '2'])
    head = dict(type='mmtransmamba.AnswerHead', max_new_tokens=5)
    model = MODELS.build(dict(type=VLM, path=folder, head=head)).eval()
    predictions = model.val_step(batch)
    assert [p['answer'] for p in predictions] == ['no', '2']
    assert all(len(p['text']) <= 5 for p in predictions)
    distiller = distill(folder, 'matvlm', head=head).eval()
    mine = distiller.test_step(batch)
    assert [p['question_id'] for p in mine] == ['0', '1']
    alone = VisionLanguageModel(folder, head=head)
    alone.lm = distiller.student
    assert mine == alone.eval().test_step(batch)
    # A distiller without a head of its own has the student's.
    assert distill(folder, 'matvlm').head.generation['max_new_tokens'] == 16


def test_scores_without_answers(folder):
    distiller = distill(folder, 'matvlm').eval()
    scores = distiller(**learning_batch(), mode='predict')
    assert all(score['tokens'] and score['kl'] > 0 for score in scores)
    model = VisionLanguageModel(folder)
    expected = model(**learning_batch(), mode='loss')['loss_task']
    scores = model(**learning_batch(), mode='predict')
    nll = sum(s['nll'] for s in scores) / sum(s['tokens'] for s in scores)
    assert nll == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize('mode', ['loss', 'predict', 'tensor'])
def test_places_of_images_without_images(folder, mode):
    """transformers would read them as words."""
    batch = learning_batch()
    del batch['pixel_values']
    for model in (VisionLanguageModel(folder), distill(folder, 'matvlm')):
        with pytest.raises(ValueError, match=r'image tokens .*but no "pixel_values"'):
            model.eval()(**batch, mode=mode)
        assert model(**learning_batch(images=False), mode=mode) is not None


def test_what_answers_need(folder):
    teacher = load_vlm(folder)
    student = distill(folder, 'matvlm').student
    distiller = LanguageDistiller(student, teacher, KL)
    batch = question_batch(['Red?'])
    with pytest.raises(ValueError, match='no head that could answer'):
        distiller.eval().test_step(batch)
    distiller = LanguageDistiller(
        student, teacher, KL, head=dict(type='mmtransmamba.AnswerHead')
    )
    with pytest.raises(ValueError, match='processor=FOLDER'):
        distiller.eval().test_step(batch)
    config = teacher.config.to_dict()
    model = VisionLanguageModel(config=config, processor=folder)
    assert len(model.eval().test_step(batch)) == 1


@pytest.mark.parametrize(
    'kwargs, error, message',
    [
        ({}, ValueError, 'give either path'),
        (dict(path='a', config={}), ValueError, 'give either path'),
        (dict(vision='a'), ValueError, 'both vision and language'),
        (dict(path='no/folder'), FileNotFoundError, 'no folder "no/folder"'),
        (dict(vision='no/a', language='no/b'), FileNotFoundError, 'no folder "no/a"'),
    ],
)
def test_bad_model(kwargs, error, message):
    with pytest.raises(error, match=message):
        VisionLanguageModel(**kwargs)
