// The arguments of Mamba-2's scan (SSD) as they cross the C boundary.
//
// Letters: batch b, step l, head h, channel of a head p, group of heads g, state n.

#pragma once

#include <cstdint>

#include "view.h"

namespace mmtransmamba {

struct SsdArgs {
  int64_t batch, length, heads, width, groups, states;
  int64_t chunk;     // steps that are one block of matrix products
  int64_t segments;  // parts into which the heads of a group are divided

  View x;              // [b, l, h, p], channels contiguous
  View dt;             // [b, l, h]
  View a, d;           // [h]
  View b, c;           // [b, l, g, n], states contiguous
  View initial_state;  // [b, h, p, n], states contiguous
  View y;              // [b, l, h, p]; in the backward pass its gradient
  View last_state;     // [b, h, p, n]; in the backward pass its gradient
  float *checkpoints;  // [b, h, chunk - 1, n, padded p]: the state before each chunk

  View grad_x, grad_dt;    // [b, l, h, p] and [b, l, h]
  View grad_a, grad_d;     // [b, h]: one part per batch entry
  View grad_initial;       // [b, h, p, n]
  float *grad_b, *grad_c;  // [b, l, g, segment, n]: one part per segment
};

// An item is (b, g, segment); items are independent of each other.
inline int64_t items_of(const SsdArgs &args) {
  return args.batch * args.groups * args.segments;
}

}  // namespace mmtransmamba
