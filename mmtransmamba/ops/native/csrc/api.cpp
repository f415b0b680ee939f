// The C interface of the library, called through ctypes by native/library.py.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "delta_rule.h"
#include "depthwise.h"
#include "kernels.h"
#include "parallel.h"
#include "selective_scan.h"
#include "ssd.h"
#include "wkv.h"

#define MMT_EXPORT __attribute__((visibility("default")))

namespace mmtransmamba {

extern const Kernels kernels_baseline;
extern const OpKernels<SsdArgs> ssd_kernels_baseline;
extern const OpKernels<DeltaRuleArgs> delta_rule_kernels_baseline;
extern const OpKernels<WkvArgs> wkv_kernels_baseline;
extern const OpKernels<Wkv6Args> wkv6_kernels_baseline;
extern const OpKernels<DepthwiseArgs> depthwise_kernels_baseline;
#if defined(__x86_64__)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
extern const OpKernels<SsdArgs> ssd_kernels_avx2;
extern const OpKernels<DeltaRuleArgs> delta_rule_kernels_avx2;
extern const OpKernels<SsdArgs> ssd_kernels_avx512;
extern const OpKernels<DeltaRuleArgs> delta_rule_kernels_avx512;
extern const OpKernels<WkvArgs> wkv_kernels_avx2;
extern const OpKernels<WkvArgs> wkv_kernels_avx512;
extern const OpKernels<Wkv6Args> wkv6_kernels_avx2;
extern const OpKernels<Wkv6Args> wkv6_kernels_avx512;
extern const OpKernels<DepthwiseArgs> depthwise_kernels_avx2;
extern const OpKernels<DepthwiseArgs> depthwise_kernels_avx512;
#endif

namespace {

enum Status { kOk = 0, kBadOrder = 1, kBadTapIndex = 2, kNoMemory = 3 };

// Best last.
const Kernels *const kLevels[] = {
    &kernels_baseline,
#if defined(__x86_64__)
    &kernels_avx2,
    &kernels_avx512,
#endif
};
const OpKernels<SsdArgs> *const kSsdLevels[] = {
    &ssd_kernels_baseline,
#if defined(__x86_64__)
    &ssd_kernels_avx2,
    &ssd_kernels_avx512,
#endif
};
const OpKernels<DeltaRuleArgs> *const kDeltaRuleLevels[] = {
    &delta_rule_kernels_baseline,
#if defined(__x86_64__)
    &delta_rule_kernels_avx2,
    &delta_rule_kernels_avx512,
#endif
};
const OpKernels<WkvArgs> *const kWkvLevels[] = {
    &wkv_kernels_baseline,
#if defined(__x86_64__)
    &wkv_kernels_avx2,
    &wkv_kernels_avx512,
#endif
};
const OpKernels<Wkv6Args> *const kWkv6Levels[] = {
    &wkv6_kernels_baseline,
#if defined(__x86_64__)
    &wkv6_kernels_avx2,
    &wkv6_kernels_avx512,
#endif
};
const OpKernels<DepthwiseArgs> *const kDepthwiseLevels[] = {
    &depthwise_kernels_baseline,
#if defined(__x86_64__)
    &depthwise_kernels_avx2,
    &depthwise_kernels_avx512,
#endif
};
constexpr int kLevelCount = sizeof(kLevels) / sizeof(kLevels[0]);

bool supported(int level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (level == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (level == 2)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
  return level == 0;
}

struct Tables {
  std::vector<int32_t> token, identity;
  std::vector<Tap> taps;
};

int fill(Tables &tables, const ScanArgs &args) {
  const int64_t length = args.length;
  tables.identity.resize(length);
  for (int64_t i = 0; i < length; ++i) tables.identity[i] = static_cast<int32_t>(i);
  if (args.order) {
    tables.token.resize(args.directions * length);
    std::vector<bool> seen(length);
    for (int64_t k = 0; k < args.directions; ++k) {
      std::fill(seen.begin(), seen.end(), false);
      for (int64_t i = 0; i < length; ++i) {
        const int64_t token = args.order[k * length + i];
        if (token < 0 || token >= length || seen[token]) return kBadOrder;
        seen[token] = true;
        tables.token[k * length + i] = static_cast<int32_t>(token);
      }
    }
  }
  if (args.tap_index) {
    tables.taps.resize(args.directions * args.taps);
    for (int64_t k = 0; k < args.directions; ++k) {
      Tap *taps = tables.taps.data() + k * args.taps;
      for (int64_t m = 0; m < args.taps; ++m) {
        const int64_t step = args.tap_index[k * args.taps + m];
        if (step < 0 || step >= length) return kBadTapIndex;
        taps[m] = {static_cast<int32_t>(step), static_cast<int32_t>(m)};
      }
      std::sort(taps, taps + args.taps, [](const Tap &a, const Tap &b) {
        return a.step != b.step ? a.step < b.step : a.column < b.column;
      });
    }
  }
  return kOk;
}

using ItemKernel = void (*)(const ScanArgs &, const Plan &, int64_t, char *);

struct Call {
  const ScanArgs *args;
  Plan plan;
  ItemKernel kernel;
};

void run_item(void *context, int64_t item, char *scratch) {
  const Call &call = *static_cast<const Call *>(context);
  call.kernel(*call.args, call.plan, item, scratch);
}

int run(const ScanArgs &args, ItemKernel kernel, size_t scratch, int64_t threads) {
  try {
    Tables tables;
    const int status = fill(tables, args);
    if (status != kOk) return status;
    Call call{&args,
              {args.order ? tables.token.data() : tables.identity.data(),
               tables.identity.data(),
               args.tap_index ? tables.taps.data() : nullptr},
              kernel};
    const int64_t items = args.batch * args.groups * args.segments;
    return run_items(run_item, &call, items, threads, scratch) ? kOk : kNoMemory;
  } catch (const std::bad_alloc &) {
    return kNoMemory;
  }
}

template <class Args>
struct OpCall {
  const Args *args;
  const OpPass<Args> *pass;
};

template <class Args>
void run_op_item(void *context, int64_t item, char *scratch) {
  const auto &call = *static_cast<const OpCall<Args> *>(context);
  call.pass->item(*call.args, item, scratch);
}

template <class Args>
int run_op(const Args &args, const OpPass<Args> &pass, int64_t threads) {
  OpCall<Args> call{&args, &pass};
  const bool done = run_items(run_op_item<Args>, &call, items_of(args), threads,
                              pass.scratch(args));
  return done ? kOk : kNoMemory;
}

}  // namespace

extern "C" {

// Guards against a library that was built from other sources than the caller.
MMT_EXPORT int64_t mmt_scan_args_size() { return sizeof(ScanArgs); }
MMT_EXPORT int64_t mmt_ssd_args_size() { return sizeof(SsdArgs); }
MMT_EXPORT int64_t mmt_delta_rule_args_size() { return sizeof(DeltaRuleArgs); }
MMT_EXPORT int64_t mmt_wkv_args_size() { return sizeof(WkvArgs); }
MMT_EXPORT int64_t mmt_wkv6_args_size() { return sizeof(Wkv6Args); }
MMT_EXPORT int64_t mmt_depthwise_args_size() { return sizeof(DepthwiseArgs); }

MMT_EXPORT int mmt_level_count() { return kLevelCount; }

MMT_EXPORT const char *mmt_level_name(int level) { return kLevels[level]->name; }

MMT_EXPORT int mmt_level_supported(int level) { return supported(level); }

MMT_EXPORT void mmt_set_fork_join(void *gomp_parallel) {
  set_fork_join(reinterpret_cast<ForkJoin>(gomp_parallel));
}

MMT_EXPORT int mmt_selective_scan_forward(const ScanArgs *args, int level,
                                          int64_t threads) {
  const Kernels &kernels = *kLevels[level];
  return run(*args, kernels.forward, kernels.forward_scratch(*args), threads);
}

MMT_EXPORT int mmt_selective_scan_backward(const ScanArgs *args, int level,
                                           int64_t threads) {
  const Kernels &kernels = *kLevels[level];
  return run(*args, kernels.backward, kernels.backward_scratch(*args), threads);
}

MMT_EXPORT int mmt_ssd_forward(const SsdArgs *args, int level, int64_t threads) {
  return run_op(*args, kSsdLevels[level]->forward, threads);
}

MMT_EXPORT int mmt_ssd_backward(const SsdArgs *args, int level, int64_t threads) {
  return run_op(*args, kSsdLevels[level]->backward, threads);
}

MMT_EXPORT int mmt_delta_rule_forward(const DeltaRuleArgs *args, int level,
                                      int64_t threads) {
  return run_op(*args, kDeltaRuleLevels[level]->forward, threads);
}

MMT_EXPORT int mmt_delta_rule_backward(const DeltaRuleArgs *args, int level,
                                       int64_t threads) {
  return run_op(*args, kDeltaRuleLevels[level]->backward, threads);
}

MMT_EXPORT int mmt_wkv_forward(const WkvArgs *args, int level, int64_t threads) {
  return run_op(*args, kWkvLevels[level]->forward, threads);
}

MMT_EXPORT int mmt_wkv_backward(const WkvArgs *args, int level, int64_t threads) {
  return run_op(*args, kWkvLevels[level]->backward, threads);
}

MMT_EXPORT int mmt_wkv6_forward(const Wkv6Args *args, int level, int64_t threads) {
  return run_op(*args, kWkv6Levels[level]->forward, threads);
}

MMT_EXPORT int mmt_wkv6_backward(const Wkv6Args *args, int level, int64_t threads) {
  return run_op(*args, kWkv6Levels[level]->backward, threads);
}

MMT_EXPORT int mmt_depthwise_forward(const DepthwiseArgs *args, int level,
                                     int64_t threads) {
  return run_op(*args, kDepthwiseLevels[level]->forward, threads);
}

MMT_EXPORT int mmt_depthwise_backward(const DepthwiseArgs *args, int level,
                                      int64_t threads) {
  return run_op(*args, kDepthwiseLevels[level]->backward, threads);
}

}  // extern "C"

}  // namespace mmtransmamba
