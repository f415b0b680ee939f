// Forward and backward selective scan for one instruction set level: the build
// compiles this file once per level with MMT_LANES and MMT_LEVEL set.
//
// Vectors run over channels. A lane then owns its channel's recurrence, the read-out
// over states needs no horizontal sum, B and C are broadcast, and any number of
// states works, also one. Only the gradients of B and C sum over lanes.

#include "selective_scan.h"

#include <cfloat>

#include "arena.h"
#include "tiles.h"
#include "vec.h"

namespace mmtransmamba {
namespace {

// States that one pass over a chunk carries in registers.
#if MMT_LANES == 16 || defined(__aarch64__)
constexpr int kStates = 8;
#else
constexpr int kStates = 4;
#endif

// Step sizes of a tile in place: plus bias, through softplus. Lanes beyond the last
// channel keep a harmless finite value. `slope` receives the derivative when wanted.
void activate_delta(float *tile, float *slope, Vec bias, bool soft, int64_t steps) {
  for (int64_t i = 0; i < steps; ++i) {
    Vec x = load(tile + i * kLanes) + bias;
    if (soft && slope) {
      Vec derivative;
      x = softplus(x, &derivative);
      store(slope + i * kLanes, derivative);
    } else if (soft) {
      x = softplus(x);
    }
    store(tile + i * kLanes, x);
  }
}

// The channels [first, first + lanes) of one batch entry and group.
struct Block {
  int64_t b, g, first, padded;
  int lanes;
};

struct Item {
  int64_t b, g, segment, begin, end;  // channels [begin, end) within the group
};

Item item_of(const ScanArgs &args, int64_t index) {
  const int64_t width = args.channels / args.groups;
  const int64_t padded = padded_group(args);
  const int64_t step =
      ((padded / kPadding + args.segments - 1) / args.segments) * kPadding;
  Item item;
  item.segment = index % args.segments;
  item.g = index / args.segments % args.groups;
  item.b = index / (args.segments * args.groups);
  item.begin = smaller(item.segment * step, width);
  item.end = smaller(item.begin + step, width);
  return item;
}

Block block_of(const ScanArgs &args, const Item &item, int64_t channel) {
  const int64_t width = args.channels / args.groups;
  return {item.b, item.g, item.g * width + channel,
          item.g * padded_group(args) + channel,
          static_cast<int>(smaller(kLanes, item.end - channel))};
}

float *at(const View &v, int64_t i, int64_t j, int64_t k) {
  return v.data + i * v.stride[0] + j * v.stride[1] + k * v.stride[2];
}

float *checkpoint(const ScanArgs &args, const Block &block, int64_t k, int64_t chunk) {
  const int64_t stored = (args.length - 1) / args.chunk;
  const int64_t row = (block.b * args.directions + k) * stored + chunk;
  return args.checkpoints + row * args.states * args.groups * padded_group(args) +
         block.padded;
}

// A [state][lane], times log2(e) when it is meant for exp2. Lanes with a step of zero
// multiply it by that, so it stays finite.
void read_a(float *tile, const ScanArgs &args, const Block &block, int64_t k,
            float scale) {
  const float *a = args.a.data + k * args.a.stride[0] + block.first * args.a.stride[1];
  for (int64_t n = 0; n < args.states; ++n)
    store(tile + n * kLanes,
          at_least(read_lanes(a + n * args.a.stride[2], args.a.stride[1], block.lanes) *
                       scale,
                   broadcast(-FLT_MAX)));
}

// Where step i of a chunk finds its row of B or C, states contiguous.
struct Rows {
  const float *base;
  int64_t stride;
  Index index;
  const float *operator[](int64_t i) const { return base + index[i] * stride; }
};

Rows rows_of(const View &v, const Block &block, int64_t k, Index index) {
  return {at(v, block.b, k, block.g), v.stride[3], index};
}

// Calls f.template run<NB>(n) for blocks of at most Most states that cover
// [0, states).
template <int Most, class F>
void for_state_blocks(int64_t states, F &&f) {
  int64_t n = 0;
  for (; n + Most <= states; n += Most) f.template run<Most>(n);
  if constexpr (Most > 4) {
    if (n + 4 <= states) {
      f.template run<4>(n);
      n += 4;
    }
  }
  if (Most > 2 && n + 2 <= states) {
    f.template run<2>(n);
    n += 2;
  }
  if (n < states) f.template run<1>(n);
}

// ------------------------------------------------------------------ forward

// Directions that are scanned together, if their decays are the same.
constexpr int kTogether = 4;

// PlainMamba's directions differ in their tokens and B only. The decays, which take
// most of the time, are then computed once for all of them.
bool same_decays(const ScanArgs &args) {
  return !args.permute_params && args.delta.stride[1] == 0 && args.a.stride[0] == 0 &&
         (!args.bias.data || args.bias.stride[0] == 0) && args.u.stride[1] == 0;
}

int64_t together(const ScanArgs &args) {
  return same_decays(args) ? smaller(args.directions, kTogether) : 1;
}

// A chunk of K directions with the same decays.
template <int K>
struct ForwardPass {
  static constexpr int kMostStates = K > 2 ? kStates / 2 : kStates;

