// Forward and backward scan of Mamba-2 (SSD) for one instruction set level: the build
// compiles this file once per level with MMT_LANES and MMT_LEVEL set.
//
// arXiv:2405.21060, section 6: inside a chunk of steps the scan is an attention,
// masked by the decay between two steps, and from chunk to chunk the state is carried
// on. With q = C, k = B, v = dt * x, the decay E[i, j] from step j to step i, the
// decay e[i] from the start of the chunk to step i, f[j] from step j to its end and t
// across it:
//
//   y  = (q k^T * E) v + e * (q h)          h' = t * h + k^T (f * v)
//
// A state is [n][p] here: that is how it multiplies q and how k^T v makes it.

#include "ssd.h"

#include <cstring>

#include "arena.h"
#include "kernels.h"
#include "matmul.h"
#include "vec.h"

namespace mmtransmamba {
namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Logarithm of the strongest decay of one step. No sum of them over a chunk overflows,
// and no growth that a float can express makes up for one of them.
constexpr double kStrongest = -1e5;

Tile tile_of(Arena &arena, int64_t rows, int64_t columns) {
  return {arena.floats(padded(rows) * padded(columns)), padded(columns)};
}

float *at(const View &v, int64_t i, int64_t j, int64_t k = 0) {
  return v.data + i * v.stride[0] + j * v.stride[1] + k * v.stride[2];
}

// Reads rows of contiguous values; the padding becomes zero.
void read_tile(const Tile &tile, const float *src, int64_t stride, int64_t rows,
               int64_t columns) {
  for (int64_t i = 0; i < padded(rows); ++i) {
    const int64_t count = i < rows ? columns : 0;
    if (count) std::memcpy(tile.row(i), src + i * stride, count * sizeof(float));
    std::memset(tile.row(i) + count, 0, (tile.columns - count) * sizeof(float));
  }
}

void write_tile(float *dst, int64_t stride, const Tile &tile, int64_t rows,
                int64_t columns) {
  for (int64_t i = 0; i < rows; ++i)
    std::memcpy(dst + i * stride, tile.row(i), columns * sizeof(float));
}

void zero(const Tile &tile, int64_t rows) {
  std::memset(tile.data, 0, padded(rows) * tile.columns * sizeof(float));
}

// out = factor of each row * tile.
void scale_rows(const Tile &out, const Tile &tile, const float *factor, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < tile.columns; j += kLanes)
      store(out.row(i) + j, load(tile.row(i) + j) * factor[i]);
}

IntVec lanes() {
  IntVec lane;
  for (int j = 0; j < kLanes; ++j) lane[j] = j;
  return lane;
}

float dot(const float *a, const float *b, int64_t count) {
  Vec total = {};
  for (int64_t j = 0; j < count; j += kLanes) total += load(a + j) * load(b + j);
  return sum_of(total);
}

// The heads [begin, end) of group g of batch entry b.
struct Item {
  int64_t b, g, segment, begin, end;
};

Item item_of(const SsdArgs &args, int64_t index) {
  const int64_t width = args.heads / args.groups;
  Item item;
  item.segment = index % args.segments;
  item.g = index / args.segments % args.groups;
  item.b = index / (args.segments * args.groups);
  item.begin = item.g * width + item.segment * width / args.segments;
  item.end = item.g * width + (item.segment + 1) * width / args.segments;
  return item;
}

int64_t heads_of_segment(const SsdArgs &args) {
  const int64_t width = args.heads / args.groups;
  return (width + args.segments - 1) / args.segments;
}

float *checkpoint(const SsdArgs &args, int64_t b, int64_t head, int64_t chunk) {
  const int64_t stored = (args.length - 1) / args.chunk;
  const int64_t row = (b * args.heads + head) * stored + chunk - 1;
  return args.checkpoints + row * args.states * padded(args.width);
}

