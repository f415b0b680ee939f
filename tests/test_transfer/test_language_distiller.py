"""The distiller of language models: losses, gradients, memory, state dict."""

from contextlib import contextmanager

import pytest
import torch
from language_models import make_hybrid, make_teacher, padded, teacher_config, tokens
from mmengine.optim import OptimWrapper
from torch import nn
from torch.nn import functional as F

from mmtransmamba.models import token_losses
from mmtransmamba.models.trainable import CausalLM
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer import LanguageDistiller

ADAPTIVE = dict(type='mmtransmamba.AdaptiveWeighting')
MIXER = dict(type='mmtransmamba.MixerOutputTerm')
HEADS = dict(MIXER, at='heads', weight=2)
LAYER = dict(type='mmtransmamba.ForcedLayerTerm')
KL = dict(type='mmtransmamba.TokenKLTerm')
TASK = dict(type='mmtransmamba.NextTokenTerm')
HIDDEN = dict(type='mmtransmamba.HiddenStatesTerm', weighting=ADAPTIVE)

RECIPES = {
    'mmmamba layers': dict(mixer=MIXER),
    'mmmamba heads': dict(mixer=HEADS),
    'matvlm': dict(kl=KL, layer=LAYER),
    'transmamba': dict(task=TASK, hidden=HIDDEN, kl=dict(KL, weight=0.5)),
    'two on each layer': dict(mixer=MIXER, layer=LAYER, task=TASK),
}


def distill(terms, family='llama', teacher=None, **kwargs) -> LanguageDistiller:
    teacher = teacher or make_teacher(family)
    student = kwargs.pop('student', None) or make_hybrid(teacher)
    return LanguageDistiller(student, teacher, terms, **kwargs)


def loss_of(distiller, batch) -> dict:
    return distiller(**batch, mode='loss')


def gradients(distiller) -> dict:
    return {
        name: p.grad.clone()
        for name, p in distiller.named_parameters()
        if p.grad is not None
    }


# ------------------------------------------------------------------------- the losses


def test_per_token_kl_and_task_loss():
    distiller = distill(dict(kl=dict(KL, weight=3.0, temperature=2.0), task=TASK))
    batch = tokens()
    batch['labels'][:, :4] = -100  # a prompt
    losses = loss_of(distiller, batch)
    ids = batch['input_ids']
    s, t = (
        model(input_ids=ids).logits[:, 3:-1].double()
        for model in (distiller.student, distiller.teacher)
    )
    log_s, log_t = ((x / 2).log_softmax(-1) for x in (s, t))
    kl = 4 * (log_t.exp() * (log_t - log_s)).sum(-1)
    assert kl.shape == (2, 5)
    assert losses['loss_kl'].item() == pytest.approx(3 * kl.mean().item(), rel=1e-4)
    task = F.cross_entropy(s.transpose(1, 2), ids[:, 4:])
    assert losses['loss_task'].item() == pytest.approx(task.item(), rel=1e-5)
    assert set(losses) == {'loss_kl', 'loss_task'}


def test_kl_does_not_grow_with_length():
    teacher = make_teacher()
    distiller = distill(dict(kl=KL), teacher=teacher)
    short, long = (loss_of(distiller, tokens(8, n))['loss_kl'] for n in (8, 32))
    assert long < 2 * short


@pytest.mark.parametrize('family', ['llama', 'phi', 'qwen3'])
def test_mixers_get_the_teachers_input(family):
    teacher = make_teacher(family)
    distiller = distill(dict(mixer=dict(MIXER, weight=2.0)), teacher=teacher)
    student, batch = distiller.student, tokens()
    seen = {}
    handles = [
        layer.self_attn.register_forward_hook(
            lambda m, args, kwargs, out, i=i: seen.update(
                {i: (kwargs['hidden_states'], out[0])}
            ),
            with_kwargs=True,
        )
        for i, layer in enumerate(teacher.model.layers)
    ]
    with torch.no_grad():
        teacher(batch['input_ids'])
    for handle in handles:
        handle.remove()
    expected = 0
    for i in (0, 2):
        given, wanted = seen[i]
        expected += F.mse_loss(student.model.layers[i].self_attn(given)[0], wanted)
    found = loss_of(distiller, batch)['loss_mixer']
    assert found.item() == pytest.approx(2 * expected.item(), rel=1e-5)
    # The teacher's own attention makes no error: only what is in between can differ.
    for i in (0, 2):
        student.model.layers[i].self_attn = Attention(teacher, seen[i])
    assert loss_of(distiller, batch)['loss_mixer'] == pytest.approx(0, abs=1e-10)


