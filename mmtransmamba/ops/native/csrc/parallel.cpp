#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mmtransmamba {
namespace {

std::atomic<ForkJoin> fork_join_entry{nullptr};

// Decaying states reach subnormal numbers, which cost a hundred cycles each on x86.
// The mode is set per thread and put back, so nobody else sees it.
class FlushSubnormals {
 public:
#if defined(__x86_64__)
  FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(saved_); }
  FlushSubnormals(const FlushSubnormals &) = delete;
  FlushSubnormals &operator=(const FlushSubnormals &) = delete;

 private:
  unsigned saved_;
#endif
};

struct Job {
  ItemFunction function;
  void *context;
  int64_t items;
  size_t scratch;
  std::atomic<int64_t> next{0};
  std::atomic<bool> starved{false};
};

void work(void *data) {
  Job &job = *static_cast<Job *>(data);
  const size_t size = (job.scratch + 63) / 64 * 64;
  char *scratch = static_cast<char *>(std::aligned_alloc(64, std::max<size_t>(size, 64)));
  if (!scratch) {
    job.starved = true;
    return;
  }
  [[maybe_unused]] const FlushSubnormals guard;
  for (int64_t item = job.next++; item < job.items; item = job.next++)
    job.function(job.context, item, scratch);
  std::free(scratch);
}

void run_on_std_threads(Job &job, int64_t threads) {
  std::vector<std::thread> team;
  try {
    for (int64_t i = 1; i < threads; ++i) team.emplace_back(work, &job);
  } catch (const std::system_error &) {
    // The system gives no more threads: the ones that started share the items.
  }
  work(&job);
  for (std::thread &thread : team) thread.join();
}

}  // namespace

void set_fork_join(ForkJoin fork_join) { fork_join_entry = fork_join; }

bool run_items(ItemFunction function, void *context, int64_t items, int64_t threads,
               size_t scratch) {
  Job job{function, context, items, scratch};
  threads = std::min(std::max<int64_t>(threads, 1), items);
  const ForkJoin fork_join = fork_join_entry;
  if (threads <= 1) {
    work(&job);
  } else if (fork_join) {
    fork_join(work, &job, static_cast<unsigned>(threads), 0);
  } else {
    run_on_std_threads(job, threads);
  }
  // A starved thread leaves its items to the others; only if none had memory are
  // there items left.
  return job.next >= items || !job.starved;
}

}  // namespace mmtransmamba
