// Cards, their memory, and the log: the first half of the functions aclrt… of CANN.
#include "cann.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace cann {

namespace {

constexpr size_t ALIGNMENT = 512;
// torch_npu takes other paths by these: the newest versions in its table of releases.
constexpr char CANN_VERSION[] = "9.1.0", DRIVER_VERSION[] = "26.0.0";
constexpr int UNINITIALIZED_BYTE = 0xff;  // NaN as a float: memory that is read before it is written

thread_local int this_card = -1;
thread_local std::string recent_error;

// ------------------------------------------------------------------------------------------ log

struct Log {
  std::mutex lock;
  FILE* file = nullptr;
  bool tried = false;
  void open(const char* path) {
    if (file) fclose(file);
    file = path && *path ? fopen(path, "a") : nullptr;
    if (file) setvbuf(file, nullptr, _IOLBF, 0);
    tried = true;
  }
};
Log& the_log() {
  static Log* log = new Log;  // never destroyed: threads write to the end
  return *log;
}

size_t number_from_environment(const char* name, size_t fallback) {
  const char* text = getenv(name);
  return text && *text ? strtoull(text, nullptr, 10) : fallback;
}

// --------------------------------------------------------------------------------------- memory

struct Allocation {
  size_t size;
  int card;  // -1: page-locked memory of the host
};

struct Memory {
  std::mutex lock;
  std::map<const char*, Allocation> allocations;
  size_t used[MAX_CARDS] = {};
  const size_t capacity = number_from_environment("EMULATED_CANN_MEMORY", size_t(64) << 30);

  const Allocation* find(const void* address) {
    auto next = allocations.upper_bound(static_cast<const char*>(address));
    if (next == allocations.begin()) return nullptr;
    --next;
    const bool inside = static_cast<const char*>(address) < next->first + next->second.size;
    return inside ? &next->second : nullptr;
  }

  void* allocate(size_t size, int card) {
    std::lock_guard<std::mutex> hold(lock);
    if (card >= 0 && used[card] + size > capacity)
      throw Error(OUT_OF_MEMORY, "EL0004: Failed to allocate memory: card " + std::to_string(card) +
                                     " has " + std::to_string(capacity - used[card]) +
                                     " bytes left of " + std::to_string(capacity));
    void* address = nullptr;
    if (posix_memalign(&address, ALIGNMENT, size + ALIGNMENT))
      throw Error(OUT_OF_MEMORY, "EL0004: Failed to allocate memory: the host has none");
    if (card >= 0) {
      memset(address, UNINITIALIZED_BYTE, size);
      used[card] += size;
    }
    allocations[static_cast<char*>(address)] = {size, card};
    return address;
  }

  void release(void* address) {
    std::lock_guard<std::mutex> hold(lock);
    auto found = allocations.find(static_cast<char*>(address));
    if (found == allocations.end()) throw Error(INVALID_PARAM, "freed memory that is not CANN's");
    if (found->second.card >= 0) used[found->second.card] -= found->second.size;
    allocations.erase(found);
    free(address);
  }
};
Memory& memory() {
  static Memory* all = new Memory;
  return *all;
}

std::atomic<bool> overflows[MAX_CARDS];
std::atomic<int> saturation_mode{-1};  // 0: saturates, 1: keeps infinities, -1: the SoC's own

}  // namespace

int report(const Error& error) {
  recent_error = error.what();
  return error.code;
}

int guarded(const std::function<void()>& work) {
  try {
    work();
    return OK;
  } catch (const Error& error) {
    return report(error);
  }
}

void record(const char* format, ...) {
  Log& log = the_log();
  std::lock_guard<std::mutex> hold(log.lock);
  if (!log.tried) log.open(getenv("EMULATED_CANN_LOG"));
  if (!log.file) return;
  va_list values;
  va_start(values, format);
  vfprintf(log.file, format, values);
  va_end(values);
  fputc('\n', log.file);
}

const Soc& soc() {
  static const Soc known = [] {
    const char* text = getenv("EMULATED_CANN_SOC");
    const std::string name = text && *text ? text : "Ascend910B2";
    // Atlas A2 and A3 (910B1…, 910_93…) have all; 910A, 910B, 910Pro and 310P have none of it.
    const bool is_new = (name.rfind("Ascend910B", 0) == 0 && name.size() > 10) ||
                        name.rfind("Ascend910_93", 0) == 0;
    return Soc{name, is_new, is_new, is_new};
  }();
  return known;
}

int card_count() {
  static const int count = number_from_environment("EMULATED_CANN_CARDS", 2);
  return count;
}

int current_card() {
  if (this_card < 0) throw Error(NO_CONTEXT, "EE1001: aclrtSetDevice was not called in this thread");
  return this_card;
}

bool saturates() {
  const int mode = saturation_mode;
  return mode < 0 ? !soc().can_keep_infinities : mode == 0;
}
void set_overflow(int card) { overflows[card] = true; }
bool has_overflow(int card) { return overflows[card]; }
void clear_overflow(int card) { overflows[card] = false; }