// A chunk of steps and what all heads of a group share in it.
struct Chunk {
  int64_t index, first, steps;
  Tile keys, queries;    // [step][n]
  Tile keys_transposed;  // [n][step]
  Tile scores;           // [i][j] = q_i k_j, as far as the decay reaches

  Chunk(const SsdArgs &args, Arena &arena)
      : keys(tile_of(arena, args.chunk, args.states)),
        queries(tile_of(arena, args.chunk, args.states)),
        keys_transposed(tile_of(arena, args.states, args.chunk)),
        scores(tile_of(arena, args.chunk, args.chunk)) {}

  void read(const SsdArgs &args, const Item &item, int64_t i) {
    index = i;
    first = i * args.chunk;
    steps = smaller(args.chunk, args.length - first);
    read_tile(keys, at(args.b, item.b, first, item.g), args.b.stride[1], steps,
              args.states);
    read_tile(queries, at(args.c, item.b, first, item.g), args.c.stride[1], steps,
              args.states);
    transpose(keys, steps, args.states, keys_transposed);
    multiply<Part::kLowerResult>(steps, args.states, steps, queries, keys_transposed,
                                 scores);
  }
};

// The decays of one head within a chunk.
struct Decays {
  float *dt, *from_start, *to_end;  // [step]
  float *high, *low;                // sum of the log decays up to a step
  float total;
  Tile between;    // [i][j], 0 above the diagonal
  Tile attention;  // the same times the scores

  Decays(const SsdArgs &args, Arena &arena)
      : dt(arena.floats(padded(args.chunk))),
        from_start(arena.floats(padded(args.chunk))),
        to_end(arena.floats(padded(args.chunk))),
        high(arena.floats(padded(args.chunk))),
        low(arena.floats(padded(args.chunk))),
        between(tile_of(arena, args.chunk, args.chunk)),
        attention(tile_of(arena, args.chunk, args.chunk)) {}

  void read(const SsdArgs &args, const Item &item, int64_t head, const Chunk &chunk) {
    const float *src = at(args.dt, item.b, chunk.first, head);
    const float rate = args.a.data[head * args.a.stride[0]];
    const int64_t count = padded(chunk.steps);
    double log_decay = 0;
    for (int64_t i = 0; i < count; ++i) {
      dt[i] = i < chunk.steps ? src[i * args.dt.stride[1]] : 0.0f;
      // After the last step nothing decays, whatever the rate.
      const double step = i < chunk.steps ? static_cast<double>(dt[i]) * rate : 0.0;
      log_decay += step < kStrongest ? kStrongest : step;
      // Two floats keep the difference of large sums exact: behind a strong decay a
      // weak one still counts.
      high[i] = static_cast<float>(log_decay);
      low[i] = static_cast<float>(log_decay - high[i]);
    }
    for (int64_t i = 0; i < count; i += kLanes) {
      const Vec h = load(high + i), l = load(low + i);
      store(from_start + i, exp_or_zero(h));
      store(to_end + i, exp_or_zero((high[count - 1] - h) + (low[count - 1] - l)));
    }
    total = from_start[count - 1];
    attend(chunk);
  }

 private:
  void attend(const Chunk &chunk) {
    const IntVec lane = lanes();
    for (int64_t i = 0; i < chunk.steps; ++i) {
      const float *scores = chunk.scores.row(i);
      float *decay = between.row(i), *weight = attention.row(i);
      int64_t j = 0;
      for (; j <= i; j += kLanes) {
        const Vec gap = (high[i] - load(high + j)) + (low[i] - load(low + j));
        const IntVec seen = (IntVec)(lane <= static_cast<int32_t>(i - j));
        const Vec e = select(seen, exp_or_zero(gap), Vec{});
        store(decay + j, e);
        store(weight + j, e * load(scores + j));
      }
      for (; j < padded(i + 1); j += kLanes) store(weight + j, Vec{});
    }
  }
};

// Values of one head: x and dt * x.
struct Values {
  Tile x, v;  // [step][p]

