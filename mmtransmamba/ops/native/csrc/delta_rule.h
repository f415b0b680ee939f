// The arguments of the gated delta rule's kernels as they cross the C boundary.
//
// Letters: batch b, step l, head h, group of heads g, key channel k, value channel v.

#pragma once

#include <cstdint>

#include "view.h"

namespace mmtransmamba {

struct DeltaRuleArgs {
  int64_t batch, length, heads, groups, keys, values;
  int64_t chunk;         // steps from one kept state to the next
  int64_t channel_gate;  // whether every key channel has its own decay
  double scale;          // of the queries

  View q, k;           // [b, l, g, k], channels contiguous
  View v;              // [b, l, h, v], channels contiguous
  View gate;           // [b, l, h] or [b, l, h, k]: log decays
  View beta;           // [b, l, h]
  View initial_state;  // [b, h, k, v], values contiguous
  View y;              // [b, l, h, v]; in the backward pass its gradient
  View last_state;     // [b, h, k, v]; in the backward pass its gradient
  float *checkpoints;  // [b, h, chunk - 1, k, v]: the state before each chunk

  View grad_q, grad_k;  // [b, l, h, k]: one part per head
  View grad_v, grad_gate, grad_beta;
  View grad_initial;  // [b, h, k, v]
};

// An item is (b, h); items are independent of each other.
inline int64_t items_of(const DeltaRuleArgs &args) { return args.batch * args.heads; }

}  // namespace mmtransmamba
