// A float vector of MMT_LANES lanes on the compiler's vector extension, and the few
// functions of it that the kernels need. Everything has internal linkage: this
// header is compiled several times with different instruction sets, and the linker
// must not merge the results.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int kLanes = MMT_LANES;

typedef float Vec __attribute__((vector_size(4 * MMT_LANES), may_alias));
typedef float UnalignedVec
    __attribute__((vector_size(4 * MMT_LANES), aligned(4), may_alias));
typedef int32_t IntVec __attribute__((vector_size(4 * MMT_LANES), may_alias));

inline Vec load(const float *p) { return *reinterpret_cast<const Vec *>(p); }
inline void store(float *p, Vec v) { *reinterpret_cast<Vec *>(p) = v; }
inline Vec load_unaligned(const float *p) {
  return *reinterpret_cast<const UnalignedVec *>(p);
}
inline void store_unaligned(float *p, Vec v) {
  *reinterpret_cast<UnalignedVec *>(p) = v;
}
inline Vec broadcast(float x) { return x - Vec{}; }

inline Vec select(IntVec mask, Vec yes, Vec no) {
  return (Vec)((mask & (IntVec)yes) | (~mask & (IntVec)no));
}

// Both return v where v is NaN, as the x86 instructions do with this operand order.
#if MMT_LANES == 16 && defined(__AVX512F__)
inline Vec at_least(Vec v, Vec low) { return (Vec)_mm512_max_ps((__m512)low, (__m512)v); }
inline Vec at_most(Vec v, Vec high) { return (Vec)_mm512_min_ps((__m512)high, (__m512)v); }
#elif MMT_LANES == 8 && defined(__AVX__)
inline Vec at_least(Vec v, Vec low) { return (Vec)_mm256_max_ps((__m256)low, (__m256)v); }
inline Vec at_most(Vec v, Vec high) { return (Vec)_mm256_min_ps((__m256)high, (__m256)v); }
#elif MMT_LANES == 4 && defined(__SSE__)
inline Vec at_least(Vec v, Vec low) { return (Vec)_mm_max_ps((__m128)low, (__m128)v); }
inline Vec at_most(Vec v, Vec high) { return (Vec)_mm_min_ps((__m128)high, (__m128)v); }
#else
inline Vec at_least(Vec v, Vec low) { return select((IntVec)(low > v), low, v); }
inline Vec at_most(Vec v, Vec high) { return select((IntVec)(high < v), high, v); }
#endif

// 2^x with a relative error below 2e-7. Results stay within [1.2e-38, 2.4e38]
// instead of reaching 0 and infinity, NaN passes through, 2^0 is exactly 1.
inline Vec exp2(Vec x) {
  x = at_least(x, broadcast(-125.5f));
  x = at_most(x, broadcast(127.49f));
  // Adding 1.5 * 2^23 rounds to an integer, which then sits in the low mantissa bits.
  const Vec shifted = x + 12582912.0f;
  const Vec f = x - (shifted - 12582912.0f);
  // Minimax for (2^f - 1) / f on [-0.5, 0.5].
  Vec p = f * 0.001326472731307149f + 0.009671512991189957f;
  p = p * f + 0.05550733581185341f;
  p = p * f + 0.24022242426872253f;
  p = p * f + 0.6931470036506653f;
  p = p * f + 1.0f;
  return (Vec)((IntVec)p + ((IntVec)shifted << 23));
}

// 2^x for a decay: 0 where `exp2` stops at the smallest normal number. What is left
// there would count again when the gradient multiplies it with a large rate.
inline Vec exp2_or_zero(Vec x) {
#if MMT_LANES == 16 && defined(__AVX512DQ__)
  // Hardware splits x and scales by its integer; both accept any x. The polynomial
  // is that of exp2.
  const Vec f = (Vec)_mm512_maskz_reduce_ps(0xffff, (__m512)x, 0);
  Vec p = f * 0.001326472731307149f + 0.009671512991189957f;
  p = p * f + 0.05550733581185341f;
  p = p * f + 0.24022242426872253f;
  p = p * f + 0.6931470036506653f;
  p = p * f + 1.0f;
  return (Vec)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)(x - f));
#else
  return select((IntVec)(x < broadcast(-125.5f)), Vec{}, exp2(x));
#endif
}

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

inline Vec exp(Vec x) { return exp2(x * kLog2E); }

