// The arguments of the depthwise convolution as they cross the C boundary, and the
// division of its work.
//
// Letters: batch b, kernel k, row r and column c of the grid, tap row i and column j,
// channel d. Token r * width + c is the grid's cell (r, c).

#pragma once

#include <cstdint>

#include "view.h"

namespace mmtransmamba {

// y[k, b, (r, c), d] = act(bias[k, d] + sum_ij taps[k, i, j, d]
//                          x[b, (r + row + i, c + column[k] + j), d]),
// with zeros outside the grid. Mirrored by native/library.py.
struct DepthwiseArgs {
  int64_t batch, height, width, channels, kernels;
  int64_t tap_rows, tap_columns;
  int64_t row;    // in (-tap_rows, 0]
  int64_t silu;   // act is SiLU, otherwise the identity
  const int64_t *column;   // [k], in (-tap_columns, 0]
  const int64_t *flipped;  // [k]: the taps are stored last first

  View x;     // [b, token, d]
  View taps;  // [k, i, j, d]
  View bias;  // [k, d], null data for none
  View y;     // [k, b, token, d]; in the backward pass its gradient

  View grad_x;     // [b, token, d]
  View grad_taps;  // [b, k, i * tap_columns + j, d]: one part per batch entry
  View grad_bias;  // [b, k, d]: likewise
};

// The widest vector divides it.
constexpr int64_t kDepthwiseChannels = 16;

// Rows of the grid that are staged together: about 256 KiB, which fits a
// second-level cache beside the outputs.
inline int64_t band_of(const DepthwiseArgs &args) {
  const int64_t row_bytes = (args.width + args.tap_columns) * kDepthwiseChannels * 4;
  const int64_t rows = (int64_t{1} << 18) / row_bytes;
  const int64_t least = rows > args.tap_rows ? rows : args.tap_rows;
  return least < args.height ? least : args.height;
}

inline int64_t blocks_of(const DepthwiseArgs &args) {
  return (args.channels + kDepthwiseChannels - 1) / kDepthwiseChannels;
}

// An item is one batch entry and block of channels.
inline int64_t items_of(const DepthwiseArgs &args) {
  return args.batch * blocks_of(args);
}

}  // namespace mmtransmamba