class Attention(nn.Module):
    """Stands for a mixer that does exactly what the attention did."""

    def __init__(self, teacher, seen) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, hidden_states, padding_mask=None):
        assert torch.allclose(hidden_states, self.seen[0], atol=1e-6)
        return self.seen[1], None


@pytest.mark.parametrize('family', ['llama', 'phi', 'qwen3'])
def test_comparison_before_the_output_projection(family):
    """With a projection of the identity both points of comparison are the same."""
    teacher = make_teacher(family)
    with torch.no_grad():
        for layer in teacher.model.layers:
            out = layer.self_attn.dense if family == 'phi' else layer.self_attn.o_proj
            out.weight.copy_(torch.eye(16))
            if out.bias is not None:
                out.bias.zero_()
    before = distill(dict(mixer=dict(MIXER, at='heads')), teacher=teacher)
    after = distill(dict(mixer=MIXER), teacher=teacher)
    batch = tokens()
    found = loss_of(before, batch)['loss_mixer']
    assert found.item() == pytest.approx(
        loss_of(after, batch)['loss_mixer'].item(), rel=1e-5
    )
    found.backward()
    mixer = before.student.model.layers[0].self_attn
    assert mixer.out_proj.weight.grad is None
    assert mixer.x_proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('family', ['llama', 'phi', 'qwen3'])
def test_layers_get_the_teachers_hidden_states(family):
    teacher = make_teacher(family)
    student = make_hybrid(teacher, layers=[0, 1])
    distiller = distill(dict(layer=LAYER), teacher=teacher, student=student)
    batch = tokens()
    with torch.no_grad():
        hidden = teacher(batch['input_ids'], output_hidden_states=True).hidden_states
    expected = sum(
        (student.model.layers[i](hidden[i]) - hidden[i + 1]).norm(dim=-1).mean()
        for i in (0, 1)
    )
    found = loss_of(distiller, batch)['loss_layer']
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize('weighting', ['Uniform', 'LayerIndex', 'Adaptive'])
def test_cosines_of_the_free_running_layers(weighting):
    teacher = make_teacher()
    term = dict(HIDDEN, weighting=dict(type=f'mmtransmamba.{weighting}Weighting'))
    distiller = distill(dict(hidden=term), teacher=teacher)
    batch = tokens()
    losses = loss_of(distiller, batch)
    hidden = [
        model(batch['input_ids'], output_hidden_states=True).hidden_states
        for model in (distiller.student, teacher)
    ]
    cosines = [
        1 - F.cosine_similarity(s, t, dim=-1).mean()
        for s, t in zip(*(h[1:-1] for h in hidden), strict=True)
    ]
    (weights,) = distiller.layer_weights().values()
    assert weights.shape == (3,)
    assert weights.sum() == pytest.approx(3)
    last = losses['loss_hidden'] - (weights[:2] * torch.stack(cosines)).sum()
    assert 0 < last < 2 * weights[2]
    assert ('loss_hidden_entropy' in losses) == (weighting == 'Adaptive')


def test_narrower_and_shallower_student_is_aligned():
    teacher = make_teacher()
    student = make_hybrid(
        teacher,
        layers=[0, 1],
        init='subclone',
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
    )
    distiller = distill(
        dict(hidden=HIDDEN, kl=KL, task=TASK), teacher=teacher, student=student
    )
    term = distiller.terms['hidden']
    assert term.teacher_layers == [2, 2]  # Eq. 5: the last one for all
    assert [a.weight.shape for a in term.aligners] == [(16, 8)] * 2
    sum(loss_of(distiller, tokens()).values()).backward()
    assert all(a.weight.grad.abs().sum() > 0 for a in term.aligners)


@pytest.mark.parametrize('side', ['left', 'right'])
@pytest.mark.parametrize('recipe', RECIPES)
def test_padding_does_not_count(recipe, side):
    distiller = distill(RECIPES[recipe])
    plain, more = tokens(), padded(tokens(), 5, side)
    expected, found = loss_of(distiller, plain), loss_of(distiller, more)
    for key, value in expected.items():
        assert found[key].item() == pytest.approx(value.item(), rel=1e-3), key


