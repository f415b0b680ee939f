// Forward and backward depthwise convolution of a grid of tokens, channels last, for
// one instruction set level: the build compiles this file once per level.
//
// Vectors run over channels. A block of channels is staged with a frame of zeros, so
// that the loops over taps have no borders and read consecutive memory, whatever the
// strides of the tensors are.

#include "depthwise.h"

#include "arena.h"
#include "kernels.h"
#include "tiles.h"
#include "vec.h"

namespace mmtransmamba {
namespace {

// Columns whose sums are kept in registers.
constexpr int kTile = kLanes == 16 ? 14 : 8;
// Taps of a row whose gradients are kept in registers.
constexpr int kTaps = 8;

inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// The channels [first, first + lanes) of one batch entry.
struct Channels {
  int64_t b, first;
  int lanes;
};

// A staged part of a grid: cells of one vector each, with a frame.
struct Plane {
  float *data;
  int64_t row, column;  // cell at the start of the data
  int64_t stride;       // cells per row

  float *at(int64_t r, int64_t c) const {
    return data + ((r - row) * stride + c - column) * kLanes;
  }
};

struct Reach {
  int64_t left, right;  // columns that the kernels read beyond a cell
  explicit Reach(const DepthwiseArgs &args) : left(0), right(0) {
    for (int64_t k = 0; k < args.kernels; ++k) {
      left = larger(left, -args.column[k]);
      right = larger(right, args.column[k] + args.tap_columns - 1);
    }
  }
};

// Fills rows [first, first + rows) of a plane, zeros where the grid ends.
void stage(const Plane &plane, int64_t rows, const DepthwiseArgs &args,
           const float *source, int64_t token_stride, int64_t channel_stride,
           int lanes) {
  const int64_t cells = plane.stride;
  for (int64_t r = plane.row; r < plane.row + rows; ++r) {
    float *row = plane.at(r, plane.column);
    const bool inside = r >= 0 && r < args.height;
    const int64_t before = inside ? -plane.column : cells;
    for (int64_t c = 0; c < before; ++c) store(row + c * kLanes, Vec{});
    if (!inside) continue;
    read_tile(plane.at(r, 0), source + r * args.width * token_stride, channel_stride,
              token_stride, nullptr, args.width, lanes);
    for (int64_t c = before + args.width; c < cells; ++c)
      store(row + c * kLanes, Vec{});
  }
}

// Taps [i][j][lane] in the order of the sum, or from the last to the first.
void read_taps(float *tile, const DepthwiseArgs &args, int64_t k, const Channels &block,
               bool reversed) {
  const View &v = args.taps;
  const int64_t count = args.tap_rows * args.tap_columns;
  for (int64_t t = 0; t < count; ++t) {
    const int64_t i = t / args.tap_columns, j = t % args.tap_columns;
    const float *p = v.data + k * v.stride[0] + i * v.stride[1] + j * v.stride[2] +
                     block.first * v.stride[3];
    const int64_t place = reversed ? count - 1 - t : t;
    store(tile + place * kLanes, read_lanes(p, v.stride[3], block.lanes));
  }
}

Vec read_bias(const DepthwiseArgs &args, int64_t k, const Channels &block) {
  const View &v = args.bias;
  if (!v.data) return Vec{};
  return read_lanes(v.data + k * v.stride[0] + block.first * v.stride[1], v.stride[1],
                    block.lanes);
}

struct Taps {
  const float *data;
  int64_t rows, columns;
};

// Adds the sums over the taps to N cells; `source` is the first cell's first input.
template <int N>
void add_cells(float *out, const float *source, int64_t row_stride, const Taps &taps) {
  Vec sum[N];
  for (int n = 0; n < N; ++n) sum[n] = load(out + n * kLanes);
  const float *tap = taps.data;
  for (int64_t i = 0; i < taps.rows; ++i) {
    const float *p = source + i * row_stride;
    for (int64_t j = 0; j < taps.columns; ++j, p += kLanes, tap += kLanes) {
      const Vec weight = load(tap);
      for (int n = 0; n < N; ++n) sum[n] += weight * load(p + n * kLanes);
    }
  }
  for (int n = 0; n < N; ++n) store(out + n * kLanes, sum[n]);
}

template <int N>
void add_at_most(int64_t count, float *out, const float *source, int64_t row_stride,
                 const Taps &taps) {
  if (count == N) return add_cells<N>(out, source, row_stride, taps);
  if constexpr (N > 1) add_at_most<N - 1>(count, out, source, row_stride, taps);
}

// Adds to a row of `width` cells, in tiles of about equal size.
void add_row(float *out, const Plane &plane, int64_t row, int64_t column, int64_t width,
             const Taps &taps) {
  int64_t tiles = (width + kTile - 1) / kTile;
  for (int64_t c = 0; c < width; --tiles) {
    const int64_t count = (width - c + tiles - 1) / tiles;
    add_at_most<kTile>(count, out + c * kLanes, plane.at(row, column + c),
                       plane.stride * kLanes, taps);
    c += count;
  }
}

void fill_row(float *out, Vec value, int64_t width) {
  for (int64_t c = 0; c < width; ++c) store(out + c * kLanes, value);
}

// ------------------------------------------------------------------ forward

struct ForwardScratch {
  float *x, *taps, *out;