  int64_t steps;
  const float *dt, *a2;  // delta, and A * log2(e) as [state][lane]
  const float *drive[K];  // delta * u
  float *state[K];        // [state][lane]
  float *y[K];
  Rows b[K], c[K];

  template <int NB>
  void run(int64_t n0) {
    // A copy, because a store through a float pointer might alias a member.
    const ForwardPass p = *this;
    Vec h[K][NB];
    for (int k = 0; k < K; ++k)
      for (int n = 0; n < NB; ++n) h[k][n] = load(p.state[k] + (n0 + n) * kLanes);
    for (int64_t i = 0; i < p.steps; ++i) {
      const Vec step = load(p.dt + i * kLanes);
      Vec decay[NB];
      for (int n = 0; n < NB; ++n)
        decay[n] = exp2_or_zero(step * load(p.a2 + (n0 + n) * kLanes));
      for (int k = 0; k < K; ++k) {
        const Vec x = load(p.drive[k] + i * kLanes);
        const float *bi = p.b[k][i] + n0, *ci = p.c[k][i] + n0;
        Vec out = load(p.y[k] + i * kLanes);
        for (int n = 0; n < NB; ++n) {
          h[k][n] = decay[n] * h[k][n] + x * bi[n];
          out += h[k][n] * ci[n];
        }
        store(p.y[k] + i * kLanes, out);
      }
    }
    for (int k = 0; k < K; ++k)
      for (int n = 0; n < NB; ++n) store(p.state[k] + (n0 + n) * kLanes, h[k][n]);
  }
};

// Whether step sizes are read chunk by chunk in the order of the scan. Directions with
// their own step sizes use each only once. Channels that are not contiguous are read
// in raster order, many steps at a time.
bool direct_delta(const ScanArgs &args) {
  return args.directions == 1 ||
         (args.delta.stride[1] != 0 && args.delta.stride[2] == 1);
}

struct ForwardScratch {
  // With several directions whole sequences are staged, because every direction
  // visits every token; a single one reads its tokens chunk by chunk.
  float *u, *delta, *y;
  float *dt, *gate;
  float *a2;
  float *drive, *out, *state;  // of each direction that is scanned together

