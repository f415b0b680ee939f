"""Scan orders against the published models' and against their own definition."""

import numpy as np
import pytest
import torch

from mmtransmamba.ops import scan_order

GRIDS = [(2, 3), (3, 2), (3, 3), (4, 5), (14, 14)]


@pytest.mark.parametrize('grid', GRIDS, ids=lambda g: f'{g[0]}x{g[1]}')
def test_continuous_2d_equals_golden(shared_dir, grid):
    golden = np.load(shared_dir / 'golden' / 'ops.npz')
    scan = scan_order.continuous_2d(*grid)
    for field in ('order', 'inverse', 'direction'):
        expected = golden[f'plainmamba_{grid[0]}x{grid[1]}_{field}']
        assert np.array_equal(getattr(scan, field).numpy(), expected), field


def test_cross_scan_equals_golden(shared_dir):
    golden = np.load(shared_dir / 'golden' / 'ops.npz')
    order = scan_order.cross_scan(3, 4)

    image = torch.from_numpy(golden['crossscan_in']).flatten(2)
    scanned = image[:, :, order].transpose(1, 2)
    assert np.array_equal(scanned.numpy(), golden['crossscan_out'])

    outputs = torch.from_numpy(golden['crossmerge_in']).flatten(3)
    merged = torch.zeros_like(outputs[:, 0])
    for k in range(4):
        merged.index_add_(-1, order[k], outputs[:, k])
    np.testing.assert_allclose(merged.numpy(), golden['crossmerge_out'], rtol=1e-6)


def test_continuous_2d_small_grid():
    scan = scan_order.continuous_2d(2, 3)
    assert scan.order.tolist() == [
        [0, 1, 2, 5, 4, 3],
        [3, 4, 5, 2, 1, 0],
        [0, 3, 4, 1, 2, 5],
        [5, 2, 1, 4, 3, 0],
    ]
    assert scan.direction.tolist() == [
        [0, 1, 1, 4, 2, 2],
        [0, 1, 1, 3, 2, 2],
        [0, 4, 1, 3, 1, 4],
        [0, 3, 2, 4, 2, 3],
    ]


@pytest.mark.parametrize('grid', [(1, 1), (1, 5), (5, 1), (6, 7)])
def test_continuous_2d_moves_between_neighbours(grid):
    scan = scan_order.continuous_2d(*grid)
    row, column = scan.order // grid[1], scan.order % grid[1]
    down, right = row.diff(dim=-1), column.diff(dim=-1)
    kind = scan.direction[:, 1:]
    assert (scan.direction[:, 0] == 0).all()
    assert torch.equal(right, (kind == 1).long() - (kind == 2).long())
    assert torch.equal(down, (kind == 4).long() - (kind == 3).long())


def test_single_orders():
    assert scan_order.raster(2, 3).tolist() == [0, 1, 2, 3, 4, 5]
    assert scan_order.column(2, 3).tolist() == [0, 3, 1, 4, 2, 5]
    assert scan_order.snake_rows(3, 2).tolist() == [0, 1, 3, 2, 4, 5]
    assert scan_order.snake_columns(2, 3).tolist() == [0, 3, 4, 1, 2, 5]
    assert scan_order.reverse(scan_order.column(2, 3)).tolist() == [5, 2, 4, 1, 3, 0]
    assert scan_order.bidirectional(3).tolist() == [[0, 1, 2], [2, 1, 0]]


def test_inverse_undoes_every_order():
    for orders in (scan_order.continuous_2d(4, 5).order, scan_order.cross_scan(4, 5)):
        tokens = torch.arange(20).expand(4, -1)
        assert orders.dtype == torch.int64
        assert torch.equal(orders.gather(1, scan_order.inverse(orders)), tokens)
        assert torch.equal(scan_order.inverse(orders).gather(1, orders), tokens)


def test_orders_made_in_inference_mode_serve_training():
    with torch.inference_mode():
        order = scan_order.continuous_2d(3, 11).order
    tokens = torch.randn(33, requires_grad=True)
    tokens[order].sum().backward()
    assert torch.equal(tokens.grad, torch.full((33,), 4.0))


@pytest.mark.parametrize('grid', [(0, 3), (3, 0)])
def test_empty_grid_is_refused(grid):
    with pytest.raises(ValueError, match='at least one row and one column'):
        scan_order.continuous_2d(*grid)
