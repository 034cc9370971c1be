// Collectives between processes of one machine, over shared memory: HCCL's C functions.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>

#include "cann.h"

using namespace cann;

namespace {

constexpr int MAX_RANKS = 16;
constexpr size_t SLOT_BYTES = size_t(4) << 20;  // what a rank gives at a time
constexpr size_t ROOT_INFO_BYTES = 4108;        // HCCL_ROOT_INFO_BYTES
constexpr int POLL_MICROSECONDS = 50, POLLS_PER_LOOK = 2000;

enum Operation : int { SUM = 0, PRODUCT = 1, MAX = 2, MIN = 3 };
const size_t TYPE_BYTES[] = {1, 2, 4, 2, 4, 8, 8, 1, 2, 4, 8, 2};  // of HcclDataType

struct Shared {
  std::atomic<uint32_t> arrived, round;
  std::atomic<pid_t> pids[MAX_RANKS];
  char padding[4096 - 2 * sizeof(uint32_t) - MAX_RANKS * sizeof(pid_t)];
};

bool has_ended(pid_t pid) {
  if (kill(pid, 0) != 0) return true;
  char path[64], state = 0;
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  if (FILE* file = fopen(path, "r")) {
    if (fscanf(file, "%*d %*s %c", &state) != 1) state = 0;
    fclose(file);
  }
  return state == 'Z';
}

class Communicator {
 public:
  Communicator(uint32_t size, uint32_t rank, const char* name) : size_(size), rank_(rank) {
    if (size > MAX_RANKS) throw Error(UNSUPPORTED, "not emulated: more than 16 ranks");
    const size_t bytes = sizeof(Shared) + size * SLOT_BYTES;
    const int file = shm_open(name, O_CREAT | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, bytes) != 0)
      throw Error(COLLECTIVE_FAILED, "EI0006: no shared memory between the processes");
    void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    shared_ = static_cast<Shared*>(start);
    shared_->pids[rank] = getpid();
    snprintf(name_, sizeof name_, "%s", name);
    barrier();
    if (rank == 0) shm_unlink(name);  // all have it open
  }
  ~Communicator() { munmap(shared_, sizeof(Shared) + size_ * SLOT_BYTES); }

  char* slot(uint32_t rank) { return reinterpret_cast<char*>(shared_ + 1) + rank * SLOT_BYTES; }
  char* own() { return slot(rank_); }

  void barrier() {
    const uint32_t round = shared_->round;
    if (++shared_->arrived == size_) {
      shared_->arrived = 0;
      ++shared_->round;
      return;
    }
    for (int polls = 1; shared_->round == round; ++polls) {
      usleep(POLL_MICROSECONDS);
      if (polls % POLLS_PER_LOOK) continue;
      for (uint32_t rank = 0; rank < size_; ++rank)
        if (const pid_t pid = shared_->pids[rank]; pid && has_ended(pid))
          throw Error(COLLECTIVE_FAILED,
                      "EI0002: The wait execution of the Notify register times out. rank " +
                          std::to_string(rank) + ": remote process exit");
    }
  }

  // Give one's part to all, look at all parts, and go on when all have looked.
  template <class Look>
  void exchange(const char* part, size_t bytes, Look look) {
    if (bytes) memcpy(own(), part, bytes);
    barrier();
    look();
    barrier();
  }

  const uint32_t size_, rank_;
  char name_[128] = {};

 private:
  Shared* shared_;
};

template <class Number>
Number combine(Number one, Number other, int operation) {
  switch (operation) {
    case SUM: return static_cast<Number>(one + other);
    case PRODUCT: return static_cast<Number>(one * other);
    case MAX: return std::max(one, other);
    default: return std::min(one, other);
  }
}

template <class Number>
void reduce_slots(Communicator& all, char* out, size_t bytes, int operation) {
  Number* to = reinterpret_cast<Number*>(out);
  memcpy(out, all.slot(0), bytes);
  for (uint32_t rank = 1; rank < all.size_; ++rank) {
    const Number* from = reinterpret_cast<const Number*>(all.slot(rank));
    for (size_t i = 0; i < bytes / sizeof(Number); ++i) to[i] = combine(to[i], from[i], operation);
  }
}

