// Memory of a call's large tensors: never more is mapped than they took at once so far.
//
// The C library keeps freed pieces that fit nothing that follows, so that a process grows by up to
// 2.5 times its tensors. Here pages of freed tensors go on to the next ones, whatever their sizes,
// and go back to the system as soon as more would be mapped than the tensors' own peak.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#define IOI_FAST_WORKSPACE 1
#endif

namespace ioi_fast {
namespace {

#ifdef IOI_FAST_WORKSPACE

constexpr size_t kLarge = 4 << 10;  // smaller tensors stay with torch's own allocator

// Mapped ranges that hold no tensor, by size.
class FreePages {
 public:
  size_t bytes() const { return bytes_; }

  void put(char* at, size_t size) {
    ranges_.emplace(size, at);
    bytes_ += size;
  }

  // The front of the smallest range that is large enough; the rest stays. Null if there is none.
  char* take(size_t size) {
    auto found = ranges_.lower_bound(size);
    if (found == ranges_.end()) return nullptr;
    auto [had, at] = pop(found);
    if (had > size) put(at + size, had - size);
    return at;
  }

  // The largest range grown to a size, so that only what is added costs new pages; null if none.
  char* grow(size_t size) {
#ifdef MREMAP_MAYMOVE
    if (!ranges_.empty()) {
      auto [had, at] = pop(std::prev(ranges_.end()));
      void* moved = mremap(at, had, size, MREMAP_MAYMOVE);
      if (moved != MAP_FAILED) return static_cast<char*>(moved);
      put(at, had);  // it lies in two mappings
    }
#endif
    return nullptr;
  }

  // Gives ranges back, small ones first, until no more than so many bytes are left.
  void trim(size_t most) {
    while (bytes_ > most) {
      auto [size, at] = pop(ranges_.begin());
      munmap(at, size);
    }
  }

 private:
  std::pair<size_t, char*> pop(std::multimap<size_t, char*>::iterator found) {
    const auto range = *found;
    ranges_.erase(found);
    bytes_ -= range.first;
    return range;
  }

  std::multimap<size_t, char*> ranges_;
  size_t bytes_ = 0;
};

thread_local int64_t opened_here = 0;  // by this thread, the only one that a forked process keeps

// Installed by the first call and left there: libraries such as oneDNN free what they were given in
// a call, their packed weights, through whichever allocator is installed when they do.
class Workspace final : public c10::Allocator {
 public:
  void open() {
    // What the first kernel of a thread does: here, where a number of its own can be set back.
    at::internal::lazy_init_num_threads();
    const std::lock_guard<std::mutex> lock(mutex_);
    ++opened_here;
    if (opened_++ > 0) return;
    peak_ = before_it_ = live_;
    if (before_ != nullptr) return;
    before_ = c10::GetCPUAllocator();
    c10::SetCPUAllocator(this);
    pthread_atfork(&before_fork, &after_fork, &after_fork_in_child);
  }

  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(opened_ > 0, "the workspace is not open");
    --opened_here;
    if (--opened_ == 0) free_.trim(0);
  }

  // The most that tensors took at once since it was opened, beside those that were there before.
  int64_t peak() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int64_t>(peak_ - before_it_);
  }

  at::DataPtr allocate(size_t bytes) override {
    if (bytes < kLarge || opened_ == 0) return before_->allocate(bytes);
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    char* at = take((bytes + page - 1) / page * page);
    c10::profiledCPUMemoryReporter().New(at, bytes);
    return {at, at, &release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &release; }

  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }

 private:
  char* take(size_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    peak_ = std::max(peak_, live_ + size);
    char* at = free_.take(size);
    if (at == nullptr) {
      at = free_.grow(size);
      if (at == nullptr) at = map(size);
      free_.trim(peak_ - live_ - size);  // before the new pages are touched
    }
    sizes_[at] = size;
    live_ += size;
    return at;
  }

  char* map(size_t size) {
    const int kind = MAP_PRIVATE | MAP_ANONYMOUS;
    void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, kind, -1, 0);
    TORCH_CHECK_WITH(OutOfMemoryError, at != MAP_FAILED, "not enough memory: you tried to allocate ",
                     size, " bytes.");
    return static_cast<char*>(at);
  }

  static void release(void* at);

  // A process is forked while nobody else is in here; else the child would wait for a thread that it
  // has not. Calls that other threads have open do not go on there.
  static void before_fork();
  static void after_fork();
  static void after_fork_in_child();

  // False for memory that is not from here.
  bool give_back(void* at) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = sizes_.find(at);
    if (found == sizes_.end()) return false;
    free_.put(static_cast<char*>(at), found->second);
    live_ -= found->second;
    sizes_.erase(found);
    if (opened_ == 0) free_.trim(0);
    return true;
  }

  std::mutex mutex_;
  std::atomic<int64_t> opened_ = 0;
  c10::Allocator* before_ = nullptr;
  size_t live_ = 0, peak_ = 0, before_it_ = 0;  // before it was opened
  FreePages free_;
  std::unordered_map<void*, size_t> sizes_;
};

// Never destroyed: tensors may outlive everything else.
Workspace& workspace() {
  static Workspace* const one = new Workspace();
  return *one;
}

void Workspace::release(void* at) {
  Workspace& one = workspace();
  if (one.give_back(at)) {
    c10::profiledCPUMemoryReporter().Delete(at);
  } else {
    one.before_->raw_deleter()(at);
  }
}

void Workspace::before_fork() { workspace().mutex_.lock(); }

void Workspace::after_fork() { workspace().mutex_.unlock(); }

void Workspace::after_fork_in_child() {
  Workspace& one = workspace();
  one.opened_ = opened_here;
  if (one.opened_ == 0) one.free_.trim(0);
  one.mutex_.unlock();
}

void open_workspace() { workspace().open(); }
void close_workspace() { workspace().close(); }
int64_t workspace_peak() { return workspace().peak(); }

#else

void open_workspace() {}
void close_workspace() {}
int64_t workspace_peak() { return 0; }

#endif

}  // namespace
}  // namespace ioi_fast

TORCH_LIBRARY_FRAGMENT(ioi_fast, library) {
  library.def("open_workspace() -> ()", &ioi_fast::open_workspace);
  library.def("close_workspace() -> ()", &ioi_fast::close_workspace);
  library.def("workspace_peak() -> int", &ioi_fast::workspace_peak);
}