  Values(const SsdArgs &args, Arena &arena)
      : x(tile_of(arena, args.chunk, args.width)),
        v(tile_of(arena, args.chunk, args.width)) {}

  void read(const SsdArgs &args, const Item &item, int64_t head, const Chunk &chunk,
            const Decays &decays) {
    read_tile(x, at(args.x, item.b, chunk.first, head), args.x.stride[1], chunk.steps,
              args.width);
    scale_rows(v, x, decays.dt, padded(chunk.steps));
  }
};

bool starts_from_zero(const SsdArgs &args, const Chunk &chunk) {
  return chunk.index == 0 && !args.initial_state.data;
}

float skip_of(const SsdArgs &args, int64_t head) {
  return args.d.data ? args.d.data[head * args.d.stride[0]] : 0.0f;
}

// ------------------------------------------------------------------ forward

struct ForwardScratch {
  Chunk chunk;
  Decays decays;
  Values values;
  Tile out;     // [step][p]
  Tile by_row;  // [p][n]: a state as it is outside
  float *states;

  ForwardScratch(const SsdArgs &args, Arena &arena)
      : chunk(args, arena),
        decays(args, arena),
        values(args, arena),
        out(tile_of(arena, args.chunk, args.width)),
        by_row(tile_of(arena, args.width, args.states)),
        states(arena.floats(heads_of_segment(args) * state_size(args))) {}

  static int64_t state_size(const SsdArgs &args) {
    return padded(args.states) * padded(args.width);
  }

  Tile state(const SsdArgs &args, const Item &item, int64_t head) const {
    return {states + (head - item.begin) * state_size(args), padded(args.width)};
  }
};

// Reads a state [p][n] from outside into tiles [p][n] and [n][p].
void read_state(const SsdArgs &args, const float *src, int64_t stride,
                const Tile &by_row, const Tile &state) {
  read_tile(by_row, src, stride, args.width, args.states);
  transpose(by_row, args.width, args.states, state);
}

void forward_head(const SsdArgs &args, const Item &item, int64_t head,
                  ForwardScratch &s) {
  const Chunk &chunk = s.chunk;
  const Tile state = s.state(args, item, head);
  s.decays.read(args, item, head, chunk);
  s.values.read(args, item, head, chunk, s.decays);
  if (args.checkpoints && chunk.index > 0)
    std::memcpy(checkpoint(args, item.b, head, chunk.index), state.data,
                args.states * state.columns * sizeof(float));

  const bool zero_state = starts_from_zero(args, chunk);
  if (!zero_state)
    multiply(chunk.steps, args.states, args.width, chunk.queries, state, s.out,
             s.decays.from_start);
  multiply<Part::kLowerLeft>(chunk.steps, chunk.steps, args.width, s.decays.attention,
                             s.values.v, s.out, nullptr, zero_state ? 0.0f : 1.0f);
  if (args.d.data) {
    const float skip = skip_of(args, head);
    for (int64_t i = 0; i < chunk.steps; ++i)
      for (int64_t p = 0; p < s.out.columns; p += kLanes)
        store(s.out.row(i) + p,
              load(s.out.row(i) + p) + skip * load(s.values.x.row(i) + p));
  }
  write_tile(at(args.y, item.b, chunk.first, head), args.y.stride[1], s.out,
             chunk.steps, args.width);

  scale_rows(s.values.v, s.values.v, s.decays.to_end, chunk.steps);
  multiply(args.states, chunk.steps, args.width, transposed(chunk.keys), s.values.v,
           state, nullptr, s.decays.total);
}