  ForwardScratch(const ScanArgs &args, Arena &arena) {
    const int64_t tile = args.chunk * kLanes;
    const int64_t staged = args.directions > 1 ? args.length * kLanes : tile;
    u = arena.floats(staged);
    delta = arena.floats(direct_delta(args) ? 0 : staged);
    y = arena.floats(args.directions > 1 ? staged : 0);
    dt = arena.floats(tile);
    drive = arena.floats(together(args) * tile);
    out = arena.floats(together(args) * tile);
    gate = arena.floats(args.z.data ? tile : 0);
    a2 = arena.floats(args.states * kLanes);
    state = arena.floats(together(args) * args.states * kLanes);
  }
};

Vec lanes_of(const View &v, const Block &block, int64_t k) {
  if (!v.data) return Vec{};
  return read_lanes(v.data + k * v.stride[0] + block.first * v.stride[1], v.stride[1],
                    block.lanes);
}

// Reads `steps` step sizes from position `from` on and activates them.
void read_delta(float *tile, float *slope, const ScanArgs &args, const Block &block,
                int64_t k, int64_t from, Index index, int64_t steps) {
  const View &v = args.delta;
  read_tile(tile, at(v, block.b, k, block.first) + from * v.stride[3], v.stride[2],
            v.stride[3], index, steps, block.lanes);
  activate_delta(tile, slope, lanes_of(args.bias, block, k), args.softplus, steps);
}

void read_sequence(float *tile, const View &v, const Block &block, int64_t k,
                   int64_t from, Index index, int64_t steps) {
  read_tile(tile, at(v, block.b, k, block.first) + from * v.stride[3], v.stride[2],
            v.stride[3], index, steps, block.lanes);
}

bool restage_delta(const ScanArgs &args, int64_t k) {
  return k == 0 || args.delta.stride[1] != 0 ||
         (args.bias.data && args.bias.stride[0] != 0);
}

// The state after a chunk, for the backward pass.
void keep_state(const ScanArgs &args, const Block &block, int64_t k, int64_t chunk,
                const float *state) {
  float *p = checkpoint(args, block, k, chunk);
  const int64_t stride = args.groups * padded_group(args);
  for (int64_t n = 0; n < args.states; ++n)
    store_unaligned(p + n * stride, load(state + n * kLanes));
}

// Writes the output of a single direction, gated if there is a gate.
void write_single(const ScanArgs &args, const Block &block, const int32_t *token,
                  int64_t from, int64_t steps, ForwardScratch &s) {
  if (args.z.data) {
    const View &z = args.z;
    read_tile(s.gate, at(z, block.b, block.first, from), z.stride[1], z.stride[2],
              nullptr, steps, block.lanes);
    for (int64_t i = 0; i < steps * kLanes; i += kLanes) {
      const Vec gate = load(s.gate + i);
      store(s.out + i, load(s.out + i) * gate * sigmoid(gate));
    }
  }
  const View &y = args.y;
  write_tile(at(y, block.b, block.first, args.order ? 0 : from), y.stride[1],
             y.stride[2], args.order ? token + from : nullptr, s.out, steps,
             block.lanes);
}

// Scans the directions first, ..., first + K - 1.
template <int K>
void forward_directions(const ScanArgs &args, const Plan &plan, const Block &block,
                        int64_t first, ForwardScratch &s) {
  const bool single = args.directions == 1;
  const int64_t tile = args.chunk * kLanes, states = args.states * kLanes;
  const int32_t *token[K];
  const Tap *tap[K], *tap_end[K];
  Vec skip[K];
  for (int k = 0; k < K; ++k) {
    token[k] = plan.token + (first + k) * args.length;
    tap[k] = plan.taps ? plan.taps + (first + k) * args.taps : nullptr;
    tap_end[k] = plan.taps ? tap[k] + args.taps : nullptr;
    skip[k] = lanes_of(args.d, block, first + k);
  }
  const int32_t *param = args.permute_params ? token[0] : plan.identity;
  for (int64_t i = 0; i < K * states; i += kLanes) store(s.state + i, Vec{});
  read_a(s.a2, args, block, first, kLog2E);

  for (int64_t from = 0; from < args.length; from += args.chunk) {
    const int64_t steps = smaller(args.chunk, args.length - from);
    Index delta_row = param + from;
    if (single) {
      // Without an order the steps are consecutive and tiles can be transposed.
      read_sequence(s.u, args.u, block, 0, args.order ? 0 : from,
                    args.order ? token[0] + from : nullptr, steps);
    }
    if (direct_delta(args)) {
      const bool consecutive = !args.order || !args.permute_params;
      read_delta(s.dt, nullptr, args, block, first, consecutive ? from : 0,
                 consecutive ? nullptr : delta_row, steps);
    } else {
      for (int64_t i = 0; i < steps; ++i)
        store(s.dt + i * kLanes, load(s.delta + delta_row[i] * kLanes));
    }
    ForwardPass<K> pass;
    pass.steps = steps;
    pass.dt = s.dt;
    pass.a2 = s.a2;
    for (int k = 0; k < K; ++k) {
      Index u_row = single ? plan.identity : token[k] + from;
      float *drive = s.drive + k * tile, *out = s.out + k * tile;
      for (int64_t i = 0; i < steps; ++i) {
        const Vec x = load(s.u + u_row[i] * kLanes);
        store(drive + i * kLanes, load(s.dt + i * kLanes) * x);
        store(out + i * kLanes, skip[k] * x);
      }
      pass.drive[k] = drive;
      pass.y[k] = out;
      pass.state[k] = s.state + k * states;
      pass.b[k] = rows_of(args.b, block, first + k, param + from);
      pass.c[k] = rows_of(args.c, block, first + k, param + from);
    }
    for_state_blocks<ForwardPass<K>::kMostStates>(args.states, pass);
    for (int k = 0; k < K; ++k) {
      const float *out = s.out + k * tile;
      for (; tap[k] < tap_end[k] && tap[k]->step < from + steps; ++tap[k]) {
        const View &v = args.tapped;
        write_tile(
            at(v, block.b, first + k, block.first) + tap[k]->column * v.stride[3],
            v.stride[2], 0, nullptr, out + (tap[k]->step - from) * kLanes, 1,
            block.lanes);
      }
      if (single) {
        write_single(args, block, token[k], from, steps, s);
      } else {
        for (int64_t i = 0; i < steps; ++i) {
          float *row = s.y + token[k][from + i] * kLanes;
          store(row, load(row) + load(out + i * kLanes));
        }
      }
      if (args.checkpoints && from + steps < args.length)
        keep_state(args, block, first + k, from / args.chunk, s.state + k * states);
    }
  }
  if (args.last_state.data) {
    const View &v = args.last_state;
    for (int64_t n = 0; n < args.states; ++n)
      write_lanes(at(v, block.b, block.first, n), v.stride[1],
                  load(s.state + n * kLanes), block.lanes, false);
  }
}

void forward_block(const ScanArgs &args, const Plan &plan, const Block &block,
                   ForwardScratch &s) {
  const bool single = args.directions == 1;
  if (!single) {
    for (int64_t i = 0; i < args.length; ++i) store(s.y + i * kLanes, Vec{});
  }
  const int64_t most = together(args);
  for (int64_t k = 0; k < args.directions;) {
    if (!single) {
      if (k == 0 || args.u.stride[1] != 0)
        read_sequence(s.u, args.u, block, k, 0, nullptr, args.length);
      if (!direct_delta(args) && restage_delta(args, k))
        read_delta(s.delta, nullptr, args, block, k, 0, nullptr, args.length);
    }
    const int64_t left = smaller(most, args.directions - k);
    if (left >= 4) {
      forward_directions<4>(args, plan, block, k, s);
      k += 4;
    } else if (left >= 2) {
      forward_directions<2>(args, plan, block, k, s);
      k += 2;
    } else {
      forward_directions<1>(args, plan, block, k, s);
      k += 1;
    }
  }
  if (!single) {
    const View &y = args.y;
    write_tile(at(y, block.b, block.first, 0), y.stride[1], y.stride[2], nullptr, s.y,
               args.length, block.lanes);
  }
}

// ----------------------------------------------------------------- backward

struct BackwardScratch {
  float *u, *delta, *slope, *dy, *grad_u, *grad_delta;  // staged as in the forward
  float *x, *dt, *drive, *out_grad;                     // tiles in scan order
  float *gate, *out;                                    // only with z
  float *sum_b, *sum_a;
  float *state_product, *drive_product;  // [step][state of the block][lane]
  float *sums;
  float *a2, *state, *carry, *grad_a;

