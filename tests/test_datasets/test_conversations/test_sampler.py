"""An order of samples in which those of a batch are alike."""

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmtransmamba.datasets.conversations import LengthGroupedSampler, sampler
from mmtransmamba.datasets.conversations.sampler import deal


class Lengths:
    """Samples that are their own numbers."""

    metainfo: dict = {}

    def __init__(self, images, texts, seed=0):
        rng = np.random.default_rng(seed)
        self._lengths = rng.integers(1, 1000, images + texts)
        self._image = rng.permutation(images + texts) < images

    def lengths(self):
        return self._lengths

    def with_image(self):
        return self._image

    def __len__(self):
        return len(self._lengths)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        return index


def orders(dataset, monkeypatch, world_size, epoch=0, **kwargs):
    """The batches of each process: ``[ranks, batches, batch_size]``."""
    found = []
    for rank in range(world_size):
        monkeypatch.setattr(sampler, 'get_dist_info', lambda r=rank: (r, world_size))
        each = LengthGroupedSampler(dataset, **dict(seed=0) | kwargs)
        each.set_epoch(epoch)
        order = list(each)
        assert len(order) == len(each)
        found.append(np.reshape(order, (-1, kwargs['batch_size'])))
    return np.array(found)


@pytest.mark.parametrize('world_size', [1, 3])
@pytest.mark.parametrize('images, texts', [(70, 23), (40, 0), (0, 7), (1, 50)])
def test_batches_of_one_kind(images, texts, world_size, monkeypatch):
    dataset = Lengths(images, texts)
    found = orders(dataset, monkeypatch, world_size, batch_size=4)
    # In all processes at the same time, so that all or none use the projector.
    kind = dataset.with_image()[found]
    assert (kind == kind[:1, :, :1]).all()
    # Every sample comes, and no more than the last batches are filled up.
    counts = np.bincount(found.ravel(), minlength=len(dataset))
    assert counts.min() == 1
    together = 4 * world_size
    filled = [-n % together for n in (images, texts)]
    assert counts.sum() == images + texts + sum(filled)


def test_processes_have_alike_lengths(monkeypatch):
    dataset = Lengths(400, 0)
    found = orders(dataset, monkeypatch, 4, batch_size=8)
    words = dataset.lengths()[found].sum(-1)  # ranks x batches
    shuffled = np.random.default_rng(0).permutation(400)[:384].reshape(4, -1, 8)
    spread = words.std(0).mean()
    assert spread < 0.1 * dataset.lengths()[shuffled].sum(-1).std(0).mean()
    assert np.unique(words.argmax(0)).size > 1  # the longest is not always one's


def test_order_depends_on_seed_and_epoch(monkeypatch):
    dataset = Lengths(30, 30)

    def order(**kwargs):
        return orders(dataset, monkeypatch, 2, batch_size=3, **kwargs).tolist()

    assert order() == order()
    assert order() != order(epoch=1)
    assert order() != order(seed=1)


def test_kinds_are_mixed_over_an_epoch(monkeypatch):
    dataset = Lengths(200, 200)
    found = orders(dataset, monkeypatch, 1, batch_size=4)
    kinds = dataset.with_image()[found[0, :, 0]]
    assert 0.3 < (kinds[:-1] != kinds[1:]).mean() < 0.7


@pytest.mark.parametrize('done', [0, 5, 24, 31])
def test_resume(done):
    """After ``done`` samples, also of a later epoch, the rest comes."""
    dataset = Lengths(13, 9)

    def epochs(loader_sampler, count):
        for epoch in range(count):
            loader_sampler.set_epoch(epoch)
            yield from loader_sampler

    whole = list(epochs(LengthGroupedSampler(dataset, 3, seed=2), 4))
    resumed = LengthGroupedSampler(dataset, 3, seed=2)
    assert len(resumed) == 24
    resumed.skip(done)
    rest = list(epochs(resumed, 3))
    assert rest == whole[done : done + len(rest)]
    assert len(rest) == 72 - done % 24


def test_from_a_config():
    dataset = Lengths(10, 5)
    config = dict(
        batch_size=5,
        sampler=dict(type='mmtransmamba.LengthGroupedSampler', batch_size=5),
        collate_fn=dict(type='default_collate'),
        dataset=dataset,
    )
    with DefaultScope.overwrite_default_scope('mmengine'):
        loader = Runner.build_dataloader(config, seed=3)
    batches = [batch.tolist() for batch in loader]
    assert sorted(sum(batches, [])) == list(range(15))
    assert all(len(set(dataset.with_image()[batch])) == 1 for batch in batches)


def test_unusable():
    with pytest.raises(ValueError, match='list has no lengths'):
        LengthGroupedSampler([1, 2], 2)
    with pytest.raises(ValueError, match='batch_size=0 is not positive'):
        LengthGroupedSampler(Lengths(3, 3), 0)
    with pytest.raises(ValueError, match='the dataset has no samples'):
        LengthGroupedSampler(Lengths(0, 0), 4)


def test_deal():
    lengths = np.array([9, 1, 8, 2, 7, 3])
    hands = deal(np.arange(6) + 10, lengths, 3)
    assert sorted(hands.ravel().tolist()) == list(range(10, 16))
    assert (lengths[hands - 10].sum(1) == 10).all()
    assert lengths[hands - 10][:, 0].tolist() == [9, 8, 7]
