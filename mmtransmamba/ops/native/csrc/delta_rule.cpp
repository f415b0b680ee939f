// Forward and backward recurrence of the gated delta rule for one instruction set
// level: the build compiles this file once per level with MMT_LANES and MMT_LEVEL set.
//
// With the decay a of a step (one for all key channels, or one for each),
//
//   S' = a * S      d = beta (v - S'^T k)      S = S' + k d^T      y = scale S^T q
//
// The columns of a state, one per value channel, do not depend on each other, and a
// block of them fits the first cache. The form by chunks (arXiv:2412.06464) needs more
// multiplications than the recurrence unless a step can reuse what it has loaded; here
// every pass over the state makes the rest of one step and the beginning of the next,
// in which the state is stored already decayed. That needs no care with decays whose
// product leaves the range of a float, and is the same for both kinds of gates.
//
// The backward pass goes through chunks of steps from the last to the first. It
// computes the states of a chunk anew from the one before it, which is kept.

#include "delta_rule.h"

#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "arena.h"
#include "kernels.h"
#include "vec.h"

namespace mmtransmamba {
namespace {

#if MMT_LANES == 16 || defined(__aarch64__)
constexpr int kMaxVecs = 4;  // 32 registers
#else
constexpr int kMaxVecs = 2;
#endif
// Floats of the states of one chunk and block that a second-level cache holds.
constexpr int64_t kStash = 1 << 18;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

float *at(const View &v, int64_t i, int64_t j, int64_t k) {
  return v.data + i * v.stride[0] + j * v.stride[1] + k * v.stride[2];
}

// Copies rows of contiguous values.
void copy_rows(float *dst, int64_t dst_stride, const float *src, int64_t src_stride,
               int64_t rows, int64_t count) {
  for (int64_t i = 0; i < rows; ++i)
    std::memcpy(dst + i * dst_stride, src + i * src_stride, count * sizeof(float));
}

void clear(float *data, int64_t count) { std::memset(data, 0, count * sizeof(float)); }

// Value channels [first, first + count), padded to whole vectors.
struct Columns {
  int64_t first, count;
};

// Calls f(columns, number of vectors as a constant) for all value channels.
template <class F>
void for_columns(const DeltaRuleArgs &args, int64_t most, F &&f) {
  for (int64_t first = 0; first < args.values;) {
    const int64_t left = args.values - first;
    int64_t vecs = 1;
    while (2 * vecs <= most && vecs * kLanes < left) vecs *= 2;
    const Columns columns{first, smaller(vecs * kLanes, left)};
    switch (vecs) {
      case 4: f(columns, std::integral_constant<int, 4>()); break;
      case 2: f(columns, std::integral_constant<int, 2>()); break;
      default: f(columns, std::integral_constant<int, 1>());
    }
    first += vecs * kLanes;
  }
}

struct Item {
  int64_t b, h, g;
};

Item item_of(const DeltaRuleArgs &args, int64_t index) {
  const int64_t h = index % args.heads;
  return {index / args.heads, h, h / (args.heads / args.groups)};
}

float *checkpoint(const DeltaRuleArgs &args, const Item &item, int64_t chunk) {
  const int64_t stored = (args.length - 1) / args.chunk;
  const int64_t row = (item.b * args.heads + item.h) * stored + chunk - 1;
  return args.checkpoints + row * args.keys * args.values;
}

// What all columns share in the steps of a chunk. Row i + 1 is of step i. The rows
// around them are of steps that leave a state alone, so that no pass needs an exception.
struct Chunk {
  int64_t index, first, steps;
  float *q, *k, *decay;  // [step][key channel], q scaled
  float *beta;           // [step]
  float *v;              // [step][value channel]
  int64_t row, value_row;