void forward(const SsdArgs &args, int64_t index, char *memory) {
  Arena arena(memory);
  ForwardScratch s(args, arena);
  const Item item = item_of(args, index);
  for (int64_t head = item.begin; head < item.end; ++head) {
    const Tile state = s.state(args, item, head);
    if (args.initial_state.data)
      read_state(args, at(args.initial_state, item.b, head),
                 args.initial_state.stride[2], s.by_row, state);
    else
      zero(state, args.states);
  }
  for (int64_t i = 0; i * args.chunk < args.length; ++i) {
    s.chunk.read(args, item, i);
    for (int64_t head = item.begin; head < item.end; ++head)
      forward_head(args, item, head, s);
  }
  for (int64_t head = item.begin; head < item.end; ++head) {
    transpose(s.state(args, item, head), args.states, args.width, s.by_row);
    write_tile(at(args.last_state, item.b, head), args.last_state.stride[2], s.by_row,
               args.width, args.states);
  }
}

// ----------------------------------------------------------------- backward

struct BackwardScratch : ForwardScratch {
  Tile v_transposed;                 // [p][step]
  Tile before, before_by_row;        // state before the chunk, [n][p] and [p][n]
  Tile grad_y, grad_v;               // [step][p]
  Tile grad_attention, grad_scores;  // [i][j]
  Tile grad_keys, grad_queries;      // [step][n]
  Tile through_state;                // [step][n]
  // Gradients of the log decays to a step, from it and across it.
  double *from_before, *into_after, *crossing;
  float *grad_rate, *grad_skip;  // [head]

  // The states of the forward pass hold the gradients of the states here.
  BackwardScratch(const SsdArgs &args, Arena &arena)
      : ForwardScratch(args, arena),
        v_transposed(tile_of(arena, args.width, args.chunk)),
        before(tile_of(arena, args.states, args.width)),
        before_by_row(tile_of(arena, args.width, args.states)),
        grad_y(tile_of(arena, args.chunk, args.width)),
        grad_v(tile_of(arena, args.chunk, args.width)),
        grad_attention(tile_of(arena, args.chunk, args.chunk)),
        grad_scores(tile_of(arena, args.chunk, args.chunk)),
        grad_keys(tile_of(arena, args.chunk, args.states)),
        grad_queries(tile_of(arena, args.chunk, args.states)),
        through_state(tile_of(arena, args.chunk, args.states)),
        from_before(doubles(arena, args.chunk)),
        into_after(doubles(arena, args.chunk)),
        crossing(doubles(arena, args.chunk)),
        grad_rate(arena.floats(heads_of_segment(args))),
        grad_skip(arena.floats(heads_of_segment(args))) {}

 private:
  static double *doubles(Arena &arena, int64_t count) {
    return reinterpret_cast<double *>(arena.floats(2 * padded(count)));
  }
};

// Gradients of the scores and of the log decays within the chunk, given that of their
// product.
//
// The log decay of step i counts for every pair of a step before it and one from it
// on. Rows are added from the last to the first, so that all pairs of step i are sums
// of what is there, not differences of sums.
void backward_attention(const Chunk &chunk, BackwardScratch &s) {
  float *later = s.decays.low;  // no longer needed: of each step, sum over later ones
  std::memset(later, 0, padded(chunk.steps) * sizeof(float));
  const IntVec lane = lanes();
  for (int64_t i = chunk.steps - 1; i >= 0; --i) {
    Vec pairs = {};
    for (int64_t j = 0; j <= i; j += kLanes) {
      const Vec grad = load(s.grad_attention.row(i) + j);
      float *scores = s.grad_scores.row(i) + j;
      store(scores, load(scores) + grad * load(s.decays.between.row(i) + j));
      const IntVec earlier = (IntVec)(lane < static_cast<int32_t>(i - j));
      const Vec sums = load(later + j) + grad * load(s.decays.attention.row(i) + j);
      store(later + j, sums);
      pairs += select(earlier, sums, Vec{});
    }
    s.crossing[i] = sum_of(pairs);
  }
}

