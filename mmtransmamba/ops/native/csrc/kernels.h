// The table of an op's kernels, which every instruction set level fills in.

#pragma once

#include <cstddef>
#include <cstdint>

namespace mmtransmamba {

template <class Args>
struct OpPass {
  size_t (*scratch)(const Args &);
  // Items are independent of each other; items_of(args) counts them.
  void (*item)(const Args &, int64_t item, char *scratch);
};

template <class Args>
struct OpKernels {
  OpPass<Args> forward, backward;
};

}  // namespace mmtransmamba
