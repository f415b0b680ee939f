"""MOHAWK's term: matrices against dense float64 constructions of both sides."""

import pytest
import torch
from language_models import make_hybrid, make_teacher, padded, tokens

from mmtransmamba.ops import ssd_matrix, ssd_scan
from mmtransmamba.transfer import LanguageDistiller

MIXERS = ('Mamba2', 'GatedDeltaNet', 'KDA')
each = pytest.mark.parametrize('mixer', MIXERS)
TERMS = dict(matrix=dict(type='mmtransmamba.MixingMatrixTerm'))


def hybrid_of(teacher, mixer, **fields):
    """A hybrid whose decays, strengths and taps depend on the input."""
    mixer = dict(type=mixer, **fields)
    return make_hybrid(teacher, init='vkq', mixer=mixer).eval()


def ssd_dense(own, hidden):
    """Mamba-2's matrix, entry by entry, from the definition of the recurrence."""
    x, dt, B, C = (t.double() for t in own.operands(*own.parts(hidden)))
    B = own.repeated(B)
    decay = torch.exp(-dt * own.A_log.double().exp())
    batch, length, heads, _ = C.shape
    matrix = torch.zeros(batch, heads, length, length, dtype=torch.float64)
    for s in range(length):
        state = dt[:, s, :, None] * B[:, s]  # of a unit value at place s
        for t in range(s, length):
            state = state if t == s else decay[:, t, :, None] * state
            matrix[:, :, t, s] = (state * C[:, t]).sum(-1)
        if own.D is not None:
            matrix[:, :, s, s] += own.D.double()
    return matrix


def delta_dense(own, hidden):
    """The delta rule's matrix: how each step changes the memory of earlier values."""
    q, k, _, g, beta = (t.double() for t in own.operands(*own.parts(hidden)))
    k = own.repeated(k)
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    batch, length, heads, size = q.shape
    g = g.unflatten(-1, (heads, -1)).expand(-1, -1, -1, size)  # of each channel
    matrix = torch.zeros(batch, heads, length, length, dtype=torch.float64)
    for s in range(length):
        memory = beta[:, s, :, None] * k[:, s]
        for t in range(s, length):
            if t > s:
                memory = g[:, t].exp() * memory
                recalled = (memory * k[:, t]).sum(-1, keepdim=True)
                memory = memory - beta[:, t, :, None] * recalled * k[:, t]
            matrix[:, :, t, s] = (memory * q[:, t]).sum(-1) / size**0.5
    return matrix


DENSE = dict(Mamba2=ssd_dense, GatedDeltaNet=delta_dense, KDA=delta_dense)


@pytest.mark.parametrize(
    'mixer, rope',
    [*((mixer, False) for mixer in MIXERS), *((mixer, True) for mixer in MIXERS[:2])],
)
def test_the_matrix_is_the_dense_one_and_makes_the_output(mixer, rope):
    own = hybrid_of(make_teacher(), mixer, rope=rope).model.layers[0].self_attn
    hidden = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        matrix = own.mixing_matrix(hidden)
        parts = own.parts(hidden)
        turns = own.rotation(hidden)
        if not rope:
            torch.testing.assert_close(
                matrix.double(), DENSE[mixer](own, hidden), rtol=1e-4, atol=1e-5
            )
        operands = own.operands(*parts, *turns)
        values = own.repeated(operands[0 if mixer == 'Mamba2' else 2])
        expected, _ = own.recur(*parts, *turns)
        actual = torch.einsum('bhts,bshp->bthp', matrix, values.to(matrix.dtype))
    torch.testing.assert_close(
        actual.flatten(-2), expected.to(actual.dtype), rtol=1e-3, atol=1e-4
    )