// Gradients of what a single step has of its own: dt, x, A and D.
//
// `carried` is the gradient of the logarithm of the decay across the chunk. A step's
// log decay counts between all steps before it and those from it on: `rest` and `past`
// are these sums from the state before the chunk to its steps, and from its steps to
// the state after it.
void backward_steps(const SsdArgs &args, const Item &item, int64_t head,
                    double carried, BackwardScratch &s) {
  const Chunk &chunk = s.chunk;
  const float rate = args.a.data[head * args.a.stride[0]];
  const float skip = skip_of(args, head);
  double rest = 0, past = 0, grad_rate = 0, grad_skip = 0;
  for (int64_t i = 0; i < chunk.steps; ++i) rest += s.from_before[i];
  for (int64_t i = 0; i < chunk.steps; ++i) {
    const double grad_log = s.crossing[i] + rest + past + carried;
    rest -= s.from_before[i];
    past += s.into_after[i];

    const float dt = s.decays.dt[i];
    const float *x = s.values.x.row(i), *grad_y = s.grad_y.row(i);
    float *grad_v = s.grad_v.row(i);
    grad_rate += grad_log * dt;
    grad_skip += dot(x, grad_y, s.grad_y.columns);
    if (args.grad_dt.data)
      *at(args.grad_dt, item.b, chunk.first + i, head) =
          static_cast<float>(grad_log * rate) + dot(x, grad_v, s.grad_v.columns);
    for (int64_t p = 0; p < s.grad_v.columns; p += kLanes)
      store(grad_v + p, dt * load(grad_v + p) + skip * load(grad_y + p));
  }
  s.grad_rate[head - item.begin] += static_cast<float>(grad_rate);
  s.grad_skip[head - item.begin] += static_cast<float>(grad_skip);
  if (args.grad_x.data)
    write_tile(at(args.grad_x, item.b, chunk.first, head), args.grad_x.stride[1],
               s.grad_v, chunk.steps, args.width);
}

void read_before(const SsdArgs &args, const Item &item, int64_t head,
                 BackwardScratch &s) {
  if (s.chunk.index > 0) {
    read_tile(s.before, checkpoint(args, item.b, head, s.chunk.index),
              padded(args.width), args.states, padded(args.width));
    transpose(s.before, args.states, args.width, s.before_by_row);
  } else if (args.initial_state.data) {
    read_state(args, at(args.initial_state, item.b, head),
               args.initial_state.stride[2], s.before_by_row, s.before);
  }
}

void backward_head(const SsdArgs &args, const Item &item, int64_t head,
                   BackwardScratch &s) {
  const Chunk &chunk = s.chunk;
  const Decays &decays = s.decays;
  const int64_t steps = chunk.steps;
  const Tile &v = s.values.v;
  const Tile grad_after = s.state(args, item, head);
  s.decays.read(args, item, head, chunk);
  s.values.read(args, item, head, chunk, decays);
  transpose(v, steps, args.width, s.v_transposed);
  read_tile(s.grad_y, at(args.y, item.b, chunk.first, head), args.y.stride[1], steps,
            args.width);
  transpose(grad_after, args.states, args.width, s.by_row);

  // Through the state after the chunk.
  multiply(steps, args.states, args.width, chunk.keys, grad_after, s.grad_v,
           decays.to_end);
  for (int64_t i = 0; i < steps; ++i)
    s.into_after[i] = dot(v.row(i), s.grad_v.row(i), v.columns);
  multiply(steps, args.width, args.states, v, s.by_row, s.grad_keys, decays.to_end,
           1.0f);

  // Through the state before it.
  double carried = 0;
  if (starts_from_zero(args, chunk)) {
    for (int64_t i = 0; i < steps; ++i) s.from_before[i] = 0;
  } else {
    read_before(args, item, head, s);
    multiply(steps, args.width, args.states, s.grad_y, s.before_by_row,
             s.through_state, decays.from_start);
    for (int64_t i = 0; i < steps; ++i) {
      float *grad = s.grad_queries.row(i);
      const float *through = s.through_state.row(i);
      s.from_before[i] = dot(chunk.queries.row(i), through, s.grad_queries.columns);
      for (int64_t n = 0; n < s.grad_queries.columns; n += kLanes)
        store(grad + n, load(grad + n) + load(through + n));
    }
    for (int64_t n = 0; n < args.states; ++n)
      carried += dot(s.before.row(n), grad_after.row(n), grad_after.columns);
    carried *= decays.total;
  }

  // Within it.
  multiply<Part::kUpperLeft>(steps, steps, args.width, transposed(decays.attention),
                             s.grad_y, s.grad_v, nullptr, 1.0f);
  multiply<Part::kLowerResult>(steps, args.width, steps, s.grad_y, s.v_transposed,
                               s.grad_attention);
  backward_attention(chunk, s);
  backward_steps(args, item, head, carried, s);

  scale_rows(s.grad_y, s.grad_y, decays.from_start, steps);
  multiply(args.states, steps, args.width, transposed(chunk.queries), s.grad_y,
           grad_after, nullptr, decays.total);
}