  Chunk(const DeltaRuleArgs &args, Arena &arena)
      : row(padded(args.keys)), value_row(padded(args.values) + kMaxVecs * kLanes) {
    const int64_t rows = (args.chunk + 2) * row;
    q = arena.floats(rows);
    k = arena.floats(rows);
    decay = arena.floats(rows);
    beta = arena.floats(args.chunk);
    v = arena.floats(args.chunk * value_row);
  }

  void read(const DeltaRuleArgs &args, const Item &item, int64_t i) {
    index = i;
    first = i * args.chunk;
    steps = smaller(args.chunk, args.length - first);
    const int64_t rows = (steps + 2) * row;
    clear(q, rows);
    clear(k, rows);
    copy_rows(k + row, row, at(args.k, item.b, first, item.g), args.k.stride[1], steps,
              args.keys);
    copy_rows(q + row, row, at(args.q, item.b, first, item.g), args.q.stride[1], steps,
              args.keys);
    const float scale = static_cast<float>(args.scale);
    for (int64_t j = 0; j < rows; j += kLanes) store(q + j, load(q + j) * scale);
    read_decays(args, item);
    const float *betas = at(args.beta, item.b, first, item.h);
    for (int64_t j = 0; j < steps; ++j) beta[j] = betas[j * args.beta.stride[1]];
    read_values(args, args.v, item, v);
  }

  void read_values(const DeltaRuleArgs &args, const View &view, const Item &item,
                   float *tile) const {
    clear(tile, steps * value_row);
    copy_rows(tile, value_row, at(view, item.b, first, item.h), view.stride[1], steps,
              args.values);
  }

  void write_values(const DeltaRuleArgs &args, const View &view, const Item &item,
                    const float *tile) const {
    copy_rows(at(view, item.b, first, item.h), view.stride[1], tile, value_row, steps,
              args.values);
  }

 private:
  void read_decays(const DeltaRuleArgs &args, const Item &item) {
    clear(decay, (steps + 1) * row);
    for (int64_t i = 0; i < steps; ++i) {
      const float *gate = at(args.gate, item.b, first + i, item.h);
      float *out = decay + (i + 1) * row;
      const int64_t stride = args.channel_gate ? args.gate.stride[3] : 0;
      for (int64_t j = 0; j < args.keys; ++j) out[j] = gate[j * stride];
      if (args.channel_gate) {
        for (int64_t j = 0; j < row; j += kLanes) store(out + j, exp_or_zero(load(out + j)));
      } else {
        const Vec all = exp_or_zero(load(out));
        for (int64_t j = 0; j < row; j += kLanes) store(out + j, broadcast(all[0]));
      }
    }
    float *after = decay + (steps + 1) * row;
    for (int64_t j = 0; j < row; j += kLanes) store(after + j, broadcast(1.0f));
  }
};

// The state before a chunk, [key channel][column], the padding zero.
void read_before(const DeltaRuleArgs &args, const Item &item, const Chunk &chunk,
                 const Columns &columns, int64_t width, float *state) {
  clear(state, args.keys * width);
  if (chunk.index > 0)
    copy_rows(state, width, checkpoint(args, item, chunk.index) + columns.first,
              args.values, args.keys, columns.count);
  else if (args.initial_state.data)
    copy_rows(state, width,
              at(args.initial_state, item.b, item.h, 0) + columns.first,
              args.initial_state.stride[2], args.keys, columns.count);
}

// Decays a state by the step at row `next` and reads out what its key recalls.
template <int kVecs>
void begin(const DeltaRuleArgs &args, const Chunk &chunk, int64_t next,
           const float *state, float *decayed, Vec *recalled) {
  const float *k = chunk.k + next * chunk.row, *decay = chunk.decay + next * chunk.row;
  for (int j = 0; j < kVecs; ++j) recalled[j] = Vec{};
  for (int64_t i = 0; i < args.keys; ++i)
    for (int j = 0; j < kVecs; ++j) {
      const int64_t place = (i * kVecs + j) * kLanes;
      const Vec value = load(state + place) * decay[i];
      recalled[j] += value * k[i];
      store(decayed + place, value);
    }
}

// Ends the step at row `now` and begins the next one: adds the key times `delta` to the
// decayed state `from`, reads it with the query, and leaves it decayed in `to`.
template <int kVecs, bool kRead>
void advance(const DeltaRuleArgs &args, const Chunk &chunk, int64_t now,
             const float *from, float *to, const Vec *delta, Vec *recalled, Vec *y) {
  const float *k = chunk.k + now * chunk.row, *q = chunk.q + now * chunk.row;
  const float *next_k = k + chunk.row, *decay = chunk.decay + (now + 1) * chunk.row;
  Vec sum[kVecs] = {}, out[kVecs] = {}, added[kVecs];
  for (int j = 0; j < kVecs; ++j) added[j] = delta[j];
  for (int64_t i = 0; i < args.keys; ++i) {
    for (int j = 0; j < kVecs; ++j) {
      const int64_t place = (i * kVecs + j) * kLanes;
      const Vec state = load(from + place) + added[j] * k[i];
      if (kRead) out[j] += state * q[i];
      const Vec decayed = state * decay[i];
      sum[j] += decayed * next_k[i];
      store(to + place, decayed);
    }
  }
  for (int j = 0; j < kVecs; ++j) {
    recalled[j] = sum[j];
    if (kRead) y[j] = out[j];
  }
}

// ------------------------------------------------------------------ forward

struct ForwardScratch {
  Chunk chunk;
  float *y;       // [step][value channel]
  float *states;  // of each block of columns [key channel][column]