  BackwardScratch(const ScanArgs &args, Arena &arena) {
    const int64_t tile = args.chunk * kLanes;
    const int64_t staged = args.directions > 1 ? args.length * kLanes : tile;
    u = arena.floats(staged);
    delta = arena.floats(staged);
    slope = arena.floats(staged);
    dy = arena.floats(staged);
    grad_u = arena.floats(staged);
    grad_delta = arena.floats(staged);
    x = arena.floats(tile);
    dt = arena.floats(tile);
    drive = arena.floats(tile);
    out_grad = arena.floats(tile);
    gate = arena.floats(args.z.data ? tile : 0);
    out = arena.floats(args.z.data ? tile : 0);
    sum_b = arena.floats(tile);
    sum_a = arena.floats(tile);
    // Lane sums are taken for kLanes vectors at a time: room to round up.
    const int64_t products = (args.chunk * kStates + kLanes) * kLanes;
    state_product = arena.floats(products);
    drive_product = arena.floats(products);
    sums = arena.floats(args.chunk * kStates + kLanes);
    a2 = arena.floats(args.states * kLanes);
    state = arena.floats(args.states * kLanes);
    carry = arena.floats(args.states * kLanes);
    grad_a = arena.floats(args.states * kLanes);
  }
};

// Adds the lane sums of products[step][NB] to rows of a [step][state] gradient.
template <int NB>
void add_lane_sums(float *grad, int64_t states, Index row, int64_t n0, float *products,
                   float *sums, int64_t steps) {
  const int64_t count = steps * NB;
  int64_t i = count;
  for (; i % kLanes != 0; ++i) store(products + i * kLanes, Vec{});
  for (int64_t j = 0; j < i; j += kLanes) store(sums + j, sum_lanes(products + j * kLanes));
  for (int64_t t = 0; t < steps; ++t) {
    float *p = grad + row[t] * states + n0;
    for (int n = 0; n < NB; ++n) p[n] += sums[t * NB + n];
  }
}

struct BackwardPass {
  int64_t steps, states;
  BackwardScratch s;
  Rows b, c;
  bool gated;
  float *grad_b, *grad_c;  // [step][state], null when not wanted
  Index row;