@pytest.mark.parametrize('masked', [True, False])
@pytest.mark.parametrize('recipe', RECIPES)
def test_sequences_may_be_packed(recipe, masked):
    distiller = distill(RECIPES[recipe])
    rows = tokens(batch=2)
    packed = {key: value.reshape(1, -1).clone() for key, value in rows.items()}
    packed['labels'][0, 9] = -100  # would be predicted from the row before
    packed['position_ids'] = torch.arange(9).repeat(2)[None]
    if masked:
        packed = padded(packed, 5, 'right')
    else:
        del packed['attention_mask']
    expected, found = loss_of(distiller, rows), loss_of(distiller, packed)
    for key, value in expected.items():
        assert found[key].item() == pytest.approx(value.item(), rel=1e-4), key
    scores = [distiller(**batch, mode='predict') for batch in (rows, packed)]
    for name in ('nll', 'kl'):
        totals = [sum(row[name] for row in score) for score in scores]
        assert totals[1] == pytest.approx(totals[0], rel=1e-4)


@pytest.mark.parametrize(
    'positions',
    [
        [0, 1, 2, *range(3, 12), *range(9), 0],
        [7, 7, 7, *range(9), *range(9), 9],
        [*range(12), *range(9), 9],
        [-3, -2, -1, *range(9), *range(9), 1],
    ],
)
def test_the_teacher_keeps_padding_out_of_packed_sequences(positions):
    distiller = distill(dict(kl=KL, task=TASK))
    rows = tokens(batch=2)
    packed = {key: value.reshape(1, -1).clone() for key, value in rows.items()}
    packed['labels'][0, 9] = -100
    packed = padded(padded(packed, 3, 'left'), 1, 'right')
    packed['position_ids'] = torch.tensor([positions])
    expected, found = loss_of(distiller, rows), loss_of(distiller, packed)
    for key, value in expected.items():
        assert found[key].item() == pytest.approx(value.item(), rel=1e-4), key


def test_rows_may_share_their_positions():
    distiller = distill(dict(kl=KL, task=TASK))
    batch = tokens(batch=2)
    batch['position_ids'] = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3]]).repeat(2, 1)
    expected = loss_of(distiller, batch)
    batch['position_ids'] = batch['position_ids'][:1]
    for key, value in loss_of(distiller, batch).items():
        assert value.item() == pytest.approx(expected[key].item(), rel=1e-6), key


def test_the_teacher_does_not_split_where_positions_jump():
    distiller = distill(dict(kl=KL, task=TASK))
    batch = tokens(batch=2)
    batch['position_ids'] = torch.tensor([[0, 1, 2, 3, 9, 10, 11, 12, 13]]).repeat(2, 1)
    masked = loss_of(distiller, batch)
    del batch['attention_mask']
    for key, value in loss_of(distiller, batch).items():
        assert value.item() == pytest.approx(masked[key].item(), rel=1e-6), key
    calls = []
    distiller.teacher.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True
    )
    loss_of(distiller, batch)
    assert calls[0]['attention_mask'].all()


@pytest.mark.parametrize('kind', ['a jump', 'padding'])
def test_packed_sequences_that_the_teacher_cannot_read_are_named(kind):
    distiller = distill(dict(kl=KL, task=TASK))
    batch = {k: v.reshape(1, -1).clone() for k, v in tokens(batch=2).items()}
    batch['position_ids'] = torch.arange(9).repeat(2)[None]
    if kind == 'a jump':
        batch['position_ids'][0, 4:9] += 5
    else:
        batch['attention_mask'][0, 4] = 0
    with pytest.raises(ValueError, match='position_ids of a packed sequence jump'):
        loss_of(distiller, batch)


def test_long_batches_are_compared_in_chunks(monkeypatch):
    distiller = distill(dict(kl=KL, task=TASK))
    results = []
    for chunk in (1000, 3):
        monkeypatch.setattr(token_losses, 'CHUNK', chunk)
        distiller.zero_grad()
        losses = loss_of(distiller, tokens())
        sum(losses.values()).backward()
        results.append((losses, gradients(distiller)))
    (whole, whole_grad), (parts, parts_grad) = results
    for key in whole:
        assert parts[key].item() == pytest.approx(whole[key].item(), rel=1e-5)
    torch.testing.assert_close(parts_grad, whole_grad)


# ---------------------------------------------------------- a backward pass per layer