// exp of a log decay, 0 below the smallest normal number. There `exp` stops, and what
// is left would count again when the gradient multiplies it with a large rate.
inline Vec exp_or_zero(Vec x) {
  return select((IntVec)(x < broadcast(-86.98f)), Vec{}, exp(x));
}

// 1 / x for a finite x of at least 1. A 512-bit division takes as long as a dozen
// products, so the estimate of the hardware (14 bits) is refined by a Newton step.
inline Vec reciprocal(Vec x) {
#if MMT_LANES == 16 && defined(__AVX512F__)
  const Vec r = (Vec)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
  return r + r * (1.0f - x * r);
#else
  return 1.0f / x;
#endif
}

inline Vec sigmoid(Vec x) { return reciprocal(1.0f + exp(-x)); }

// log(1 + e) for e in [0, 1], accurate for tiny e as well.
inline Vec log1p_unit(Vec e) {
  // Minimax for log(1 + e) / e, relative error 3e-8.
  Vec p = e * 0.0052326940931379795f - 0.029505237936973572f;
  p = p * e + 0.07822594791650772f;
  p = p * e - 0.13663245737552643f;
  p = p * e + 0.19106006622314453f;
  p = p * e - 0.2484298199415207f;
  p = p * e + 0.3331909775733948f;
  p = p * e - 0.4999949336051941f;
  p = p * e + 0.9999999403953552f;
  return p * e;
}

// softplus(x) = max(x, 0) + log(1 + exp(-|x|)) and its derivative sigmoid(x).
inline Vec softplus(Vec x, Vec *derivative) {
  const Vec positive = at_least(x, Vec{});
  const Vec e = exp(x - positive - positive);
  const Vec inverse = reciprocal(1.0f + e);
  const IntVec negative = (IntVec)(x < 0.0f);
  *derivative =
      (Vec)((negative & (IntVec)(e * inverse)) | (~negative & (IntVec)inverse));
  return positive + log1p_unit(e);
}

inline Vec softplus(Vec x) {
  const Vec positive = at_least(x, Vec{});
  return positive + log1p_unit(exp(x - positive - positive));
}

// Two-source shuffles: the halves interleaved, and the even and odd lanes of a pair.
#if defined(__clang__) || __GNUC__ >= 12
#define MMT_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MMT_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (IntVec){__VA_ARGS__})
#endif

#if MMT_LANES == 16
constexpr int kLogLanes = 4;
#define MMT_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define MMT_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define MMT_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define MMT_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif MMT_LANES == 8
constexpr int kLogLanes = 3;
#define MMT_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define MMT_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define MMT_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define MMT_ODD 1, 3, 5, 7, 9, 11, 13, 15
#elif MMT_LANES == 4
constexpr int kLogLanes = 2;
#define MMT_LOW 0, 4, 1, 5
#define MMT_HIGH 2, 6, 3, 7
#define MMT_EVEN 0, 2, 4, 6
#define MMT_ODD 1, 3, 5, 7
#else
#error "MMT_LANES must be 4, 8 or 16"
#endif

// Transposes kLanes vectors in place: log2(kLanes) perfect shuffles of the rows.
inline void transpose(Vec *rows) {
  Vec other[kLanes];
  for (int stage = 0; stage < kLogLanes; ++stage) {
    for (int i = 0; i < kLanes / 2; ++i) {
      other[2 * i] = MMT_SHUFFLE(rows[i], rows[i + kLanes / 2], MMT_LOW);
      other[2 * i + 1] = MMT_SHUFFLE(rows[i], rows[i + kLanes / 2], MMT_HIGH);
    }
    for (int i = 0; i < kLanes; ++i) rows[i] = other[i];
  }
}

// Lane i of the result is the sum over the lanes of rows[i].
inline Vec sum_lanes(const float *rows) {
  Vec partial[kLanes];
  for (int i = 0; i < kLanes; ++i) partial[i] = load(rows + i * kLanes);
  for (int count = kLanes / 2; count > 0; count /= 2) {
    for (int i = 0; i < count; ++i) {
      const Vec a = partial[2 * i], b = partial[2 * i + 1];
      partial[i] = MMT_SHUFFLE(a, b, MMT_EVEN) + MMT_SHUFFLE(a, b, MMT_ODD);
    }
  }
  return partial[0];
}

inline float sum_of(Vec v) {
  alignas(64) float lanes[kLanes];
  store(lanes, v);
  float total = 0;
  for (float x : lanes) total += x;
  return total;
}

}  // namespace
