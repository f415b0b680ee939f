// Bidirectional WKV of RWKV v6 for one instruction set level: the build compiles
// this file once per level with MMT_LANES and MMT_LEVEL set.
//
// In one direction, with a state S of key rows i and value columns j,
//
//   y_t[j] = sum_i r_t[i] S_{t-1}[i, j],
//   S_t[i, j] = a_t[i] S_{t-1}[i, j] + k_t[i] v_t[j].
//
// Columns are independent of each other in y and in the gradient of v, rows in the
// gradients of r, k and the decay a. Vectors run over what is independent, so nothing
// is ever summed over lanes; the price is that the backward pass carries the gradient
// of S twice, once by columns and once by rows.

#include "wkv.h"

#include "arena.h"
#include "kernels.h"
#include "tiles.h"
#include "vec.h"

namespace mmtransmamba {
namespace {

// Sums over rows or columns run in this many accumulators: one would wait for each
// addition before the next.
constexpr int kWays = 4;

struct Block {
  int64_t b, head, first;  // first channel of the head, first channel of the block
  int lanes;
};

template <class F>
void for_blocks(const Wkv6Args &args, int64_t item, F &&f) {
  const int64_t b = item % args.batch;
  const int64_t h = item / args.batch % args.heads;
  const int64_t begin = item / (args.batch * args.heads) * kItemChannels;
  const int64_t end = smaller(begin + kItemChannels, args.width);
  for (int64_t c = begin; c < end; c += kLanes)
    f(Block{b, h * args.width, h * args.width + c,
            static_cast<int>(smaller(kLanes, end - c))});
}

float *row(const View &v, const Block &block, int64_t token, int64_t channel) {
  return v.data + block.b * v.stride[0] + token * v.stride[1] + channel;
}

float *y_row(const View &y, const Block &block, int64_t s, int64_t token,
             int64_t channel) {
  return y.data + block.b * y.stride[0] + s * y.stride[1] + token * y.stride[2] +
         channel;
}

Vec lanes_at(const View &v, const Block &block, int64_t token) {
  const float *p = row(v, block, token, block.first);
  return block.lanes == kLanes ? load_unaligned(p) : read_lanes(p, 1, block.lanes);
}

void put(float *p, Vec value, const Block &block, bool add) {
  if (block.lanes == kLanes) {
    store_unaligned(p, add ? load_unaligned(p) + value : value);
  } else {
    write_lanes(p, 1, value, block.lanes, add);
  }
}

void clear(float *rows, int64_t count) {
  for (int64_t i = 0; i < count; ++i) store(rows + i * kLanes, Vec{});
}

// Calls f(i, way) for i in [0, count), where neighbours have different ways.
template <class F>
inline void in_ways(int64_t count, F &&f) {
  int64_t i = 0;
  for (; i + kWays <= count; i += kWays)
    for (int way = 0; way < kWays; ++way) f(i + way, way);
  for (; i < count; ++i) f(i, 0);
}

inline Vec total(const Vec *ways) { return (ways[0] + ways[1]) + (ways[2] + ways[3]); }

// The token that step `step` of direction s reads.
inline int64_t token_of(const Wkv6Args &args, int64_t s, int64_t step) {
  return s ? args.length - 1 - step : step;
}

// ------------------------------------------------------------------ forward

struct ForwardScratch {
  float *state;  // [row][column lanes]

  ForwardScratch(const Wkv6Args &args, Arena &arena) {
    state = arena.floats(args.width * kLanes);
  }
};

void forward_block(const Wkv6Args &args, const Block &block, const ForwardScratch &s) {
  float *const state = s.state;
  for (int64_t dir = 0; dir < 2; ++dir) {
    clear(state, args.width);
    for (int64_t step = 0; step < args.length; ++step) {
      const int64_t token = token_of(args, dir, step);
      const float *r = row(args.r, block, token, block.head);
      const float *k = row(args.k, block, token, block.head);
      const float *a = row(args.decay, block, token, block.head);
      const Vec v = lanes_at(args.v, block, token);
      Vec out[kWays] = {};
      in_ways(args.width, [&](int64_t i, int way) {
        const Vec before = load(state + i * kLanes);
        out[way] += before * r[i];
        store(state + i * kLanes, before * a[i] + v * k[i]);
      });
      put(y_row(args.y, block, args.separate ? dir : 0, token, block.first), total(out),
          block, dir && !args.separate);
    }
  }
}

// ----------------------------------------------------------------- backward

// Steps between two stored states: what is stored and what is recomputed from it
// together are smallest at the square root.
int64_t chunk_of(const Wkv6Args &args) {
  int64_t chunk = 1;
  while (chunk * chunk < args.length) ++chunk;
  return chunk;
}

struct BackwardScratch {
  float *state, *grad;     // [column or row][lanes]
  float *stored, *before;  // such states, at chunk starts and before every step

