// Moves of lanes and tiles between strided tensors and scratch memory, where a tile is
// a [step][lane] array. Internal linkage, as in vec.h.

#pragma once

#include <cstdint>

#include "vec.h"

namespace mmtransmamba {
namespace {

using Index = const int32_t *;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline void copy_lanes(float *dst, const float *src, int lanes) {
  if (lanes == kLanes) {
    store_unaligned(dst, load_unaligned(src));
  } else {
    for (int i = 0; i < lanes; ++i) dst[i] = src[i];
  }
}

// Fills a tile from a [channel, step] view. Step i reads position index[i], or i
// without an index. Lanes beyond the last channel are zero.
inline void read_tile(float *tile, const float *src, int64_t channel_stride,
                      int64_t step_stride, Index index, int64_t steps, int lanes) {
  if (channel_stride == 1) {
    for (int64_t i = 0; i < steps; ++i) {
      // Rows of one tile lie far apart: hardware does not see the pattern.
      const int64_t ahead = smaller(i + 16, steps - 1);
      __builtin_prefetch(src + (index ? index[ahead] : ahead) * step_stride);
      if (lanes < kLanes) store(tile + i * kLanes, Vec{});
      copy_lanes(tile + i * kLanes, src + (index ? index[i] : i) * step_stride,
                 lanes);
    }
    return;
  }
  int64_t i = 0;
  if (step_stride == 1 && !index) {
    for (; i + kLanes <= steps; i += kLanes) {
      Vec rows[kLanes] = {};
      for (int j = 0; j < lanes; ++j)
        rows[j] = load_unaligned(src + j * channel_stride + i);
      transpose(rows);
      for (int j = 0; j < kLanes; ++j) store(tile + (i + j) * kLanes, rows[j]);
    }
  }
  for (; i < steps; ++i) {
    const float *p = src + (index ? index[i] : i) * step_stride;
    store(tile + i * kLanes, Vec{});
    for (int j = 0; j < lanes; ++j) tile[i * kLanes + j] = p[j * channel_stride];
  }
}

// The opposite of read_tile.
inline void write_tile(float *dst, int64_t channel_stride, int64_t step_stride,
                       Index index, const float *tile, int64_t steps, int lanes) {
  if (channel_stride == 1) {
    for (int64_t i = 0; i < steps; ++i)
      copy_lanes(dst + (index ? index[i] : i) * step_stride, tile + i * kLanes, lanes);
    return;
  }
  int64_t i = 0;
  if (step_stride == 1 && !index) {
    for (; i + kLanes <= steps; i += kLanes) {
      Vec rows[kLanes];
      for (int j = 0; j < kLanes; ++j) rows[j] = load(tile + (i + j) * kLanes);
      transpose(rows);
      for (int j = 0; j < lanes; ++j)
        store_unaligned(dst + j * channel_stride + i, rows[j]);
    }
  }
  for (; i < steps; ++i) {
    float *p = dst + (index ? index[i] : i) * step_stride;
    for (int j = 0; j < lanes; ++j) p[j * channel_stride] = tile[i * kLanes + j];
  }
}

inline Vec read_lanes(const float *src, int64_t stride, int lanes) {
  alignas(64) float out[kLanes] = {};
  for (int j = 0; j < lanes; ++j) out[j] = src[j * stride];
  return load(out);
}

inline void write_lanes(float *dst, int64_t stride, Vec v, int lanes, bool add) {
  alignas(64) float in[kLanes];
  store(in, v);
  for (int j = 0; j < lanes; ++j)
    dst[j * stride] = add ? dst[j * stride] + in[j] : in[j];
}

}  // namespace
}  // namespace mmtransmamba
