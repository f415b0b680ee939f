// A strided tensor as it crosses the C boundary.

#pragma once

#include <cstdint>

namespace mmtransmamba {

// A float32 tensor seen through strides (in elements). Mirrored by
// native/library.py; data is null for an operand that is absent.
struct View {
  float *data;
  int64_t stride[4];
};

}  // namespace mmtransmamba
