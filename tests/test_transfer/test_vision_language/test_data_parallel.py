"""Two processes, one of which has batches without images."""

import pytest
import torch
import vlm_ranks
from processes import spawn_ranks


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('ranks')
    spawn_ranks(vlm_ranks.run, 2, str(path))
    return path


@pytest.mark.parametrize('kind', vlm_ranks.KINDS)
def test_processes_learn_what_one_with_all_batches_does(folder, kind):
    first, second = (torch.load(folder / f'{kind}-{rank}.pth') for rank in range(2))
    expected = vlm_ranks.train(kind, None)
    for key, value in expected.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-5, msg=key)
    start = vlm_ranks.enlarge(vlm_ranks.tiny_llava()).state_dict()
    name = 'model.multi_modal_projector.linear_1.weight'
    assert not torch.equal(expected[name], start[name])
