// Products of small matrices in scratch memory. Internal linkage, as in vec.h.
//
// A tile is row-major, and its numbers of rows and columns are padded to multiples of
// kTile. Products of padding make padding: it never reaches an element that counts.

#pragma once

#include <cstdint>

#include "vec.h"

namespace {

constexpr int64_t kTile = 16;

constexpr int64_t padded(int64_t n) { return (n + kTile - 1) / kTile * kTile; }

struct Tile {
  float *data;
  int64_t columns;  // from one row to the next

  float *row(int64_t i) const { return data + i * columns; }
};

// The left operand is read element by element, so that it can be transposed for free.
struct Left {
  const float *data;
  int64_t row, column;

  Left(const Tile &tile) : data(tile.data), row(tile.columns), column(1) {}
  Left(const float *p, int64_t row, int64_t column) : data(p), row(row), column(column) {}
};

inline Left transposed(const Tile &tile) { return {tile.data, 1, tile.columns}; }

// Which elements count: all, those of a lower or upper triangular left operand, or
// those of a lower triangular result.
enum class Part { kAll, kLowerLeft, kUpperLeft, kLowerResult };

#if MMT_LANES == 16 || defined(__aarch64__)
constexpr int kRows = 8;  // 32 registers
#else
constexpr int kRows = 4;
#endif
static_assert(kTile % kRows == 0 && kTile % kLanes == 0, "tiles are whole blocks");

struct Product {
  Left left;
  Tile right, out;
  const float *scale;  // of each row of the product, null for 1
  float keep;          // factor on what out holds already
};

template <int kVecs>
inline void block(const Product &p, int64_t row, int64_t column, int64_t first,
                  int64_t last) {
  const int64_t left_row = p.left.row, left_column = p.left.column;
  const int64_t right_row = p.right.columns;
  const float *left = p.left.data + row * left_row + first * left_column;
  const float *right = p.right.row(first) + column;
  Vec sum[kRows][kVecs] = {};
  for (int64_t k = first; k < last; ++k) {
    Vec values[kVecs];
    for (int v = 0; v < kVecs; ++v) values[v] = load(right + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec factor = broadcast(left[r * left_row]);
      for (int v = 0; v < kVecs; ++v) sum[r][v] += factor * values[v];
    }
    left += left_column;
    right += right_row;
  }
  for (int r = 0; r < kRows; ++r) {
    const float scale = p.scale ? p.scale[row + r] : 1.0f;
    float *out = p.out.row(row + r) + column;
    for (int v = 0; v < kVecs; ++v) {
      Vec value = sum[r][v] * scale;
      if (p.keep != 0.0f) value += p.keep * load(out + v * kLanes);
      store(out + v * kLanes, value);
    }
  }
}

// out[i, j] = scale[i] * sum over k < inner of left[i, k] right[k, j] + keep * out[i, j]
// for i < rows, rounded up to whole blocks, and j < padded(columns).
//
// A triangular left operand holds zeros beside the diagonal as far as the next
// multiple of kTile.
template <Part kPart = Part::kAll>
void multiply(int64_t rows, int64_t inner, int64_t columns, Left left, Tile right,
              Tile out, const float *scale = nullptr, float keep = 0.0f) {
  const Product p{left, right, out, scale, keep};
  for (int64_t j = 0; j < padded(columns);) {
    const bool pair = padded(columns) - j > kLanes;
    for (int64_t i = 0; i < rows; i += kRows) {
      if (kPart == Part::kLowerResult && j >= i + kRows) continue;
      const int64_t first = kPart == Part::kUpperLeft ? i : 0;
      int64_t last = inner;
      if (kPart == Part::kLowerLeft && i + kRows < inner) last = i + kRows;
      if (pair)
        block<2>(p, i, j, first, last);
      else
        block<1>(p, i, j, first, last);
    }
    j += pair ? 2 * kLanes : kLanes;
  }
}

// out = tile^T for all padded rows and columns.
inline void transpose(const Tile &tile, int64_t rows, int64_t columns,
                      const Tile &out) {
  for (int64_t i = 0; i < padded(rows); i += kLanes) {
    for (int64_t j = 0; j < padded(columns); j += kLanes) {
      Vec block[kLanes];
      for (int r = 0; r < kLanes; ++r) block[r] = load(tile.row(i + r) + j);
      transpose(block);
      for (int r = 0; r < kLanes; ++r) store(out.row(j + r) + i, block[r]);
    }
  }
}

}  // namespace
