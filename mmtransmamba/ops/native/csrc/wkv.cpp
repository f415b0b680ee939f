// Bidirectional WKV of RWKV v4 for one instruction set level: the build compiles
// this file once per level with MMT_LANES and MMT_LEVEL set.
//
// Vectors run over channels; a lane owns its channel's recurrences.
//
// Weights e^{k - n w} may grow without bound when w is negative. Every sum therefore
// carries the exponent of its largest term, as the pair (k, n) and not as one number:
// two exponents of thousands may lie close together, and then the difference of the
// pairs is exact where the difference of rounded numbers is not.

#include "wkv.h"

#include "arena.h"
#include "kernels.h"
#include "tiles.h"
#include "vec.h"

namespace mmtransmamba {
namespace {

// The exponent of an empty sum. It is below that of every token, also of those whose
// exponents no finite stand-in would undercut. Two empty sums never meet.
constexpr float kNothing = -__builtin_inff();
// log(1e-6), the constant that the denominator gets added.
constexpr float kLogEpsilon = -13.815510557964274f;

// e^{scale - steps * w} * (x, y)
struct Sum {
  Vec scale, steps, x, y;
};

inline Sum empty() { return {broadcast(kNothing), Vec{}, Vec{}, Vec{}}; }

// The same weights seen from one step further away.
inline Sum advance(Sum s) {
  s.steps += 1.0f;
  return s;
}

// Where to put two sums in common: the larger exponent, and the factors to it.
struct Meeting {
  Vec scale, steps, first, second;
};

inline Meeting meet(Vec scale_a, Vec steps_a, Vec scale_b, Vec steps_b, Vec w) {
  const Vec gap = (scale_a - scale_b) - (steps_a - steps_b) * w;
  const Vec smaller = exp(-at_least(gap, -gap));
  const IntVec a_leads = (IntVec)(gap > 0.0f);
  const Vec one = broadcast(1.0f);
  return {select(a_leads, scale_a, scale_b), select(a_leads, steps_a, steps_b),
          select(a_leads, one, smaller), select(a_leads, smaller, one)};
}

inline Sum add(const Sum &a, const Sum &b, Vec w) {
  const Meeting m = meet(a.scale, a.steps, b.scale, b.steps, w);
  return {m.scale, m.steps, m.first * a.x + m.second * b.x,
          m.first * a.y + m.second * b.y};
}

inline Sum load_sum(const float *tiles, int64_t i) {
  const float *p = tiles + 4 * i * kLanes;
  return {load(p), load(p + kLanes), load(p + 2 * kLanes), load(p + 3 * kLanes)};
}

inline void store_sum(float *tiles, int64_t i, const Sum &s) {
  float *p = tiles + 4 * i * kLanes;
  store(p, s.scale);
  store(p + kLanes, s.steps);
  store(p + 2 * kLanes, s.x);
  store(p + 3 * kLanes, s.y);
}

inline Sum token(Vec k, Vec v) { return {k, Vec{}, v, broadcast(1.0f)}; }

// Output of one step: the directions' parts, the token's weight for itself, and what
// the denominator was, namely e^{scale - steps * w} / inverse.
struct Output {
  Vec scale, steps, inverse, own, past, future;
};

// past and future do not contain the token itself. Its exponent u + k is not rounded
// to one number either, and scale and steps are those of the largest other term: where
// the token outweighs all others, inverse is small.
inline Output output(const Sum &past, const Sum &future, Vec w, Vec u, Vec k, Vec v) {
  const Vec one = broadcast(1.0f);
  const Meeting a = meet(past.scale, past.steps, broadcast(kLogEpsilon), Vec{}, w);
  const Meeting b = meet(a.scale, a.steps, future.scale, future.steps, w);
  const Vec past_factor = b.first * a.first;
  const Vec others = past_factor * past.y + b.first * a.second + b.second * future.y;
  const Vec gap = ((k - b.scale) + b.steps * w) + u;
  const Vec smaller = exp(-at_least(gap, -gap));
  const IntVec leads = (IntVec)(gap > 0.0f);
  const Vec own = select(leads, one, smaller), rest = select(leads, smaller, one);
  const Vec total = own + rest * others;
  const Vec share = own / total, inverse = rest / total;
  return {b.scale,
          b.steps,
          inverse,
          share,
          past_factor * past.x * inverse + share * v,
          b.second * future.x * inverse};
}

struct Block {
  int64_t b, first;
  int lanes;
};

template <class F>
void for_blocks(const WkvArgs &args, int64_t item, F &&f) {
  const int64_t b = item % args.batch, begin = item / args.batch * kItemChannels;
  const int64_t end = smaller(begin + kItemChannels, args.channels);
  for (int64_t c = begin; c < end; c += kLanes)
    f(Block{b, c, static_cast<int>(smaller(kLanes, end - c))});
}

void read(float *tile, const View &v, const WkvArgs &args, const Block &block) {
  read_tile(tile, v.data + block.b * v.stride[0] + block.first * v.stride[2],
            v.stride[2], v.stride[1], nullptr, args.length, block.lanes);
}

void write(const View &v, const float *tile, const WkvArgs &args, const Block &block) {
  write_tile(v.data + block.b * v.stride[0] + block.first * v.stride[2], v.stride[2],
             v.stride[1], nullptr, tile, args.length, block.lanes);
}

// The map of one direction of y or of its gradient, as [b, t, c].
View direction(const View &y, int64_t s) {
  return {y.data + s * y.stride[1], {y.stride[0], y.stride[2], y.stride[3], 0}};
}

Vec per_channel(const View &v, const Block &block) {
  return read_lanes(v.data + block.first * v.stride[0], v.stride[0], block.lanes);
}

void write_part(const View &v, Vec value, const Block &block) {
  write_lanes(v.data + block.b * v.stride[0] + block.first * v.stride[1], v.stride[1],
              value, block.lanes, false);
}

// What lies after every step, for all steps.
void future_sums(float *sums, const float *k, const float *v, int64_t length, Vec w) {
  Sum future = empty();
  for (int64_t t = length - 1; t >= 0; --t) {
    store_sum(sums, t, future);
    future = add(advance(future), token(load(k + t * kLanes), load(v + t * kLanes)), w);
  }
}

// ------------------------------------------------------------------ forward

struct ForwardScratch {
  float *k, *v, *future, *y[2];