class HalfPrecisionWrapper(OptimWrapper):
    """Autocast and loss scaling as in ``AmpOptimWrapper``, which wants a GPU."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield

    def backward(self, loss, **kwargs):
        super().backward(loss * 1024, **kwargs)

    def step(self, **kwargs):
        for group in self.optimizer.param_groups:
            for p in group['params']:
                if p.grad is not None:
                    p.grad /= 1024
        super().step(**kwargs)


def sgd(distiller, wrapper=OptimWrapper, **kwargs) -> OptimWrapper:
    optimizer = torch.optim.SGD([*distiller.parameters()], lr=0.1)
    return wrapper(optimizer, **kwargs)


def whole_step(distiller, batch, wrapper) -> dict:
    """One iteration with a single backward pass of the sum, as mmengine has it."""
    with wrapper.optim_context(distiller):
        losses = loss_of(distiller, batch)
    total, log_vars = distiller.parse_losses(losses)
    wrapper.update_params(total)
    return log_vars


def train(recipe, step, batches, wrapper=OptimWrapper, **kwargs):
    """Parameters and what was logged after some iterations."""
    distiller = distill(RECIPES[recipe]).train()
    wrapper = sgd(distiller, wrapper, **kwargs)
    wrapper.initialize_count_status(distiller, 0, len(batches))
    logs = [step(distiller, batch, wrapper) for batch in batches]
    assert wrapper.inner_count == len(batches)
    return distiller, logs


def split_step(distiller, batch, wrapper) -> dict:
    return distiller.train_step(batch, wrapper)


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(clip_grad=dict(max_norm=0.01)),
        dict(accumulative_counts=2),
        dict(wrapper=HalfPrecisionWrapper, clip_grad=dict(max_norm=0.01)),
    ],
    ids=['plain', 'clipped', 'accumulated', 'half precision'],
)
@pytest.mark.parametrize('recipe', RECIPES)
def test_the_same_step_as_with_one_backward_pass(recipe, options):
    batches = [tokens(seed=i) for i in range(3)]
    whole, whole_logs = train(recipe, whole_step, batches, **options)
    split, split_logs = train(recipe, split_step, batches, **options)
    moved = False
    start = dict(distill(RECIPES[recipe]).named_parameters())
    for (name, a), b in zip(whole.named_parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
        moved |= not torch.equal(a, start[name])
    assert moved
    window = options.get('accumulative_counts', 1)
    for end, log in enumerate(split_logs, start=1):
        if end % window and end < len(batches):
            assert log == {}  # what is accumulated is logged with the step
            continue
        # The batches have equally many tokens.
        parts = whole_logs[(end - 1) // window * window : end]
        assert list(log) == list(parts[0])
        for key, value in log.items():
            mean = sum(part[key].item() for part in parts) / len(parts)
            assert value.item() == pytest.approx(mean, rel=1e-4)
            assert not value.requires_grad


@contextmanager
def saved_bytes():
    """The most that graphs keep for their backward passes, and what is kept now."""

    class Kept:
        def __init__(self, tensor) -> None:
            self.tensor = tensor
            self.size = tensor.numel() * tensor.element_size()
            record['now'] += self.size
            record['peak'] = max(record['peak'], record['now'])

        def __del__(self) -> None:
            record['now'] -= self.size

    record = dict(now=0, peak=0)
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        yield record


@pytest.mark.parametrize('term', [MIXER, HEADS, LAYER], ids=['mixer', 'heads', 'layer'])
def test_one_layers_graph_at_a_time(term):
    def peak(num_layers, step):
        teacher = make_teacher(num_hidden_layers=num_layers)
        student = make_hybrid(teacher, layers=range(num_layers))
        distiller = distill(dict(x=term), teacher=teacher, student=student).train()
        wrapper = sgd(distiller)
        with saved_bytes() as record:
            step(distiller, tokens(), wrapper)
        assert record['now'] == 0
        return record['peak']

    assert peak(6, split_step) == peak(2, split_step) > 0
    assert peak(6, whole_step) > 2.9 * peak(2, whole_step)
    assert peak(2, whole_step) > 1.9 * peak(2, split_step)


def test_gradient_checkpointing_changes_nothing(tmp_path):
    make_teacher().save_pretrained(tmp_path / 'teacher')
    results = []
    for checkpointing in (False, True):
        student = CausalLM(
            path=str(tmp_path / 'teacher'),
            convert=dict(layers=[0, 2], init='mimic'),
            gradient_checkpointing=checkpointing,
        )
        terms = dict(hidden=HIDDEN, kl=KL, layer=LAYER, mixer=MIXER)
        teacher = CausalLM(path=str(tmp_path / 'teacher'))
        torch.manual_seed(0)  # of the weighting's network
        distiller = LanguageDistiller(student, teacher, terms).train()
        with saved_bytes() as record:
            sum(loss_of(distiller, tokens(4, 32)).values()).backward()
        results.append((record['peak'], gradients(distiller)))
    (peak, plain), (less, recomputed) = results
    torch.testing.assert_close(plain, recomputed)
    assert less < 0.8 * peak


def test_faded_terms_are_left_out():
    distiller = distill(dict(mixer=MIXER, hidden=HIDDEN, task=TASK))
    for name in ('mixer', 'hidden'):
        distiller.terms[name].scale = 0.0
    losses = loss_of(distiller, tokens())
    assert losses['loss_mixer'] == losses['loss_hidden'] == 0
    assert losses['loss_task'] > 0
    distiller.terms['mixer'].scale = 0.5
    half = loss_of(distiller, tokens())['loss_mixer']
    distiller.terms['mixer'].scale = 1.0
    full = loss_of(distiller, tokens())['loss_mixer']
    assert full.item() == pytest.approx(2 * half.item())


# ------------------------------------------------------------- student and teacher


def test_state_dict_is_the_students():
    distiller = distill(dict(hidden=HIDDEN, kl=KL))
    state = distiller.state_dict()
    own = {key for key in state if not key.startswith('distiller.')}
    assert own == set(distiller.student.state_dict())
    assert any(key.startswith('distiller.terms.hidden.weighting') for key in state)
    again = distill(
        dict(hidden=HIDDEN, kl=KL), student=make_hybrid(distiller.teacher, seed=3)
    )
    again.load_state_dict(state)
    for a, b in zip(again.parameters(), distiller.parameters(), strict=True):
        assert torch.equal(a, b)


def test_teacher_stays_as_it_is():
    distiller = distill(RECIPES['matvlm'])
    teacher = distiller.teacher
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    assert not any(p is q for p in distiller.parameters() for q in teacher.parameters())
    distiller.train()
    assert not teacher.training
    distiller.train_step(tokens(), sgd(distiller))
    for name, parameter in teacher.named_parameters():
        assert not parameter.requires_grad
        assert torch.equal(parameter, before[name])
    assert not any(
        m._forward_hooks or m._forward_pre_hooks
        for model in (teacher, distiller.student)
        for m in model.modules()
    )
    distiller.to(torch.float64)
    assert next(teacher.parameters()).dtype == torch.float64


@pytest.mark.parametrize('recipe', RECIPES)
def test_teacher_in_half_precision(recipe):
    reference = loss_of(distill(RECIPES[recipe]), tokens())
    teacher = make_teacher().to(torch.bfloat16)
    student = make_hybrid(make_teacher())
    distiller = distill(RECIPES[recipe], teacher=teacher, student=student)
    losses = loss_of(distiller, tokens())
    for key, value in losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(reference[key].item(), rel=0.1, abs=0.02)


def test_built_from_a_config(tmp_path):
    distiller = MODELS.build(
        dict(
            type='mmtransmamba.LanguageDistiller',
            student=dict(
                type='mmtransmamba.CausalLM',
                config=teacher_config(),
                convert=dict(layers='interleaved', ratio=2 / 3),
            ),
            teacher=dict(type='mmtransmamba.CausalLM', config=teacher_config()),
            terms=dict(kl=KL, mixer=None),
            stage='stage1',
        )
    )
    assert list(distiller.terms) == ['kl']
    assert distiller.student.config.transfer_history == ['init:mimic']
    embedding = distiller.student.get_input_embeddings().weight
    assert torch.equal(embedding, distiller.teacher.get_input_embeddings().weight)


def test_initialisation_by_the_runner_draws_nothing_anew():
    distiller = distill(dict(kl=KL))
    model = CausalLM(config=teacher_config())
    for module in (distiller, model):
        before = {name: p.clone() for name, p in module.named_parameters()}
        module.init_weights()
        assert all(torch.equal(p, before[n]) for n, p in module.named_parameters())


def test_scores_beside_the_teachers():
    distiller = distill(dict(kl=KL))
    batch = tokens()
    scores = distiller(**batch, mode='predict')
    assert len(scores) == 2
    kl = sum(s['kl'] for s in scores) / sum(s['tokens'] for s in scores)
    loss = loss_of(distiller, batch)['loss_kl'].item()
    assert kl == pytest.approx(loss, rel=1e-4)
    distiller.compare = False
    assert 'kl' not in distiller(**batch, mode='predict')[0]
    logits = distiller(**batch)
    assert logits.shape == (2, 9, 29)


# --------------------------------------------------------------------------- CausalLM


def test_language_model_alone(tmp_path):
    teacher = make_teacher()
    teacher.save_pretrained(tmp_path / 'lm')
    model = CausalLM(path=str(tmp_path / 'lm'))
    assert set(model.state_dict()) == set(teacher.state_dict())
    batch = tokens()
    expected = teacher(**batch).loss.item()
    assert model(**batch, mode='loss')['loss_task'].item() == pytest.approx(expected)
    scores = model(**batch, mode='predict')
    nll = sum(s['nll'] for s in scores) / sum(s['tokens'] for s in scores)
    assert nll == pytest.approx(expected, rel=1e-5)
    other = CausalLM(config=teacher_config(), seed=4)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(**batch), model(**batch))


def test_random_language_model_depends_on_its_seed_alone():
    torch.manual_seed(5)
    first = CausalLM(config=teacher_config(), seed=1).state_dict()
    torch.manual_seed(6)
    second = CausalLM(config=teacher_config(), seed=1).state_dict()
    third = CausalLM(config=teacher_config(), seed=2).state_dict()
    name = 'model.layers.0.mlp.up_proj.weight'
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], third[name])


def test_half_precision_leaves_the_ssm_parameters(tmp_path):
    make_teacher().save_pretrained(tmp_path / 'lm')
    model = CausalLM(
        path=str(tmp_path / 'lm'), convert=dict(init='mimic'), dtype='bfloat16'
    )
    mixer = model.lm.model.layers[0].self_attn
    assert mixer.x_proj.weight.dtype == torch.bfloat16
    assert mixer.A_log.dtype == mixer.dt_bias.dtype == torch.float32


@pytest.mark.parametrize(
    'kwargs, error, message',
    [
        (dict(path='no/folder'), FileNotFoundError, 'no folder "no/folder"'),
        ({}, ValueError, 'give either path, a folder, or config'),
        (dict(path='a', config=dict()), ValueError, 'give either path'),
    ],
)
def test_bad_language_model(kwargs, error, message):
    with pytest.raises(error, match=message):
        CausalLM(**kwargs)


# ------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    'terms, fields, message',
    [
        (dict(), {}, 'terms is empty'),
        (dict(kl=None), {}, 'terms is empty'),
        (dict(kl=dict(KL, temperature=0)), {}, 'temperature=0 must be greater'),
        (dict(mixer=dict(MIXER, at='gate')), {}, "at='gate' must be one of projected"),
        (
            dict(mixer=dict(MIXER, weight=-1)),
            {},
            'weight=-1 must be a number, and neither negative',
        ),
        (
            dict(mixer=MIXER),
            dict(num_hidden_layers=2, layers=[0]),
            'the student has 2 layers, the teacher 3',
        ),
        (
            dict(mixer=HEADS),
            dict(init='subclone', mixer=dict(expand=2.0), layers=[0]),
            'in layer 0 that is 32 channels wide in the student and 16',
        ),
    ],
)
def test_terms_that_cannot_be_used(terms, fields, message):
    teacher = make_teacher()
    fields = dict(fields)
    if 'num_hidden_layers' in fields:
        fields['init'] = 'subclone'
    student = make_hybrid(teacher, **fields)
    with pytest.raises(ValueError, match=message):
        distill(terms, teacher=teacher, student=student)


def test_student_without_mamba_layers():
    with pytest.raises(ValueError, match='the student has no Mamba layer'):
        distill(dict(mixer=MIXER), student=CausalLM(config=teacher_config()))


def test_other_vocabulary():
    with pytest.raises(ValueError, match='the student knows 29 tokens, the teacher 31'):
        distill(
            dict(kl=KL),
            teacher=make_teacher(vocab_size=31),
            student=make_hybrid(make_teacher()),
        )


def test_without_a_stage_what_the_student_has_frozen_stays_frozen():
    student = make_hybrid(make_teacher())
    student.get_input_embeddings().requires_grad_(False)
    distiller = distill(dict(kl=KL), student=student)
    frozen = {n for n, p in distiller.student.named_parameters() if not p.requires_grad}
    assert frozen == {'model.embed_tokens.weight'}
    distill(dict(kl=KL), student=student, trains=['embeddings'])
    assert student.get_input_embeddings().weight.requires_grad
