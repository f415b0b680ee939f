// The selective scan's arguments as they cross the C boundary, and the table of
// kernels that every instruction set level fills in.
//
// Letters: batch b, direction k, group of channels g, channel d, state n, step l.

#pragma once

#include <cstddef>
#include <cstdint>

#include "view.h"

namespace mmtransmamba {

struct ScanArgs {
  int64_t batch, directions, groups, channels, states, length, taps;
  int64_t chunk;     // steps between two stored states
  int64_t segments;  // parts into which the channels of a group are divided
  int64_t permute_params, softplus;
  // Gradients that all directions share are summed over them in the kernel.
  int64_t shared_u, shared_delta, shared_b, shared_c;

  const int64_t *order;      // [k, l], null for the identity
  const int64_t *tap_index;  // [k, m], null without taps

  View u, delta;    // [b, k, d, l]
  View a;           // [k, d, n]
  View b, c;        // [b, k, g, l, (n)], states contiguous
  View d, bias;     // [k, d]
  View z;           // [b, d, l]
  View y;           // [b, d, l]; in the backward pass its gradient
  View tapped;      // [b, k, d, m]; in the backward pass its gradient
  View last_state;  // [b, d, n]; in the backward pass its gradient
  float *checkpoints;  // [b, k, chunk, n, padded channels]

  View grad_u, grad_delta;  // [b, k, d, l]
  View grad_a;              // [b, k, d, n]: one part per batch entry
  View grad_d, grad_bias;   // [b, k, d]: likewise
  View grad_z;              // [b, d, l]
  float *grad_b, *grad_c;   // [b, k or 1, g, segment, l, n]: one part per segment
};

struct Tap {
  int32_t step, column;
};

// Index tables that are derived once per call and read by all threads.
struct Plan {
  const int32_t *token;     // [k, l]: raster token of each step
  const int32_t *identity;  // [l]
  const Tap *taps;          // [k, m], sorted by step
};

struct Kernels {
  const char *name;
  size_t (*forward_scratch)(const ScanArgs &);
  size_t (*backward_scratch)(const ScanArgs &);
  // One item is (b, g, segment); items are independent of each other.
  void (*forward)(const ScanArgs &, const Plan &, int64_t item, char *scratch);
  void (*backward)(const ScanArgs &, const Plan &, int64_t item, char *scratch);
};

// Channels of a group are padded to a multiple of the widest vector, so that the
// layout of the checkpoints does not depend on the instruction set.
constexpr int64_t kPadding = 16;

inline int64_t padded_group(const ScanArgs &args) {
  const int64_t width = args.channels / args.groups;
  return (width + kPadding - 1) / kPadding * kPadding;
}

}  // namespace mmtransmamba
