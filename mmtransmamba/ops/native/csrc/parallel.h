// Runs independent items on several threads.

#pragma once

#include <cstddef>
#include <cstdint>

namespace mmtransmamba {

using ItemFunction = void (*)(void *context, int64_t item, char *scratch);

// OpenMP's fork-join entry point, GOMP_parallel. Using the runtime that torch has
// already loaded shares its threads; a second runtime would spin against it.
using ForkJoin = void (*)(void (*)(void *), void *, unsigned, unsigned);

// Null: plain std::thread.
void set_fork_join(ForkJoin fork_join);

// Every thread gets its own `scratch` bytes, aligned to 64. Subnormal numbers are
// flushed to zero while items run. Returns false when memory ran out.
bool run_items(ItemFunction function, void *context, int64_t items, int64_t threads,
               size_t scratch);

}  // namespace mmtransmamba