  ForwardScratch(const WkvArgs &args, Arena &arena) {
    const int64_t tile = args.length * kLanes;
    k = arena.floats(tile);
    v = arena.floats(tile);
    future = arena.floats(4 * tile);
    y[0] = arena.floats(tile);
    y[1] = arena.floats(args.separate ? tile : 0);
  }
};

void forward_block(const WkvArgs &args, const Block &block, const ForwardScratch &s) {
  read(s.k, args.k, args, block);
  read(s.v, args.v, args, block);
  const Vec w = per_channel(args.w, block), u = per_channel(args.u, block);
  future_sums(s.future, s.k, s.v, args.length, w);
  Sum past = empty();
  for (int64_t t = 0; t < args.length; ++t) {
    const Vec k = load(s.k + t * kLanes), v = load(s.v + t * kLanes);
    const Output out = output(past, load_sum(s.future, t), w, u, k, v);
    if (args.separate) {
      store(s.y[0] + t * kLanes, out.past);
      store(s.y[1] + t * kLanes, out.future);
    } else {
      store(s.y[0] + t * kLanes, out.past + out.future);
    }
    past = add(advance(past), token(k, v), w);
  }
  for (int64_t i = 0; i < 1 + args.separate; ++i)
    write(direction(args.y, i), s.y[i], args, block);
}

// ----------------------------------------------------------------- backward

struct BackwardScratch {
  float *k, *v, *future, *past, *grads, *dy[2], *dk, *dv;

  BackwardScratch(const WkvArgs &args, Arena &arena) {
    const int64_t tile = args.length * kLanes;
    k = arena.floats(tile);
    v = arena.floats(tile);
    future = arena.floats(4 * tile);
    past = arena.floats(4 * tile);
    grads = arena.floats(4 * tile);
    dy[0] = arena.floats(tile);
    dy[1] = args.separate ? arena.floats(tile) : dy[0];
    dk = arena.floats(tile);
    dv = arena.floats(tile);
  }
};

// Gradients of the tokens and of w. With sums S of tokens as above, the gradient of
// S is again such a sum R, of output gradients and in the opposite direction.
struct TokenGradient {
  Vec w, dw;

