"""Ranks in blocks against the whole matrix, by definition and by mmaction's metric."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmtransmamba.evaluation import TextVideoRetrievalMetric, retrieval_ranks
from mmtransmamba.evaluation.retrieval_ranks import rank_pairs
from mmtransmamba.registry import METRICS


def embeddings(count, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=-1)


def data(videos=40, captions=None, seed=0, noise=0.5):
    """Captions near their videos, and which video each is of."""
    video = embeddings(videos, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    of = torch.arange(videos)
    if captions is not None:
        more = torch.randint(videos, (captions - videos,), generator=generator)
        of = torch.cat((of, more))[torch.randperm(captions, generator=generator)]
    around = torch.randn(len(of), 8, generator=generator)
    return F.normalize(video[of] + noise * around, dim=-1), video, of


def samples_of(texts, videos, of, named=True):
    return [
        dict(
            video_feat=video,
            text_feat=texts[of == i],
            **(dict(video_id=f'v{i}') if named else {}),
        )
        for i, video in enumerate(videos)
    ]


def evaluate(samples, **kwargs):
    metric = METRICS.build(dict(type='mmtransmamba.TextVideoRetrievalMetric', **kwargs))
    # In two batches, as a loop gives them.
    metric.process(None, samples[:3])
    metric.process(None, samples[3:])
    return metric.evaluate(len(samples))


def naive(texts, videos, of):
    """First right answer of every query in its sorted row of the whole matrix."""
    matrix = (texts @ videos.T).numpy()
    found = {'t2v': [], 'v2t': []}
    for i, row in enumerate(matrix):
        order = np.argsort(-row)
        found['t2v'].append(1 + int(np.where(order == int(of[i]))[0][0]))
    for j, column in enumerate(matrix.T):
        right = (of.numpy() == j)[np.argsort(-column)]
        found['v2t'].append(1 + int(np.argmax(right)))
    metrics = {}
    for direction, ranks in found.items():
        ranks = np.array(ranks)
        for k in (1, 5, 10):
            metrics[f'retrieval/{direction}_R@{k}'] = 100 * float(np.mean(ranks <= k))
        metrics[f'retrieval/{direction}_MdR'] = float(np.median(ranks))
        metrics[f'retrieval/{direction}_MeanR'] = float(np.mean(ranks))
    return metrics


@pytest.mark.parametrize('captions', [None, 90])
@pytest.mark.parametrize('block_size', [1, 7, 16, 2048])
def test_equals_sorting_the_whole_matrix(captions, block_size):
    texts, videos, of = data(captions=captions)
    expected = naive(texts, videos, of)
    assert 20 < expected['retrieval/t2v_R@1'] < 80  # neither trivial nor hopeless
    found = evaluate(samples_of(texts, videos, of), block_size=block_size)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize('direction', ['t2v', 'v2t'])
def test_equals_mmactions_metric(direction):
    pytest.importorskip('mmaction')
    from mmaction.evaluation import RetrievalMetric

    texts, videos, of = data(60, noise=0.8)
    theirs = RetrievalMetric()
    first, second = (texts, videos) if direction == 't2v' else (videos, texts)
    theirs.process(
        None,
        [
            dict(features=dict(text_feature=t, video_feature=v))
            for t, v in zip(first, second, strict=True)
        ],
    )
    expected = theirs.compute_metrics(theirs.results)
    found = evaluate(samples_of(texts, videos, of))
    for mine, name in (
        ('R@1', 'R1'),
        ('R@5', 'R5'),
        ('R@10', 'R10'),
        ('MdR', 'MdR'),
        ('MeanR', 'MnR'),
    ):
        assert found[f'retrieval/{direction}_{mine}'] == pytest.approx(expected[name])


def test_features_need_not_have_length_one():
    texts, videos, of = data()
    lengths = torch.linspace(0.1, 9, len(videos))[:, None]
    found = evaluate(samples_of(texts * lengths.flip(0), videos * lengths, of))
    assert found == pytest.approx(naive(texts, videos, of))


def test_samples_of_one_video_are_put_together():
    texts, videos, of = data(12, captions=30)
    expected = evaluate(samples_of(texts, videos, of))
    single = [
        dict(video_feat=videos[v], text_feat=t[None], video_id=f'v{v}')
        for t, v in zip(texts, of.tolist(), strict=True)
    ]
    assert evaluate(single) == pytest.approx(expected)
    # Without names every sample is a video of its own.
    unnamed = [{k: v for k, v in s.items() if k != 'video_id'} for s in single]
    alone = evaluate(unnamed)
    assert alone != pytest.approx(expected)
    whole = samples_of(texts, videos, of, named=False)
    assert evaluate(whole) == pytest.approx(expected)


class TestTies:
    """Equal similarities have no order; a rank is the mean over all orders."""

    @pytest.mark.parametrize('block_size', [2, 64])
    def test_a_model_that_says_the_same_of_everything_is_at_chance(self, block_size):
        same = embeddings(1).expand(20, -1)
        metrics = evaluate(
            samples_of(same, same, torch.arange(20)), block_size=block_size
        )
        for direction in ('t2v', 'v2t'):
            for k in (1, 5, 10):
                chance = metrics[f'retrieval/{direction}_R@{k}']
                assert chance == pytest.approx(100 * k / 20)
            assert metrics[f'retrieval/{direction}_MeanR'] == pytest.approx(10.5)
            assert metrics[f'retrieval/{direction}_MdR'] == pytest.approx(10.5)

    def test_expectations_are_those_over_all_orders(self):
        """Two right captions and three wrong ones level, one wrong above, one below."""
        east, north = torch.eye(2)
        level = F.normalize(east + north, dim=0)
        texts = torch.stack([level] * 5 + [east, north])
        videos = torch.stack([east, north])
        of = torch.tensor([0, 0, 1, 1, 1, 1, 1])
        _, to_text = rank_pairs(texts, videos, of)
        assert (to_text.better[0], to_text.tied[0], to_text.right[0]) == (1, 3, 2)
        firsts = [
            2 + min(order.index(0), order.index(1))
            for order in itertools.permutations(range(5))
        ]
        assert to_text.expected()[0] == pytest.approx(np.mean(firsts))
        alone = retrieval_ranks.Ranks(
            to_text.better[:1], to_text.tied[:1], to_text.right[:1]
        )
        for k in range(1, 8):
            share = 100 * np.mean(np.array(firsts) <= k)
            assert alone.recall(k) == pytest.approx(share)

    def test_the_order_of_the_data_does_not_matter(self):
        """Captions that repeat, as those of a generated set may."""
        texts, videos, of = data(12)
        texts = texts[torch.arange(12) // 3 * 3]
        order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
        found = evaluate(samples_of(texts, videos, of))
        other = evaluate(samples_of(texts[order], videos[order], of), block_size=5)
        assert found == pytest.approx(other)


def test_memory_is_bounded_by_the_blocks(monkeypatch):
    texts, videos, of = data(100, captions=240)
    seen = []
    blocks = retrieval_ranks.similarity_blocks

    def counted(*args):
        for rows, columns, block in blocks(*args):
            assert block.shape == (
                rows.stop - rows.start,
                columns.stop - columns.start,
            )
            seen.append(block.numel())
            yield rows, columns, block

    monkeypatch.setattr(retrieval_ranks, 'similarity_blocks', counted)
    largest = []
    with _LargestTensor(largest):
        rank_pairs(texts, videos, of, block_size=16)
    assert max(seen) == 16 * 16 and sum(seen) == 240 * 100
    # Nothing else grows with the product of the numbers either.
    assert max(largest) <= texts.numel()


class _LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the size of every tensor that any operation makes."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.sizes.extend(
            t.numel()
            for t in torch.utils._pytree.tree_leaves(out)
            if isinstance(t, torch.Tensor)
        )
        return out


class TestRefusals:
    """Embeddings that cannot be ranked are refused."""

    def test_a_video_without_caption(self):
        texts, videos, of = data(4)
        with pytest.raises(ValueError, match='1 of 5 videos have no caption.*number 4'):
            evaluate(samples_of(texts, torch.cat((videos, videos[:1])), of))

    def test_not_finite(self):
        texts, videos, of = data(4)
        texts[2] = torch.nan
        with pytest.raises(ValueError, match='of 1 of 4 captions are not finite'):
            evaluate(samples_of(texts, videos, of))

    def test_several_widths(self):
        texts, videos, of = data(4)
        width = texts.shape[1]
        with pytest.raises(
            ValueError, match=rf'one width, not \[{width - 1}, {width}\]'
        ):
            evaluate(samples_of(texts, videos[:, 1:], of))

    def test_nothing(self):
        with pytest.raises(ValueError, match='not one video'):
            TextVideoRetrievalMetric().compute_metrics([])

    @pytest.mark.parametrize('bad', [dict(block_size=0), dict(recall_at=(0, 1))])
    def test_bad_settings(self, bad):
        with pytest.raises(ValueError, match='must be at least 1'):
            TextVideoRetrievalMetric(**bad)
