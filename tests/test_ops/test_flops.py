"""Operation counts of the scans, and that torch's counter finds them."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from mmtransmamba.ops import (
    bi_wkv,
    bi_wkv6,
    gated_delta_rule,
    kda,
    scan_order,
    selective_scan_directions,
    selective_scan_fn,
    ssd_scan,
)
from mmtransmamba.ops.flops import FORMULAS

B, K, D, N, L = 2, 4, 6, 3, 12


def counted(function, *args, **kwargs):
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        function(*args, **kwargs)
    return counter.get_total_flops()


def test_plain_scan():
    with torch.device('meta'):
        u, z = torch.empty(2, B, D, L)
        A, skip = torch.empty(D, N), torch.empty(D)
        drive, read = torch.empty(2, B, N, L)
    scan = 9 * B * D * L * N
    assert counted(selective_scan_fn, u, u, A, drive, read) == scan
    assert (
        counted(selective_scan_fn, u, u, A, drive, read, skip, z=z)
        == scan + 2 * B * D * L
    )


def test_directions_count_each_whether_they_share_operands_or_not():
    order = scan_order.cross_scan(3, 4, 'meta')
    with torch.device('meta'):
        for shared in (1, K):
            u, A = torch.empty(B, shared, D, L), torch.empty(shared, D, N)
            drive, skip = torch.empty(B, shared, N, L), torch.empty(shared, D)
            count = counted(
                selective_scan_directions, u, u, A, drive, drive, skip, order=order
            )
            assert count == 9 * B * K * D * L * N + B * K * D * L


def test_shapes_on_the_meta_device_are_those_of_a_scan():
    order = scan_order.cross_scan(3, 4)
    steps = torch.zeros(K, 5, dtype=torch.int64)
    u, A = torch.randn(B, 1, D, L), -torch.rand(1, D, N)
    drive = torch.randn(B, 1, N, L)
    for device in ('cpu', 'meta'):
        operands = (x.to(device) for x in (u, u, A, drive, drive))
        y, taps = selective_scan_directions(
            *operands, order=order.to(device), tap_index=steps.to(device)
        )
        assert y.device.type == taps.device.type == device
        assert y.shape == (B, D, L)
        assert taps.shape == (B, K, D, 5)


def test_ssd():
    with torch.device('meta'):
        x, dt = torch.empty(B, L, 4, D), torch.empty(B, L, 4)
        A, drive = torch.empty(4), torch.empty(B, L, 2, N)
    scan = 5 * B * L * 4 * D * N
    assert counted(ssd_scan, x, dt, A, drive, drive) == scan
    assert counted(ssd_scan, x, dt, A, drive, drive, A) == scan + B * L * 4 * D


def test_delta_rule():
    with torch.device('meta'):
        q, v, gate = (
            torch.empty(B, L, 2, N),
            torch.empty(B, L, 4, D),
            torch.empty(B, L, 4),
        )
        channels = torch.empty(B, L, 4, N)
    recurrence = 7 * B * L * 4 * N * D
    assert counted(gated_delta_rule, q, q, v, gate, gate) == recurrence
    assert counted(kda, q, q, v, channels, gate) == recurrence


def test_wkv():
    with torch.device('meta'):
        x = torch.empty(B, L, D)
        per_channel, bonus = torch.empty(D), torch.empty(2, D // 2)
    for rule in ('formula', 'cuda'):
        count = counted(bi_wkv, per_channel, per_channel, x, x, rule=rule)
        assert count == 21 * B * L * D
    assert counted(bi_wkv6, x, x, x, x, bonus) == 10 * B * L * D * (D // 2)
    steps = torch.zeros(2, 5, dtype=torch.int64, device='meta')
    y, taps = bi_wkv(per_channel, per_channel, x, x, tap_index=steps)
    assert y.device.type == 'meta' and taps.shape == (B, 2, 5, D)