  template <int NB>
  void run(int64_t n0) {
    recompute<NB>(n0);
    reverse<NB>(n0);
    if (grad_c)
      add_lane_sums<NB>(grad_c, states, row, n0, s.state_product, s.sums, steps);
    if (grad_b)
      add_lane_sums<NB>(grad_b, states, row, n0, s.drive_product, s.sums, steps);
  }

  // States of the chunk into state_product, decays into drive_product.
  template <int NB>
  void recompute(int64_t n0) {
    const BackwardPass p = *this;  // see ForwardPass
    const BackwardScratch &s = p.s;
    Vec h[NB];
    for (int n = 0; n < NB; ++n) h[n] = load(s.state + (n0 + n) * kLanes);
    for (int64_t i = 0; i < steps; ++i) {
      const Vec step = load(s.dt + i * kLanes), x = load(s.drive + i * kLanes);
      const float *bi = p.b[i] + n0;
      float *states_i = s.state_product + i * NB * kLanes;
      float *decay_i = s.drive_product + i * NB * kLanes;
      for (int n = 0; n < NB; ++n) {
        const Vec decay = exp2_or_zero(step * load(s.a2 + (n0 + n) * kLanes));
        h[n] = decay * h[n] + x * bi[n];
        store(decay_i + n * kLanes, decay);
        store(states_i + n * kLanes, h[n]);
      }
    }
    if (!gated) return;
    for (int64_t i = 0; i < steps; ++i) {
      const float *ci = c[i] + n0;
      const float *states_i = s.state_product + i * NB * kLanes;
      Vec out = load(s.out + i * kLanes);
      for (int n = 0; n < NB; ++n) out += load(states_i + n * kLanes) * ci[n];
      store(s.out + i * kLanes, out);
    }
  }