def test_strong_decays_do_not_overflow():
    generator = torch.Generator().manual_seed(0)
    dt = 40 * torch.rand(1, 50, 2, generator=generator)
    A = torch.tensor([-1.0, -16.0])
    B, C = torch.randn(2, 1, 50, 2, 4, generator=generator)
    dt.requires_grad_()
    matrix = ssd_matrix(dt, A, B, C)
    x = torch.randn(1, 50, 2, 4, generator=generator)
    expected, _ = ssd_scan(x, dt, A, B, C)
    actual = torch.einsum('bhts,bshp->bthp', matrix, x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    matrix.sum().backward()
    assert dt.grad.isfinite().all()


def weights_of(teacher, layer, ids, mask):
    """Weights of the teacher's attention, from its q and k, in float64."""
    with torch.no_grad():
        hidden = teacher.model(
            ids, attention_mask=mask, output_hidden_states=True
        ).hidden_states[layer]
        own = teacher.model.layers[layer]
        attention, normed = own.self_attn, own.input_layernorm(hidden)
        q, k = (
            projection(normed).unflatten(-1, (-1, attention.head_dim))
            for projection in (attention.q_proj, attention.k_proj)
        )
        positions = torch.arange(ids.shape[1])[None]
        cos, sin = (x[:, :, None] for x in teacher.model.rotary_emb(q, positions))
        q, k = (
            x * cos + torch.cat([-x.chunk(2, -1)[1], x.chunk(2, -1)[0]], -1) * sin
            for x in (q, k)
        )
        k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
        scores = torch.einsum('bthk,bshk->bhts', q.double(), k.double())
        scores = scores / attention.head_dim**0.5
        hidden_tokens = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        hidden_tokens = hidden_tokens | ~mask.bool()[:, None, None]
        return normed, scores.masked_fill(hidden_tokens, -torch.inf).softmax(-1)


@each
@pytest.mark.parametrize('behind', [0, 3])
def test_the_loss_is_the_squared_norm_of_the_difference(mixer, behind):
    teacher = make_teacher()
    student = hybrid_of(teacher, mixer)
    batch = padded(tokens(2, 7), behind, 'right')
    expected = 0
    for layer in (0, 2):
        normed, weights = weights_of(
            teacher, layer, batch['input_ids'], batch['attention_mask']
        )
        own = student.model.layers[layer].self_attn
        with torch.no_grad():
            matrix = DENSE[mixer](own, normed)
        error = (matrix - weights).square().sum(-1).mean(1)[:, :7]
        expected += error.mean()
    distiller = LanguageDistiller(student, teacher, TERMS)
    losses = distiller(**batch, mode='loss')
    assert list(losses) == ['loss_matrix']
    torch.testing.assert_close(
        losses['loss_matrix'].double(), expected, rtol=1e-4, atol=1e-6
    )


@each
def test_padding_in_front_changes_nothing(mixer):
    teacher = make_teacher()
    distiller = LanguageDistiller(hybrid_of(teacher, mixer), teacher, TERMS)
    alone = distiller(**tokens(2, 7), mode='loss')['loss_matrix']
    batch = padded(tokens(2, 7), 4, 'left')
    shifted = distiller(**batch, mode='loss')['loss_matrix']
    torch.testing.assert_close(shifted, alone, rtol=1e-4, atol=1e-6)


@each
def test_training_brings_the_matrices_together(mixer):
    teacher = make_teacher()
    student = hybrid_of(teacher, mixer)
    distiller = LanguageDistiller(student, teacher, TERMS).train()
    batch, losses = tokens(4, 9), []
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for _ in range(25):
        loss = distiller(**batch, mode='loss')['loss_matrix']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    own = dict(student.model.layers[0].self_attn.named_parameters())
    keys = ('B_proj.weight', 'C_proj.weight', 'k_proj.weight', 'q_proj.weight')
    learned = ('A_log', 'dt_bias', 'dt_proj.weight', 'conv1d.weight', *keys)
    for name, parameter in own.items():
        has = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        if name in learned:
            assert has, name
        if name.startswith(('out_proj', 'z_proj', 'norm', 'v_proj', 'x_proj')):
            assert not has, name


@pytest.mark.parametrize('mixer', ['SlidingWindow', 'WindowGatedDeltaNet'])
def test_a_mixer_without_a_matrix_is_refused(mixer):
    teacher = make_teacher()
    student = make_hybrid(teacher, mixer=mixer)
    with pytest.raises(ValueError, match=f'layer 0 has a {mixer}Mixer, which has no'):
        LanguageDistiller(student, teacher, TERMS)


def test_other_heads_and_packed_rows_are_refused():
    teacher = make_teacher()
    other = make_teacher(num_attention_heads=2)
    with pytest.raises(ValueError, match='the student has 4 heads, the teacher 2'):
        LanguageDistiller(make_hybrid(teacher), other, TERMS)
    distiller = LanguageDistiller(make_hybrid(teacher), teacher, TERMS)
    batch = tokens(1, 8)
    batch['position_ids'] = torch.arange(4).repeat(2)[None]
    with pytest.raises(ValueError, match='position_ids that begin anew'):
        distiller(**batch, mode='loss')


@each
def test_positions_of_a_single_sequence_change_nothing(mixer):
    teacher = make_teacher()
    distiller = LanguageDistiller(hybrid_of(teacher, mixer), teacher, TERMS)
    batch = tokens()
    expected = distiller(**batch, mode='loss')['loss_matrix']
    positions = torch.arange(batch['input_ids'].shape[1]).expand_as(batch['input_ids'])
    found = distiller(**batch, position_ids=positions, mode='loss')['loss_matrix']
    torch.testing.assert_close(found, expected)
