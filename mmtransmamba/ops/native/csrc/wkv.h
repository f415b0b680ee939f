// The arguments of the bidirectional WKV kernels as they cross the C boundary, and
// the table of kernels that every instruction set level fills in.
//
// Letters: batch b, direction s, step t, channel c, head h.

#pragma once

#include <cstdint>

#include "view.h"

namespace mmtransmamba {

// RWKV v4, see ops/wkv/interface.py. Mirrored by native/library.py.
struct WkvArgs {
  int64_t batch, length, channels;
  int64_t separate;  // y has one map per direction instead of their sum

  View w, u;  // [c]
  View k, v;  // [b, t, c]
  View y;     // [b, s, t, c]; in the backward pass its gradient

  View grad_w, grad_u;  // [b, c]: one part per batch entry
  View grad_k, grad_v;  // [b, t, c]
};

// RWKV v6 without the bonus of the own token. Channels are contiguous everywhere.
struct Wkv6Args {
  int64_t batch, length, heads, width;
  int64_t separate;

  View r, k, v, decay;  // [b, t, c], c = heads * width
  View y;               // [b, s, t, c]; in the backward pass its gradient

  View grad_r, grad_k, grad_v, grad_decay;  // [b, t, c]
};

// An item is one batch entry (and head) and this many channels; items are
// independent of each other. The widest vector divides it.
constexpr int64_t kItemChannels = 16;

inline int64_t items_of(const WkvArgs &args) {
  return args.batch * ((args.channels + kItemChannels - 1) / kItemChannels);
}

inline int64_t items_of(const Wkv6Args &args) {
  return args.batch * args.heads * ((args.width + kItemChannels - 1) / kItemChannels);
}

}  // namespace mmtransmamba