  ForwardScratch(const DeltaRuleArgs &args, Arena &arena)
      : chunk(args, arena),
        y(arena.floats(args.chunk * chunk.value_row)),
        states(arena.floats(args.keys * chunk.value_row)) {}

  float *state(const DeltaRuleArgs &args, const Columns &columns) const {
    return states + args.keys * columns.first;
  }
};

template <int kVecs>
void forward_columns(const DeltaRuleArgs &args, const Item &item,
                     const Columns &columns, const ForwardScratch &s) {
  const Chunk &chunk = s.chunk;
  float *state = s.state(args, columns);
  if (args.checkpoints && chunk.index > 0)
    copy_rows(checkpoint(args, item, chunk.index) + columns.first, args.values, state,
              kVecs * kLanes, args.keys, columns.count);
  Vec recalled[kVecs], delta[kVecs], y[kVecs];
  begin<kVecs>(args, chunk, 1, state, state, recalled);
  for (int64_t i = 0; i < chunk.steps; ++i) {
    const int64_t place = i * chunk.value_row + columns.first;
    for (int j = 0; j < kVecs; ++j)
      delta[j] = (load(chunk.v + place + j * kLanes) - recalled[j]) * chunk.beta[i];
    advance<kVecs, true>(args, chunk, i + 1, state, state, delta, recalled, y);
    for (int j = 0; j < kVecs; ++j) store(s.y + place + j * kLanes, y[j]);
  }
}

void forward(const DeltaRuleArgs &args, int64_t index, char *memory) {
  Arena arena(memory);
  ForwardScratch s(args, arena);
  const Item item = item_of(args, index);
  for (int64_t i = 0; i * args.chunk < args.length; ++i) {
    s.chunk.read(args, item, i);
    for_columns(args, kMaxVecs, [&](const Columns &columns, auto vecs) {
      if (i == 0)
        read_before(args, item, s.chunk, columns, vecs * kLanes,
                    s.state(args, columns));
      forward_columns<vecs>(args, item, columns, s);
    });
    s.chunk.write_values(args, args.y, item, s.y);
  }
  for_columns(args, kMaxVecs, [&](const Columns &columns, auto vecs) {
    copy_rows(at(args.last_state, item.b, item.h, 0) + columns.first,
              args.last_state.stride[2], s.state(args, columns), vecs * kLanes,
              args.keys, columns.count);
  });
}

// ----------------------------------------------------------------- backward

// Vectors of a block of columns whose states of one chunk stay in the cache.
int64_t backward_vecs(const DeltaRuleArgs &args) {
  int64_t vecs = kMaxVecs;
  while (vecs > 1 && (args.chunk + 1) * args.keys * vecs * kLanes > kStash) vecs /= 2;
  return vecs;
}

struct BackwardScratch {
  Chunk chunk;
  float *grad_y, *grad_v;           // [step][value channel]
  float *grad_q, *grad_k, *grad_a;  // [step][key channel]; of a, that of its logarithm
  float *grad_beta;                 // [step]
  float *grad_states;               // of each block of columns [key channel][column]
  float *stash;                     // decayed states, [step][key channel][column]
  float *deltas, *errors;           // [step][column]: d and v - S'^T k
  float *q_lanes, *k_lanes, *a_lanes;  // [key channel][lane], to be summed

