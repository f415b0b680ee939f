"""The contrastive loss: its value, its scale, and its gradient over two processes."""

import math

import pytest
import torch
import torch.nn.functional as F
from processes import spawn_ranks
from retrieval_ranks import MODELS_TO_COMPARE, SPLIT, run_rank, step, whole_batch
from tiny_retrievers import STUDENT

from mmtransmamba.models.retrieval import ContrastiveLoss, PairEmbeddings
from mmtransmamba.models.retrieval.contrastive import MAX_SCALE
from mmtransmamba.models.retrieval.gather import gather_rows
from mmtransmamba.models.retrieval.pairs import ids_as_numbers
from mmtransmamba.registry import MODELS


def pairs(count=4, scale=5.0):
    generator = torch.Generator().manual_seed(0)
    video, text = torch.randn(2, count, 8, generator=generator)
    return PairEmbeddings(
        F.normalize(video, dim=-1), F.normalize(text, dim=-1), torch.tensor(scale)
    )


def test_value_is_that_of_the_formula():
    p = pairs()
    similarity = (p.scale * p.text @ p.video.T).exp()
    right = similarity.diag()
    expected = -(
        (right / similarity.sum(0)).log() + (right / similarity.sum(1)).log()
    ).mean()
    torch.testing.assert_close(ContrastiveLoss()(p), expected / 2)


def test_value_is_clips():
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    p = pairs()
    logits, transposed = p.logits()
    torch.testing.assert_close(logits.T, transposed)
    expected = image_text_contrastive_loss(logits)
    torch.testing.assert_close(ContrastiveLoss()(p), expected)


def test_autocast_leaves_the_similarities_in_float32():
    p = pairs(scale=100.0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = ContrastiveLoss()(p)
        assert (p.text @ p.video.T).dtype == torch.bfloat16
    assert torch.equal(found, ContrastiveLoss()(p))


def test_another_pair_of_the_video_is_no_wrong_answer():
    p = pairs()
    ids = ['a', 'b', 'a', 'c']
    loss = ContrastiveLoss()(p, ids)
    logits, _ = p.logits()
    expected = 0.0
    for i in range(4):
        others = [j for j in range(4) if j == i or ids[j] != ids[i]]
        for row in (logits[i, others], logits[others, i]):
            expected = expected + row.logsumexp(0) - logits[i, i]
    torch.testing.assert_close(loss, expected / 8)
    assert loss < ContrastiveLoss()(p)


def test_names_become_the_same_numbers_everywhere():
    numbers = ids_as_numbers(['video7', 'video8', 'video7'], torch.device('cpu'))
    assert numbers[0] == numbers[2] != numbers[1]


class TestScale:
    """The learned factor of the cosines."""

    @pytest.mark.parametrize('own, expected', [(2.0, math.exp(2.0)), (9.0, MAX_SCALE)])
    def test_starts_from_the_models_own_within_its_bound(self, own, expected):
        loss = ContrastiveLoss()
        loss.start_from(torch.tensor(own))
        assert loss.scale().item() == pytest.approx(expected)

    def test_is_learned_within_its_bound(self):
        loss = ContrastiveLoss()
        loss.start_from(torch.tensor(90.0).log())
        aligned = F.normalize(torch.eye(4), dim=-1)
        optimizer = torch.optim.SGD(loss.parameters(), lr=2000.0)
        scales = []
        for text in (aligned, aligned, -aligned, -aligned):
            scale = loss.scale()
            scales.append(scale.item())
            optimizer.zero_grad()
            loss(PairEmbeddings(aligned, text, scale)).backward()
            optimizer.step()
        # Right pairs raise it to the bound, where it stays; wrong ones lower it.
        assert scales[0] == pytest.approx(90.0, rel=1e-3)
        assert max(scales) <= MAX_SCALE + 1e-3 and scales[-1] < 90.0

    def test_is_spared_by_weight_decay(self):
        from mmtransmamba.engine.optimizers import NoWeightDecayConstructor

        build = NoWeightDecayConstructor(
            dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.2))
        )
        model = MODELS.build(STUDENT)
        decay = {
            id(p): group['weight_decay']
            for group in build(model).optimizer.param_groups
            for p in group['params']
        }
        assert decay[id(model.contrast.log_scale)] == 0
        assert decay[id(model.video_projection.weight)] == 0.2


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """Results of two processes with their parts of one batch."""
    folder = tmp_path_factory.mktemp('ranks')
    spawn_ranks(run_rank, str(folder), nprocs=len(SPLIT))
    return [torch.load(folder / f'rank{r}.pt') for r in range(len(SPLIT))]


@pytest.mark.parametrize('name', MODELS_TO_COMPARE)
def test_two_processes_are_one_with_the_whole_batch(ranks, name):
    loss, gradients = step(MODELS_TO_COMPARE[name](), whole_batch())
    assert sum(r[name][0] for r in ranks) / 2 == pytest.approx(loss, rel=1e-5)
    for rank in ranks:
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(
                rank[name][1][parameter], gradient, atol=1e-5, rtol=1e-4, msg=parameter
            )
    assert sum(bool(g.any()) for g in gradients.values()) > len(gradients) - 3


def test_rows_come_from_all_ranks_and_gradients_go_back(ranks):
    for rank, found in enumerate(ranks):
        rows, begin, gradient = found['rows']
        assert rows[:, 0].tolist() == [0, 0, 0, 1, 1]
        assert begin == sum(SPLIT[:rank])
        # 1 times the first rank's loss, 2 times the second's.
        expected = 3 * torch.arange(5.0)[begin : begin + SPLIT[rank]]
        assert torch.equal(gradient[:, 0], expected)


def test_without_process_group_rows_are_returned_as_they_are():
    rows = torch.rand(2, 3)
    gathered, begin = gather_rows(rows)
    assert gathered is rows and begin == 0
