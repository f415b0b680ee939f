// Divides a thread's scratch memory. Internal linkage, as in vec.h.

#pragma once

#include <cstddef>
#include <cstdint>

namespace {

class Arena {
 public:
  explicit Arena(char *base) : base_(base) {}
  // Null base: only counts.
  float *floats(int64_t count) {
    char *p = base_ ? base_ + used_ : nullptr;
    used_ += (static_cast<size_t>(count) * sizeof(float) + 63) / 64 * 64;
    return reinterpret_cast<float *>(p);
  }
  size_t used() const { return used_; }

 private:
  char *base_;
  size_t used_ = 0;
};

}  // namespace