  BackwardScratch(const DeltaRuleArgs &args, Arena &arena) : chunk(args, arena) {
    const int64_t values = args.chunk * chunk.value_row, keys = args.chunk * chunk.row;
    const int64_t width = backward_vecs(args) * kLanes;
    grad_y = arena.floats(values);
    grad_v = arena.floats(values);
    grad_q = arena.floats(keys);
    grad_k = arena.floats(keys);
    grad_a = arena.floats(keys);
    grad_beta = arena.floats(args.chunk);
    grad_states = arena.floats(args.keys * chunk.value_row);
    stash = arena.floats((args.chunk + 1) * args.keys * width);
    deltas = arena.floats(args.chunk * width);
    errors = arena.floats(args.chunk * width);
    q_lanes = arena.floats(chunk.row * kLanes);
    k_lanes = arena.floats(chunk.row * kLanes);
    a_lanes = arena.floats(chunk.row * kLanes);
  }

  float *grad_state(const DeltaRuleArgs &args, const Columns &columns) const {
    return grad_states + args.keys * columns.first;
  }
};

// Computes the states of a chunk and what is added to them once more.
template <int kVecs>
void recompute(const DeltaRuleArgs &args, const Columns &columns,
               const BackwardScratch &s) {
  constexpr int64_t kWidth = kVecs * kLanes;
  const Chunk &chunk = s.chunk;
  Vec recalled[kVecs], delta[kVecs];
  begin<kVecs>(args, chunk, 1, s.stash, s.stash, recalled);
  for (int64_t i = 0; i < chunk.steps; ++i) {
    const float *v = chunk.v + i * chunk.value_row + columns.first;
    for (int j = 0; j < kVecs; ++j) {
      const Vec error = load(v + j * kLanes) - recalled[j];
      delta[j] = error * chunk.beta[i];
      store(s.errors + i * kWidth + j * kLanes, error);
      store(s.deltas + i * kWidth + j * kLanes, delta[j]);
    }
    if (i + 1 < chunk.steps) {
      const float *from = s.stash + i * args.keys * kWidth;
      advance<kVecs, false>(args, chunk, i + 1, from, s.stash + (i + 1) * args.keys * kWidth,
                            delta, recalled, nullptr);
    }
  }
}

// One step. `grad` holds the gradient of the state after it, what its own output adds
// included, and `grad_delta` that of d; afterwards they are those of the step before.
template <int kVecs>
void retreat(const DeltaRuleArgs &args, const Chunk &chunk, const BackwardScratch &s,
             int64_t i, const float *grad_y, const float *before_grad_y, float *grad,
             Vec *grad_delta) {
  constexpr int64_t kWidth = kVecs * kLanes;
  const int64_t now = (i + 1) * chunk.row;
  const float *k = chunk.k + now, *decay = chunk.decay + now;
  const float *before_k = k - chunk.row, *before_q = chunk.q + now - chunk.row;
  const float *decayed = s.stash + i * args.keys * kWidth;
  Vec dy[kVecs], before_dy[kVecs], delta[kVecs], recall[kVecs], sum[kVecs] = {};
  for (int j = 0; j < kVecs; ++j) {
    dy[j] = load(grad_y + j * kLanes);
    before_dy[j] = before_grad_y ? load(before_grad_y + j * kLanes) : Vec{};
    delta[j] = load(s.deltas + i * kWidth + j * kLanes);
    recall[j] = -chunk.beta[i] * grad_delta[j];
  }
  for (int64_t n = 0; n < args.keys; ++n) {
    Vec dq = {}, dk = {}, da = {};
    for (int j = 0; j < kVecs; ++j) {
      const int64_t place = (n * kVecs + j) * kLanes;
      const Vec state = load(decayed + place);
      Vec g = load(grad + place);
      dq += state * dy[j];
      dk += g * delta[j];
      dk += state * recall[j];
      g += recall[j] * k[n];
      da += g * state;
      g *= decay[n];
      g += before_dy[j] * before_q[n];
      sum[j] += g * before_k[n];
      store(grad + place, g);
    }
    store(s.q_lanes + n * kLanes, dq);
    store(s.k_lanes + n * kLanes, dk);
    store(s.a_lanes + n * kLanes, da);
  }
  for (int j = 0; j < kVecs; ++j) grad_delta[j] = sum[j];
}

template <int kVecs>
void backward_columns(const DeltaRuleArgs &args, const Columns &columns,
                      const BackwardScratch &s) {
  constexpr int64_t kWidth = kVecs * kLanes;
  const Chunk &chunk = s.chunk;
  float *grad = s.grad_state(args, columns);
  recompute<kVecs>(args, columns, s);

  // What the last output adds to the gradient of the state.
  Vec grad_delta[kVecs] = {};
  const float *last_y = s.grad_y + (chunk.steps - 1) * chunk.value_row + columns.first;
  const float *last_k = chunk.k + chunk.steps * chunk.row;
  const float *last_q = chunk.q + chunk.steps * chunk.row;
  for (int64_t n = 0; n < args.keys; ++n)
    for (int j = 0; j < kVecs; ++j) {
      float *place = grad + (n * kVecs + j) * kLanes;
      const Vec g = load(place) + load(last_y + j * kLanes) * last_q[n];
      grad_delta[j] += g * last_k[n];
      store(place, g);
    }

  const float scale = static_cast<float>(args.scale);
  for (int64_t i = chunk.steps - 1; i >= 0; --i) {
    const float *grad_y = s.grad_y + i * chunk.value_row + columns.first;
    float *grad_v = s.grad_v + i * chunk.value_row + columns.first;
    Vec through_beta = {}, through_query = {};
    for (int j = 0; j < kVecs; ++j) {
      const int64_t place = i * kWidth + j * kLanes;
      through_beta += grad_delta[j] * load(s.errors + place);
      through_query += load(grad_y + j * kLanes) * load(s.deltas + place);
      store(grad_v + j * kLanes, grad_delta[j] * chunk.beta[i]);
    }
    s.grad_beta[i] += sum_of(through_beta);
    const float read = sum_of(through_query);
    retreat<kVecs>(args, chunk, s, i, grad_y, i ? grad_y - chunk.value_row : nullptr,
                   grad, grad_delta);
    const float *k = chunk.k + (i + 1) * chunk.row;
    for (int64_t n = 0; n < chunk.row; n += kLanes) {
      float *dq = s.grad_q + i * chunk.row + n, *dk = s.grad_k + i * chunk.row + n;
      float *da = s.grad_a + i * chunk.row + n;
      const Vec query = sum_lanes(s.q_lanes + n * kLanes) + load(k + n) * read;
      store(dq, load(dq) + query * scale);
      store(dk, load(dk) + sum_lanes(s.k_lanes + n * kLanes));
      store(da, load(da) + sum_lanes(s.a_lanes + n * kLanes));
    }
  }
}

void write_gradients(const DeltaRuleArgs &args, const Item &item,
                     const BackwardScratch &s) {
  const Chunk &chunk = s.chunk;
  const int64_t first = chunk.first;
  if (args.grad_q.data)
    copy_rows(at(args.grad_q, item.b, first, item.h), args.grad_q.stride[1], s.grad_q,
              chunk.row, chunk.steps, args.keys);
  if (args.grad_k.data)
    copy_rows(at(args.grad_k, item.b, first, item.h), args.grad_k.stride[1], s.grad_k,
              chunk.row, chunk.steps, args.keys);
  if (args.grad_v.data) chunk.write_values(args, args.grad_v, item, s.grad_v);
  for (int64_t i = 0; i < chunk.steps; ++i) {
    if (args.grad_beta.data)
      *at(args.grad_beta, item.b, first + i, item.h) = s.grad_beta[i];
    if (!args.grad_gate.data) continue;
    float *gate = at(args.grad_gate, item.b, first + i, item.h);
    const float *grad = s.grad_a + i * chunk.row;
    if (args.channel_gate) {
      std::memcpy(gate, grad, args.keys * sizeof(float));
    } else {
      Vec total = {};
      for (int64_t n = 0; n < chunk.row; n += kLanes) total += load(grad + n);
      *gate = sum_of(total);
    }
  }
}

void backward(const DeltaRuleArgs &args, int64_t index, char *memory) {
  Arena arena(memory);
  BackwardScratch s(args, arena);
  const Item item = item_of(args, index);
  const int64_t most = backward_vecs(args);
  clear(s.grad_states, args.keys * s.chunk.value_row);
  clear(s.q_lanes, s.chunk.row * kLanes);
  clear(s.k_lanes, s.chunk.row * kLanes);
  clear(s.a_lanes, s.chunk.row * kLanes);
  if (args.last_state.data)
    for_columns(args, most, [&](const Columns &columns, auto vecs) {
      copy_rows(s.grad_state(args, columns), vecs * kLanes,
                at(args.last_state, item.b, item.h, 0) + columns.first,
                args.last_state.stride[2], args.keys, columns.count);
    });
  for (int64_t i = (args.length - 1) / args.chunk; i >= 0; --i) {
    Chunk &chunk = s.chunk;
    chunk.read(args, item, i);
    chunk.read_values(args, args.y, item, s.grad_y);
    for (float *grad : {s.grad_q, s.grad_k, s.grad_a})
      clear(grad, chunk.steps * chunk.row);
    clear(s.grad_beta, chunk.steps);
    for_columns(args, most, [&](const Columns &columns, auto vecs) {
      read_before(args, item, chunk, columns, vecs * kLanes, s.stash);
      backward_columns<vecs>(args, columns, s);
    });
    write_gradients(args, item, s);
  }
  if (args.grad_initial.data)
    for_columns(args, most, [&](const Columns &columns, auto vecs) {
      copy_rows(at(args.grad_initial, item.b, item.h, 0) + columns.first,
                args.grad_initial.stride[2], s.grad_state(args, columns),
                vecs * kLanes, args.keys, columns.count);
    });
}

template <class Scratch>
size_t scratch_of(const DeltaRuleArgs &args) {
  Arena arena(nullptr);
  Scratch scratch(args, arena);
  return arena.used();
}

}  // namespace

#define MMT_CONCAT_(a, b) a##b
#define MMT_CONCAT(a, b) MMT_CONCAT_(a, b)

extern const OpKernels<DeltaRuleArgs> MMT_CONCAT(delta_rule_kernels_, MMT_LEVEL);
const OpKernels<DeltaRuleArgs> MMT_CONCAT(delta_rule_kernels_, MMT_LEVEL) = {
    {scratch_of<ForwardScratch>, forward}, {scratch_of<BackwardScratch>, backward}};

}  // namespace mmtransmamba