  ForwardScratch(const DepthwiseArgs &args, Arena &arena) {
    const Reach reach(args);
    const int64_t rows = band_of(args) + args.tap_rows - 1;
    x = arena.floats(rows * (args.width + reach.left + reach.right) * kLanes);
    taps = arena.floats(args.kernels * args.tap_rows * args.tap_columns * kLanes);
    out = arena.floats(args.width * kLanes);
  }
};

void forward_band(const DepthwiseArgs &args, const Channels &block, int64_t from,
                  int64_t rows, const ForwardScratch &s) {
  const Reach reach(args);
  const View &v = args.x;
  const Plane x{s.x, from + args.row, -reach.left,
                args.width + reach.left + reach.right};
  stage(x, rows + args.tap_rows - 1, args,
        v.data + block.b * v.stride[0] + block.first * v.stride[2], v.stride[1],
        v.stride[2], block.lanes);
  const int64_t count = args.tap_rows * args.tap_columns;
  for (int64_t k = 0; k < args.kernels; ++k) {
    float *tile = s.taps + k * count * kLanes;
    read_taps(tile, args, k, block, args.flipped[k]);
    const Taps taps{tile, args.tap_rows, args.tap_columns};
    const Vec bias = read_bias(args, k, block);
    const View &y = args.y;
    float *target = y.data + k * y.stride[0] + block.b * y.stride[1] +
                    block.first * y.stride[3];
    for (int64_t r = from; r < from + rows; ++r) {
      fill_row(s.out, bias, args.width);
      add_row(s.out, x, r + args.row, args.column[k], args.width, taps);
      if (args.silu) {
        for (int64_t c = 0; c < args.width * kLanes; c += kLanes) {
          const Vec z = load(s.out + c);
          store(s.out + c, z * sigmoid(z));
        }
      }
      write_tile(target + r * args.width * y.stride[2], y.stride[3], y.stride[2],
                 nullptr, s.out, args.width, block.lanes);
    }
  }
}

// ----------------------------------------------------------------- backward

struct BackwardScratch {
  float *x, *grad;           // planes: the input, and the gradient before `act`
  float *taps, *last_first;  // [i][j][lane]
  float *grad_x;             // [row of the band][column][lane]
  float *out;                // a row
  float *grad_taps;          // [k][i][j][lane]
  float *grad_bias;          // [k][lane]