  BackwardScratch(const Wkv6Args &args, Arena &arena) {
    const int64_t size = args.width * kLanes, chunk = chunk_of(args);
    state = arena.floats(size);
    grad = arena.floats(size);
    stored = arena.floats((args.length + chunk - 1) / chunk * size);
    before = arena.floats(chunk * size);
  }
};

// Lanes are rows: advances the state by one step, from `from` to `to`.
inline void advance(const Wkv6Args &args, const Block &block, int64_t token,
                    const float *from, float *to) {
  const Vec a = lanes_at(args.decay, block, token), k = lanes_at(args.k, block, token);
  const float *v = row(args.v, block, token, block.head);
  for (int64_t j = 0; j < args.width; ++j)
    store(to + j * kLanes, load(from + j * kLanes) * a + k * v[j]);
}

// Gradients of r, k and the decay.
void backward_rows(const Wkv6Args &args, const Block &block, const BackwardScratch &s) {
  const int64_t size = args.width * kLanes, chunk = chunk_of(args);
  const int64_t chunks = (args.length + chunk - 1) / chunk;
  float *const grad = s.grad;
  for (int64_t dir = 0; dir < 2; ++dir) {
    clear(s.stored, args.width);
    for (int64_t c = 1; c < chunks; ++c) {
      const float *from = s.stored + (c - 1) * size;
      for (int64_t step = (c - 1) * chunk; step < c * chunk; ++step) {
        advance(args, block, token_of(args, dir, step), from, s.stored + c * size);
        from = s.stored + c * size;
      }
    }
    clear(grad, args.width);
    for (int64_t c = chunks - 1; c >= 0; --c) {
      const int64_t start = c * chunk, steps = smaller(chunk, args.length - start);
      for (int64_t j = 0; j < args.width; ++j)
        store(s.before + j * kLanes, load(s.stored + c * size + j * kLanes));
      for (int64_t i = 1; i < steps; ++i)
        advance(args, block, token_of(args, dir, start + i - 1),
                s.before + (i - 1) * size, s.before + i * size);

      for (int64_t i = steps - 1; i >= 0; --i) {
        const int64_t token = token_of(args, dir, start + i);
        const float *before = s.before + i * size;
        const float *v = row(args.v, block, token, block.head);
        const float *dy =
            y_row(args.y, block, args.separate ? dir : 0, token, block.head);
        const Vec a = lanes_at(args.decay, block, token);
        const Vec r = lanes_at(args.r, block, token);
        Vec dr[kWays] = {}, dk[kWays] = {}, da[kWays] = {};
        in_ways(args.width, [&](int64_t j, int way) {
          const Vec state = load(before + j * kLanes), ds = load(grad + j * kLanes);
          dr[way] += state * dy[j];
          dk[way] += ds * v[j];
          da[way] += ds * state;
          store(grad + j * kLanes, ds * a + r * dy[j]);
        });
        put(row(args.grad_r, block, token, block.first), total(dr), block, dir);
        put(row(args.grad_k, block, token, block.first), total(dk), block, dir);
        put(row(args.grad_decay, block, token, block.first), total(da), block, dir);
      }
    }
  }
}

// Gradient of v.
void backward_columns(const Wkv6Args &args, const Block &block,
                      const BackwardScratch &s) {
  float *const grad = s.grad;
  for (int64_t dir = 0; dir < 2; ++dir) {
    clear(grad, args.width);
    for (int64_t step = args.length - 1; step >= 0; --step) {
      const int64_t token = token_of(args, dir, step);
      const float *r = row(args.r, block, token, block.head);
      const float *k = row(args.k, block, token, block.head);
      const float *a = row(args.decay, block, token, block.head);
      const float *p =
          y_row(args.y, block, args.separate ? dir : 0, token, block.first);
      const Vec dy =
          block.lanes == kLanes ? load_unaligned(p) : read_lanes(p, 1, block.lanes);
      Vec dv[kWays] = {};
      in_ways(args.width, [&](int64_t i, int way) {
        const Vec ds = load(grad + i * kLanes);
        dv[way] += ds * k[i];
        store(grad + i * kLanes, ds * a[i] + dy * r[i]);
      });
      put(row(args.grad_v, block, token, block.first), total(dv), block, dir);
    }
  }
}

template <class Scratch>
size_t scratch_of(const Wkv6Args &args) {
  Arena arena(nullptr);
  Scratch scratch(args, arena);
  return arena.used();
}

void forward(const Wkv6Args &args, int64_t item, char *memory) {
  Arena arena(memory);
  const ForwardScratch scratch(args, arena);
  for_blocks(args, item,
             [&](const Block &block) { forward_block(args, block, scratch); });
}

void backward(const Wkv6Args &args, int64_t item, char *memory) {
  Arena arena(memory);
  const BackwardScratch scratch(args, arena);
  for_blocks(args, item, [&](const Block &block) {
    backward_rows(args, block, scratch);
    backward_columns(args, block, scratch);
  });
}

}  // namespace

#define MMT_CONCAT_(a, b) a##b
#define MMT_CONCAT(a, b) MMT_CONCAT_(a, b)

extern const OpKernels<Wkv6Args> MMT_CONCAT(wkv6_kernels_, MMT_LEVEL);
const OpKernels<Wkv6Args> MMT_CONCAT(wkv6_kernels_, MMT_LEVEL) = {
    {scratch_of<ForwardScratch>, forward}, {scratch_of<BackwardScratch>, backward}};

}  // namespace mmtransmamba