  // Walks back; every state and decay is replaced, after its last use, by the
  // product whose lane sum is the gradient of C or B.
  template <int NB>
  void reverse(int64_t n0) {
    const BackwardPass p = *this;
    const BackwardScratch &s = p.s;
    Vec carry[NB], grad_a[NB];
    for (int n = 0; n < NB; ++n) {
      carry[n] = load(s.carry + (n0 + n) * kLanes);
      grad_a[n] = load(s.grad_a + (n0 + n) * kLanes);
    }
    for (int64_t i = steps - 1; i >= 0; --i) {
      const Vec step = load(s.dt + i * kLanes), x = load(s.drive + i * kLanes);
      const Vec dy = load(s.out_grad + i * kLanes);
      const float *bi = p.b[i] + n0, *ci = p.c[i] + n0;
      float *states_i = s.state_product + i * NB * kLanes;
      float *decay_i = s.drive_product + i * NB * kLanes;
      const float *before =
          i > 0 ? states_i - NB * kLanes : s.state + n0 * kLanes;
      Vec sum_b = load(s.sum_b + i * kLanes), sum_a = load(s.sum_a + i * kLanes);
      for (int n = 0; n < NB; ++n) {
        const Vec dh = dy * ci[n] + carry[n];
        const Vec carried = dh * load(decay_i + n * kLanes);
        const Vec through_decay = carried * load(before + n * kLanes);
        carry[n] = carried;
        sum_b += dh * bi[n];
        sum_a += through_decay * load(s.a2 + (n0 + n) * kLanes);
        grad_a[n] += through_decay * step;
        store(states_i + n * kLanes, dy * load(states_i + n * kLanes));
        store(decay_i + n * kLanes, dh * x);
      }
      store(s.sum_b + i * kLanes, sum_b);
      store(s.sum_a + i * kLanes, sum_a);
    }
    for (int n = 0; n < NB; ++n) {
      store(s.carry + (n0 + n) * kLanes, carry[n]);
      store(s.grad_a + (n0 + n) * kLanes, grad_a[n]);
    }
  }
};

void write_sequence(const View &v, const Block &block, int64_t k, int64_t from,
                    Index index, const float *tile, int64_t steps) {
  if (!v.data) return;
  write_tile(at(v, block.b, k, block.first) + from * v.stride[3], v.stride[2],
             v.stride[3], index, tile, steps, block.lanes);
}

void zero_rows(float *tile, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) store(tile + i * kLanes, Vec{});
}

// dy of a chunk through the gate, and the gradient of z, which needs the ungated
// output that the passes over the states leave in s.out.
void gate_gradient(const ScanArgs &args, const Block &block, BackwardScratch &s,
                   int64_t from, int64_t steps) {
  const View &z = args.z;
  read_tile(s.gate, at(z, block.b, block.first, from), z.stride[1], z.stride[2],
            nullptr, steps, block.lanes);
  for (int64_t i = 0; i < steps * kLanes; i += kLanes) {
    const Vec gate = load(s.gate + i), dy = load(s.out_grad + i);
    const Vec sigma = sigmoid(gate);
    store(s.gate + i, dy * sigma * (1.0f + gate * (1.0f - sigma)));
    store(s.out_grad + i, dy * gate * sigma);
  }
}

// The [step][state] part of the gradient of B or C that this item sums up.
float *part_of(float *grad, bool shared, const ScanArgs &args, const Item &item,
               int64_t k) {
  if (!grad) return nullptr;
  const int64_t row = shared ? item.b : item.b * args.directions + k;
  return grad + ((row * args.groups + item.g) * args.segments + item.segment) *
                    args.length * args.states;
}

void backward_block(const ScanArgs &args, const Plan &plan, const Item &item,
                    const Block &block, BackwardScratch &s) {
  const bool single = args.directions == 1;
  const bool soft = args.softplus;
  const int64_t chunks = (args.length + args.chunk - 1) / args.chunk;
  const View &y = args.y;
  if (!single)
    read_tile(s.dy, at(y, block.b, block.first, 0), y.stride[1], y.stride[2], nullptr,
              args.length, block.lanes);

  for (int64_t k = 0; k < args.directions; ++k) {
    const int32_t *token = plan.token + k * args.length;
    const int32_t *param = args.permute_params ? token : plan.identity;
    const Tap *tap_begin = plan.taps ? plan.taps + k * args.taps : nullptr;
    const Tap *tap = plan.taps ? tap_begin + args.taps : nullptr;
    if (!single) {
      if (k == 0 || args.u.stride[1] != 0)
        read_sequence(s.u, args.u, block, k, 0, nullptr, args.length);
      if (restage_delta(args, k))
        read_delta(s.delta, s.slope, args, block, k, 0, nullptr, args.length);
      if (k == 0 || !args.shared_u) zero_rows(s.grad_u, args.length);
      if (k == 0 || !args.shared_delta) zero_rows(s.grad_delta, args.length);
    }
    read_a(s.a2, args, block, k, kLog2E);
    const Vec skip = lanes_of(args.d, block, k);
    Vec grad_skip = {}, grad_bias = {};
    zero_rows(s.grad_a, args.states);
    for (int64_t n = 0; n < args.states; ++n) {
      const View &v = args.last_state;
      store(s.carry + n * kLanes,
            v.data ? read_lanes(at(v, block.b, block.first, n), v.stride[1],
                                block.lanes)
                   : Vec{});
    }
    float *grad_b = part_of(args.grad_b, args.shared_b, args, item, k);
    float *grad_c = part_of(args.grad_c, args.shared_c, args, item, k);

    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const int64_t from = chunk * args.chunk;
      const int64_t steps = smaller(args.chunk, args.length - from);
      Index u_row = token + from, delta_row = param + from;
      // Where a single direction finds consecutive steps it needs no index.
      const bool u_consecutive = !args.order;
      const bool delta_consecutive = !args.order || !args.permute_params;
      Index u_index = u_consecutive ? nullptr : token + from;
      Index delta_index = delta_consecutive ? nullptr : token + from;
      const int64_t u_from = u_consecutive ? from : 0;
      const int64_t delta_from = delta_consecutive ? from : 0;
      if (single) {
        read_sequence(s.u, args.u, block, 0, u_from, u_index, steps);
        read_delta(s.delta, s.slope, args, block, 0, delta_from, delta_index, steps);
        read_tile(s.dy, at(y, block.b, block.first, u_from), y.stride[1], y.stride[2],
                  u_index, steps, block.lanes);
        u_row = delta_row = plan.identity;
      }
      for (int64_t i = 0; i < steps; ++i) {
        const Vec x = load(s.u + u_row[i] * kLanes);
        const Vec step = load(s.delta + delta_row[i] * kLanes);
        store(s.x + i * kLanes, x);
        store(s.dt + i * kLanes, step);
        store(s.drive + i * kLanes, step * x);
        store(s.out_grad + i * kLanes, load(s.dy + u_row[i] * kLanes));
        store(s.sum_b + i * kLanes, Vec{});
        store(s.sum_a + i * kLanes, Vec{});
      }
      for (; tap > tap_begin && tap[-1].step >= from; --tap) {
        const View &v = args.tapped;
        const Vec grad = read_lanes(at(v, block.b, k, block.first) +
                                        tap[-1].column * v.stride[3],
                                    v.stride[2], block.lanes);
        float *row = s.out_grad + (tap[-1].step - from) * kLanes;
        store(row, load(row) + grad);
      }
      if (args.z.data) {
        for (int64_t i = 0; i < steps * kLanes; i += kLanes)
          store(s.out + i, skip * load(s.x + i));
        gate_gradient(args, block, s, from, steps);
      }
      if (chunk > 0) {
        const float *p = checkpoint(args, block, k, chunk - 1);
        const int64_t stride = args.groups * padded_group(args);
        for (int64_t n = 0; n < args.states; ++n)
          store(s.state + n * kLanes, load_unaligned(p + n * stride));
      } else {
        zero_rows(s.state, args.states);
      }
      for_state_blocks<kStates>(
          args.states,
          BackwardPass{steps, args.states, s, rows_of(args.b, block, k, param + from),
                       rows_of(args.c, block, k, param + from),
                       args.grad_z.data != nullptr,
                       grad_b, grad_c, param + from});
      for (int64_t i = 0; i < steps; ++i) {
        const Vec x = load(s.x + i * kLanes), dy = load(s.out_grad + i * kLanes);
        const Vec sum_b = load(s.sum_b + i * kLanes);
        const Vec grad_u = load(s.dt + i * kLanes) * sum_b + dy * skip;
        // sum_a was taken with A * log2(e).
        Vec grad_delta = x * sum_b + load(s.sum_a + i * kLanes) * kLn2;
        if (soft) grad_delta *= load(s.slope + delta_row[i] * kLanes);
        grad_skip += dy * x;
        grad_bias += grad_delta;
        float *u_out = s.grad_u + u_row[i] * kLanes;
        float *delta_out = s.grad_delta + delta_row[i] * kLanes;
        store(u_out, single ? grad_u : load(u_out) + grad_u);
        store(delta_out, single ? grad_delta : load(delta_out) + grad_delta);
      }
      if (single) {
        write_sequence(args.grad_u, block, 0, u_from, u_index, s.grad_u, steps);
        write_sequence(args.grad_delta, block, 0, delta_from, delta_index,
                       s.grad_delta, steps);
        if (args.grad_z.data) {
          for (int64_t i = 0; i < steps * kLanes; i += kLanes)
            store(s.gate + i, load(s.gate + i) * load(s.out + i));
          const View &v = args.grad_z;
          write_tile(at(v, block.b, block.first, from), v.stride[1], v.stride[2],
                     nullptr, s.gate, steps, block.lanes);
        }
      }
    }

    const bool last = k == args.directions - 1;
    if (!single && (last || !args.shared_u))
      write_sequence(args.grad_u, block, k, 0, nullptr, s.grad_u, args.length);
    if (!single && (last || !args.shared_delta))
      write_sequence(args.grad_delta, block, k, 0, nullptr, s.grad_delta, args.length);
    if (args.grad_a.data) {
      const View &v = args.grad_a;
      for (int64_t n = 0; n < args.states; ++n)
        write_lanes(at(v, block.b, k, block.first) + n * v.stride[3], v.stride[2],
                    load(s.grad_a + n * kLanes), block.lanes,
                    k > 0 && v.stride[1] == 0);
    }
    const View *vectors[] = {&args.grad_d, &args.grad_bias};
    const Vec values[] = {grad_skip, grad_bias};
    for (int i = 0; i < 2; ++i) {
      const View &v = *vectors[i];
      if (v.data)
        write_lanes(at(v, block.b, k, block.first), v.stride[2], values[i],
                    block.lanes, k > 0 && v.stride[1] == 0);
    }
  }
}