int card_of(const void* address) {
  Memory& all = memory();
  std::lock_guard<std::mutex> hold(all.lock);
  const Allocation* found = all.find(address);
  return found ? found->card : -1;
}

void enter_card(int card) { this_card = card; }

bool is_page_locked(const void* address) {
  Memory& all = memory();
  std::lock_guard<std::mutex> hold(all.lock);
  return all.find(address) != nullptr;
}

}  // namespace cann

using namespace cann;

// What every function of CANN does that has no code here.
int emulated_cann_refuse(const char* name) {
  return report(Error(UNSUPPORTED, std::string("not emulated: ") + name));
}

extern "C" {

// For tests: continue the log in another file; nullptr ends it.
void emulated_cann_log(const char* path) {
  Log& log = the_log();
  std::lock_guard<std::mutex> hold(log.lock);
  log.open(path);
}

int aclInit(const char*) { return OK; }
int aclFinalize() { return OK; }
const char* aclGetRecentErrMsg() { return recent_error.c_str(); }
const char* aclrtGetSocName() { return soc().name.c_str(); }

// The version of CANN or, for the last of its packages, of the driver; the rest of the struct, parts
// of the version, is not read.
int aclsysGetCANNVersion(int package, char* version) {
  constexpr int DRIVER = 7;
  const char* cann = getenv("EMULATED_CANN_VERSION");
  strcpy(version, package == DRIVER ? DRIVER_VERSION : cann && *cann ? cann : CANN_VERSION);
  return OK;
}

int aclrtGetDeviceCount(uint32_t* count) {
  *count = card_count();
  return OK;
}
int aclrtSetDevice(int32_t card) {
  return guarded([&] {
    if (card < 0 || card >= card_count())
      throw Error(INVALID_PARAM, "there is no card " + std::to_string(card));
    if (this_card != card) record("set_device %d pid %d tid %d", card, getpid(), gettid());
    this_card = card;
  });
}
int aclrtResetDevice(int32_t) { return OK; }
int aclrtGetDevice(int32_t* card) {
  return guarded([&] { *card = current_card(); });
}
int aclrtGetCurrentContext(void** context) {
  static char contexts[MAX_CARDS];
  return guarded([&] { *context = &contexts[current_card()]; });
}
int aclrtSetCurrentContext(void*) { return OK; }
int aclrtDeviceCanAccessPeer(int32_t* can, int32_t, int32_t) {
  *can = 1;
  return OK;
}
int aclrtDeviceEnablePeerAccess(int32_t, uint32_t) { return OK; }

int aclrtSetDeviceSatMode(int mode) {
  saturation_mode = mode;
  return OK;
}
int aclrtGetDeviceSatMode(int* mode) {
  *mode = saturates() ? 0 : 1;
  return OK;
}
// The register of a card as torch_npu reads it between kernels: 64 bytes, not 0 after an overflow.
int aclrtGetOverflowStatus(void* out, size_t size, void* stream) {
  Stream* on = resolve(stream);
  on->launch([=] {
    memset(out, 0, size);
    *static_cast<uint64_t*>(out) = has_overflow(on->card);
  });
  return OK;
}
int aclrtResetOverflowStatus(void* stream) {
  Stream* on = resolve(stream);
  on->launch([=] { clear_overflow(on->card); });
  return OK;
}

// --------------------------------------------------------------------------------------- memory

int aclrtMalloc(void** address, size_t size, int) {
  return guarded([&] {
    *address = nullptr;
    *address = memory().allocate(size, current_card());
    record("allocate card %d pid %d", current_card(), getpid());
  });
}
int aclrtMallocAlign32(void** address, size_t size, int policy) {
  return aclrtMalloc(address, size, policy);
}
int aclrtFree(void* address) {
  return guarded([&] {
    const int card = card_of(address);
    if (card >= 0) synchronize_card(card);
    memory().release(address);
  });
}
int aclrtMallocHost(void** address, size_t size) {
  return guarded([&] { *address = memory().allocate(size, -1); });
}
int aclrtFreeHost(void* address) {
  return guarded([&] { memory().release(address); });
}
int aclrtGetMemInfo(int, size_t* free, size_t* total) {
  return guarded([&] {
    Memory& all = memory();
    std::lock_guard<std::mutex> hold(all.lock);
    *total = all.capacity;
    *free = all.capacity - all.used[current_card()];
  });
}
int aclrtPointerGetAttributes(const void* address, void* attributes) {
  // location: {uint32 id, uint32 type}, type 0 is the host and 1 a card; then the page size.
  const int card = card_of(address);
  uint32_t values[2] = {card < 0 ? 0u : unsigned(card), card < 0 ? 0u : 1u};
  if (card < 0 && !is_page_locked(address)) values[1] = 2;  // not registered
  memcpy(attributes, values, sizeof values);
  return OK;
}

}  // extern "C"