void reduce(Communicator& all, char* out, size_t bytes, int type, int operation) {
  switch (type) {
    case 0: return reduce_slots<int8_t>(all, out, bytes, operation);
    case 1: return reduce_slots<int16_t>(all, out, bytes, operation);
    case 2: return reduce_slots<int32_t>(all, out, bytes, operation);
    case 3: return reduce_slots<c10::Half>(all, out, bytes, operation);
    case 4: return reduce_slots<float>(all, out, bytes, operation);
    case 5: return reduce_slots<int64_t>(all, out, bytes, operation);
    case 7: return reduce_slots<uint8_t>(all, out, bytes, operation);
    case 11: return reduce_slots<c10::BFloat16>(all, out, bytes, operation);
  }
  throw Error(UNSUPPORTED, "not emulated: HcclDataType " + std::to_string(type));
}

Communicator& communicator(void* handle) { return *static_cast<Communicator*>(handle); }

// Run a collective in a stream, in pieces that fit into a slot.
int in_pieces(const char* name, void* handle, void* stream, size_t bytes,
              std::function<void(Communicator&, size_t from, size_t count)> piece) {
  record("collective %s %zu", name, bytes);
  return guarded([&] {
    Communicator& all = communicator(handle);
    resolve(stream)->launch([=, &all] {
      for (size_t from = 0; from < bytes; from += SLOT_BYTES)
        piece(all, from, std::min(SLOT_BYTES, bytes - from));
    });
  });
}

}  // namespace

extern "C" {

int HcclGetRootInfo(char* info) {
  memset(info, 0, ROOT_INFO_BYTES);
  std::random_device random;
  snprintf(info, ROOT_INFO_BYTES, "/emulated_hccl_%d_%08x", getpid(), random());
  return OK;
}
int HcclCommInitRootInfo(uint32_t size, const char* info, uint32_t rank, void** handle) {
  record("collective init %u", size);
  return guarded([&] { *handle = new Communicator(size, rank, info); });
}
int HcclCommInitRootInfoConfig(uint32_t size, const char* info, uint32_t rank, const void*,
                               void** handle) {
  return HcclCommInitRootInfo(size, info, rank, handle);
}
int HcclCommDestroy(void* handle) {
  delete &communicator(handle);
  return OK;
}
int HcclGetCommName(void* handle, char* name) {
  strcpy(name, communicator(handle).name_);
  return OK;
}
int HcclGetCommAsyncError(void*, int* error) {
  *error = OK;
  return OK;
}
const char* HcclGetErrorString(int) { return aclGetRecentErrMsg(); }
int HcclSetConfig(int, ...) { return OK; }
uint32_t HcclGetCommConfigCapability() { return 0; }
int HcclGetRankSize(void* handle, uint32_t* size) {
  *size = communicator(handle).size_;
  return OK;
}
int HcclGetRankId(void* handle, uint32_t* rank) {
  *rank = communicator(handle).rank_;
  return OK;
}

int HcclAllReduce(char* from, char* to, uint64_t count, int type, int operation, void* handle,
                  void* stream) {
  return in_pieces("HcclAllReduce", handle, stream, count * TYPE_BYTES[type],
                   [=](Communicator& all, size_t start, size_t bytes) {
                     all.exchange(from + start, bytes, [&] {
                       reduce(all, to + start, bytes, type, operation);
                     });
                   });
}
int HcclReduce(char* from, char* to, uint64_t count, int type, int operation, uint32_t root,
               void* handle, void* stream) {
  return in_pieces("HcclReduce", handle, stream, count * TYPE_BYTES[type],
                   [=](Communicator& all, size_t start, size_t bytes) {
                     all.exchange(from + start, bytes, [&] {
                       if (all.rank_ == root) reduce(all, to + start, bytes, type, operation);
                     });
                   });
}
int HcclBroadcast(char* data, uint64_t count, int type, uint32_t root, void* handle,
                  void* stream) {
  return in_pieces("HcclBroadcast", handle, stream, count * TYPE_BYTES[type],
                   [=](Communicator& all, size_t start, size_t bytes) {
                     const size_t given = all.rank_ == root ? bytes : 0;
                     all.exchange(data + start, given, [&] {
                       memcpy(data + start, all.slot(root), bytes);
                     });
                   });
}
int HcclAllGather(char* from, char* to, uint64_t count, int type, void* handle, void* stream) {
  const size_t whole = count * TYPE_BYTES[type];
  return in_pieces("HcclAllGather", handle, stream, whole,
                   [=](Communicator& all, size_t start, size_t bytes) {
                     all.exchange(from + start, bytes, [&] {
                       for (uint32_t rank = 0; rank < all.size_; ++rank)
                         memcpy(to + rank * whole + start, all.slot(rank), bytes);
                     });
                   });
}

}  // extern "C"