void write_part(float *grad, const SsdArgs &args, const Item &item, const Chunk &chunk,
                const Tile &tile) {
  if (!grad) return;
  const int64_t row = (item.b * args.length + chunk.first) * args.groups + item.g;
  write_tile(grad + (row * args.segments + item.segment) * args.states,
             args.groups * args.segments * args.states, tile, chunk.steps, args.states);
}

void backward(const SsdArgs &args, int64_t index, char *memory) {
  Arena arena(memory);
  BackwardScratch s(args, arena);
  const Item item = item_of(args, index);
  for (int64_t head = item.begin; head < item.end; ++head) {
    s.grad_rate[head - item.begin] = s.grad_skip[head - item.begin] = 0;
    const Tile grad_state = s.state(args, item, head);
    if (args.last_state.data)
      read_state(args, at(args.last_state, item.b, head), args.last_state.stride[2],
                 s.by_row, grad_state);
    else
      zero(grad_state, args.states);
  }
  for (int64_t i = (args.length - 1) / args.chunk; i >= 0; --i) {
    s.chunk.read(args, item, i);
    const int64_t steps = s.chunk.steps;
    zero(s.grad_keys, steps);
    zero(s.grad_queries, steps);
    zero(s.grad_scores, steps);
    for (int64_t head = item.begin; head < item.end; ++head)
      backward_head(args, item, head, s);
    multiply<Part::kLowerLeft>(steps, steps, args.states, s.grad_scores, s.chunk.keys,
                               s.grad_queries, nullptr, 1.0f);
    multiply<Part::kUpperLeft>(steps, steps, args.states, transposed(s.grad_scores),
                               s.chunk.queries, s.grad_keys, nullptr, 1.0f);
    write_part(args.grad_b, args, item, s.chunk, s.grad_keys);
    write_part(args.grad_c, args, item, s.chunk, s.grad_queries);
  }
  for (int64_t head = item.begin; head < item.end; ++head) {
    const int64_t i = head - item.begin;
    if (args.grad_a.data) *at(args.grad_a, item.b, head) = s.grad_rate[i];
    if (args.grad_d.data) *at(args.grad_d, item.b, head) = s.grad_skip[i];
    if (args.grad_initial.data) {
      transpose(s.state(args, item, head), args.states, args.width, s.by_row);
      write_tile(at(args.grad_initial, item.b, head), args.grad_initial.stride[2],
                 s.by_row, args.width, args.states);
    }
  }
}

template <class Scratch>
size_t scratch_of(const SsdArgs &args) {
  Arena arena(nullptr);
  Scratch scratch(args, arena);
  return arena.used();
}

}  // namespace

#define MMT_CONCAT_(a, b) a##b
#define MMT_CONCAT(a, b) MMT_CONCAT_(a, b)

extern const OpKernels<SsdArgs> MMT_CONCAT(ssd_kernels_, MMT_LEVEL);
const OpKernels<SsdArgs> MMT_CONCAT(ssd_kernels_, MMT_LEVEL) = {
    {scratch_of<ForwardScratch>, forward}, {scratch_of<BackwardScratch>, backward}};

}  // namespace mmtransmamba