  // R holds the outputs that see token (k, v) at least one step away.
  void of_token(const Sum &r, Vec k, Vec v, Vec *dk, Vec *dv) const {
    const Vec weight = exp(k + r.scale - r.steps * w);
    *dv += weight * r.x;
    *dk += weight * (r.x * v + r.y);
  }

  // S and R meet between two neighbouring steps, where S decays once.
  void of_decay(const Sum &s, const Sum &r) {
    const Vec weight = exp(s.scale + r.scale - (s.steps + r.steps + 1.0f) * w);
    dw -= weight * (s.x * r.x + s.y * r.y);
  }
};

void backward_block(const WkvArgs &args, const Block &block, const BackwardScratch &s) {
  const int64_t length = args.length;
  read(s.k, args.k, args, block);
  read(s.v, args.v, args, block);
  for (int64_t i = 0; i < 1 + args.separate; ++i)
    read(s.dy[i], direction(args.y, i), args, block);
  const Vec w = per_channel(args.w, block), u = per_channel(args.u, block);
  future_sums(s.future, s.k, s.v, length, w);

  TokenGradient gradient{w, Vec{}};
  Vec du = {};
  Sum past = empty(), seen_by = empty();
  for (int64_t t = 0; t < length; ++t) {
    const Vec k = load(s.k + t * kLanes), v = load(s.v + t * kLanes);
    const Sum future = load_sum(s.future, t);
    const Output out = output(past, future, w, u, k, v);
    const Vec dy_past = load(s.dy[0] + t * kLanes);
    const Vec dy_future = load(s.dy[1] + t * kLanes);
    // Gradients of the two numerators and of the denominator.
    const Vec d_past = dy_past * out.inverse, d_future = dy_future * out.inverse;
    const Vec d_sum = -(d_past * out.past + d_future * out.future);

    Vec dk = {}, dv = {};
    gradient.of_token(seen_by, k, v, &dk, &dv);
    gradient.of_decay(future, seen_by);
    const Vec d_own =
        out.own * (dy_past * v - (dy_past * out.past + dy_future * out.future));
    store(s.dk + t * kLanes, dk + d_own);
    store(s.dv + t * kLanes, dv + out.own * dy_past);
    du += d_own;

    store_sum(s.past, t, past);
    store_sum(s.grads, t, {-out.scale, -out.steps, d_past, d_sum});
    past = add(advance(past), token(k, v), w);
    seen_by = add(advance(seen_by), {-out.scale, -out.steps, d_future, d_sum}, w);
  }

  seen_by = empty();
  for (int64_t t = length - 1; t >= 0; --t) {
    Vec dk = load(s.dk + t * kLanes), dv = load(s.dv + t * kLanes);
    const Vec k = load(s.k + t * kLanes), v = load(s.v + t * kLanes);
    gradient.of_token(seen_by, k, v, &dk, &dv);
    gradient.of_decay(load_sum(s.past, t), seen_by);
    store(s.dk + t * kLanes, dk);
    store(s.dv + t * kLanes, dv);
    seen_by = add(advance(seen_by), load_sum(s.grads, t), w);
  }
  write(args.grad_k, s.dk, args, block);
  write(args.grad_v, s.dv, args, block);
  write_part(args.grad_w, gradient.dw, block);
  write_part(args.grad_u, du, block);
}

template <class Scratch>
size_t scratch_of(const WkvArgs &args) {
  Arena arena(nullptr);
  Scratch scratch(args, arena);
  return arena.used();
}

void forward(const WkvArgs &args, int64_t item, char *memory) {
  Arena arena(memory);
  const ForwardScratch scratch(args, arena);
  for_blocks(args, item,
             [&](const Block &block) { forward_block(args, block, scratch); });
}

void backward(const WkvArgs &args, int64_t item, char *memory) {
  Arena arena(memory);
  const BackwardScratch scratch(args, arena);
  for_blocks(args, item,
             [&](const Block &block) { backward_block(args, block, scratch); });
}

}  // namespace

#define MMT_CONCAT_(a, b) a##b
#define MMT_CONCAT(a, b) MMT_CONCAT_(a, b)

extern const OpKernels<WkvArgs> MMT_CONCAT(wkv_kernels_, MMT_LEVEL);
const OpKernels<WkvArgs> MMT_CONCAT(wkv_kernels_, MMT_LEVEL) = {
    {scratch_of<ForwardScratch>, forward}, {scratch_of<BackwardScratch>, backward}};

}  // namespace mmtransmamba