void zero_parts(float *grad, bool shared, const ScanArgs &args, const Item &item) {
  if (!grad) return;
  for (int64_t k = 0; k < (shared ? 1 : args.directions); ++k)
    std::memset(part_of(grad, shared, args, item, k), 0,
                static_cast<size_t>(args.length * args.states) * sizeof(float));
}

size_t forward_scratch(const ScanArgs &args) {
  Arena arena(nullptr);
  ForwardScratch scratch(args, arena);
  return arena.used();
}

size_t backward_scratch(const ScanArgs &args) {
  Arena arena(nullptr);
  BackwardScratch scratch(args, arena);
  return arena.used();
}

void forward(const ScanArgs &args, const Plan &plan, int64_t index, char *memory) {
  Arena arena(memory);
  ForwardScratch scratch(args, arena);
  const Item item = item_of(args, index);
  for (int64_t c = item.begin; c < item.end; c += kLanes)
    forward_block(args, plan, block_of(args, item, c), scratch);
}

void backward(const ScanArgs &args, const Plan &plan, int64_t index, char *memory) {
  Arena arena(memory);
  BackwardScratch scratch(args, arena);
  const Item item = item_of(args, index);
  zero_parts(args.grad_b, args.shared_b, args, item);
  zero_parts(args.grad_c, args.shared_c, args, item);
  for (int64_t c = item.begin; c < item.end; c += kLanes)
    backward_block(args, plan, item, block_of(args, item, c), scratch);
}

}  // namespace

#define MMT_CONCAT_(a, b) a##b
#define MMT_CONCAT(a, b) MMT_CONCAT_(a, b)
#define MMT_STRING_(a) #a
#define MMT_STRING(a) MMT_STRING_(a)

extern const Kernels MMT_CONCAT(kernels_, MMT_LEVEL);
const Kernels MMT_CONCAT(kernels_, MMT_LEVEL) = {
    MMT_STRING(MMT_LEVEL), forward_scratch, backward_scratch, forward, backward};

}  // namespace mmtransmamba