  BackwardScratch(const DepthwiseArgs &args, Arena &arena) {
    const Reach reach(args);
    const int64_t cells = args.width + reach.left + reach.right;
    const int64_t band = band_of(args), frame = args.tap_rows - 1;
    const int64_t count = args.tap_rows * args.tap_columns;
    x = arena.floats((band + 2 * frame) * cells * kLanes);
    grad = arena.floats((band + frame) * cells * kLanes);
    taps = arena.floats(count * kLanes);
    last_first = arena.floats(count * kLanes);
    grad_x = arena.floats(band * args.width * kLanes);
    out = arena.floats(args.width * kLanes);
    grad_taps = arena.floats(args.kernels * count * kLanes);
    grad_bias = arena.floats(args.kernels * kLanes);
  }
};

// Adds the gradients of N taps of row i, from rows [from, from + rows).
template <int N>
void add_tap_gradients(float *total, const DepthwiseArgs &args, const Plane &x,
                       const Plane &grad, int64_t from, int64_t rows, int64_t i,
                       int64_t column) {
  for (int64_t r = from; r < from + rows; ++r) {
    // Rows are summed first, for the precision of large grids.
    Vec sum[N] = {};
    const float *g = grad.at(r, 0), *p = x.at(r + args.row + i, column);
    for (int64_t c = 0; c < args.width; ++c, g += kLanes, p += kLanes) {
      const Vec value = load(g);
      for (int n = 0; n < N; ++n) sum[n] += value * load(p + n * kLanes);
    }
    for (int n = 0; n < N; ++n)
      store(total + n * kLanes, load(total + n * kLanes) + sum[n]);
  }
}

template <int N, class... Rest>
void add_tap_gradients_at_most(int64_t count, Rest &&...rest) {
  if (count == N) return add_tap_gradients<N>(rest...);
  if constexpr (N > 1) add_tap_gradients_at_most<N - 1>(count, rest...);
}

// The output's gradient, passed through SiLU whose inputs are computed again.
void through_silu(const DepthwiseArgs &args, int64_t k, const Plane &x,
                  const Plane &grad, int64_t from, int64_t rows, Vec bias,
                  const Taps &taps, float *out) {
  for (int64_t r = larger(from, 0); r < smaller(from + rows, args.height); ++r) {
    fill_row(out, bias, args.width);
    add_row(out, x, r + args.row, args.column[k], args.width, taps);
    float *row = grad.at(r, 0);
    for (int64_t c = 0; c < args.width * kLanes; c += kLanes) {
      const Vec z = load(out + c);
      const Vec sigma = sigmoid(z);
      store(row + c, load(row + c) * sigma * (1.0f + z * (1.0f - sigma)));
    }
  }
}

void backward_band(const DepthwiseArgs &args, const Channels &block, int64_t from,
                   int64_t rows, const BackwardScratch &s) {
  const Reach reach(args);
  const int64_t frame = args.tap_rows - 1;
  const int64_t cells = args.width + reach.left + reach.right;
  const int64_t count = args.tap_rows * args.tap_columns;
  // The gradient of a row comes from rows around it, and these from others again.
  const Plane x{s.x, from - frame, -reach.left, cells};
  const Plane grad{s.grad, from - args.row - frame, -reach.right, cells};
  const View &v = args.x, &y = args.y;
  stage(x, rows + 2 * frame, args,
        v.data + block.b * v.stride[0] + block.first * v.stride[2], v.stride[1],
        v.stride[2], block.lanes);
  for (int64_t i = 0; i < rows * args.width * kLanes; i += kLanes)
    store(s.grad_x + i, Vec{});
  for (int64_t k = 0; k < args.kernels; ++k) {
    stage(grad, rows + frame, args,
          y.data + k * y.stride[0] + block.b * y.stride[1] + block.first * y.stride[3],
          y.stride[2], y.stride[3], block.lanes);
    if (args.silu) {
      read_taps(s.taps, args, k, block, args.flipped[k]);
      through_silu(args, k, x, grad, grad.row, rows + frame,
                   read_bias(args, k, block),
                   {s.taps, args.tap_rows, args.tap_columns}, s.out);
    }
    float *grad_taps = s.grad_taps + k * count * kLanes;
    if (args.grad_taps.data) {
      for (int64_t i = 0; i < args.tap_rows; ++i) {
        for (int64_t j = 0; j < args.tap_columns; j += kTaps)
          add_tap_gradients_at_most<kTaps>(
              smaller(kTaps, args.tap_columns - j),
              grad_taps + (i * args.tap_columns + j) * kLanes, args, x, grad, from,
              rows, i, args.column[k] + j);
      }
    }
    if (args.grad_bias.data) {
      Vec sum = load(s.grad_bias + k * kLanes);
      for (int64_t r = from; r < from + rows; ++r) {
        const float *g = grad.at(r, 0);
        for (int64_t c = 0; c < args.width; ++c) sum += load(g + c * kLanes);
      }
      store(s.grad_bias + k * kLanes, sum);
    }
    if (args.grad_x.data) {
      read_taps(s.last_first, args, k, block, !args.flipped[k]);
      const Taps taps{s.last_first, args.tap_rows, args.tap_columns};
      const int64_t column = -args.column[k] - (args.tap_columns - 1);
      for (int64_t r = 0; r < rows; ++r)
        add_row(s.grad_x + r * args.width * kLanes, grad,
                from + r - args.row - frame, column, args.width, taps);
    }
  }
  const View &gx = args.grad_x;
  if (gx.data)
    write_tile(gx.data + block.b * gx.stride[0] + from * args.width * gx.stride[1] +
                   block.first * gx.stride[2],
               gx.stride[2], gx.stride[1], nullptr, s.grad_x, rows * args.width,
               block.lanes);
}

void write_parts(const DepthwiseArgs &args, const Channels &block,
                 const BackwardScratch &s) {
  const int64_t count = args.tap_rows * args.tap_columns;
  for (int64_t k = 0; k < args.kernels; ++k) {
    const View &t = args.grad_taps, &bias = args.grad_bias;
    for (int64_t i = 0; t.data && i < count; ++i) {
      const int64_t place = args.flipped[k] ? count - 1 - i : i;
      write_lanes(t.data + block.b * t.stride[0] + k * t.stride[1] +
                      place * t.stride[2] + block.first * t.stride[3],
                  t.stride[3], load(s.grad_taps + (k * count + i) * kLanes),
                  block.lanes, false);
    }
    if (bias.data)
      write_lanes(bias.data + block.b * bias.stride[0] + k * bias.stride[1] +
                      block.first * bias.stride[2],
                  bias.stride[2], load(s.grad_bias + k * kLanes), block.lanes, false);
  }
}

template <class F>
void for_blocks(const DepthwiseArgs &args, int64_t index, F &&f) {
  const int64_t first = index % blocks_of(args) * kDepthwiseChannels;
  const int64_t end = smaller(first + kDepthwiseChannels, args.channels);
  for (int64_t c = first; c < end; c += kLanes)
    f(Channels{index / blocks_of(args), c,
               static_cast<int>(smaller(kLanes, end - c))});
}

template <class Scratch>
size_t scratch_of(const DepthwiseArgs &args) {
  Arena arena(nullptr);
  Scratch scratch(args, arena);
  return arena.used();
}

void forward(const DepthwiseArgs &args, int64_t item, char *memory) {
  Arena arena(memory);
  const ForwardScratch scratch(args, arena);
  const int64_t band = band_of(args);
  for_blocks(args, item, [&](const Channels &block) {
    for (int64_t from = 0; from < args.height; from += band)
      forward_band(args, block, from, smaller(band, args.height - from), scratch);
  });
}

void backward(const DepthwiseArgs &args, int64_t item, char *memory) {
  Arena arena(memory);
  const BackwardScratch scratch(args, arena);
  const int64_t band = band_of(args);
  const int64_t count = args.tap_rows * args.tap_columns;
  for_blocks(args, item, [&](const Channels &block) {
    for (int64_t i = 0; i < args.kernels * count; ++i)
      store(scratch.grad_taps + i * kLanes, Vec{});
    for (int64_t k = 0; k < args.kernels; ++k)
      store(scratch.grad_bias + k * kLanes, Vec{});
    for (int64_t from = 0; from < args.height; from += band)
      backward_band(args, block, from, smaller(band, args.height - from), scratch);
    write_parts(args, block, scratch);
  });
}

}  // namespace

#define MMT_CONCAT_(a, b) a##b
#define MMT_CONCAT(a, b) MMT_CONCAT_(a, b)

extern const OpKernels<DepthwiseArgs> MMT_CONCAT(depthwise_kernels_, MMT_LEVEL);
const OpKernels<DepthwiseArgs> MMT_CONCAT(depthwise_kernels_, MMT_LEVEL) = {
    {scratch_of<ForwardScratch>, forward}, {scratch_of<BackwardScratch>, backward}};

}  // namespace mmtransmamba
