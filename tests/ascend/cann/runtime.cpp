// Cards, memory, streams, events and copies: the functions aclrt… of CANN.
#include "cann.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <vector>

namespace cann {

namespace {

constexpr int MAX_CARDS = 64;
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

// -------------------------------------------------------------------------------------- streams

struct Streams {
  std::mutex lock;
  std::set<Stream*> all;
  Stream* default_of[MAX_CARDS] = {};
};
Streams& streams() {
  static Streams* all = new Streams;
  return *all;
}

std::atomic<int> next_stream{0};

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

Stream::Stream(int card) : card(card), id(next_stream++), thread_([this] { run(); }) {
  Streams& all = streams();
  std::lock_guard<std::mutex> hold(all.lock);
  all.all.insert(this);
}

Stream::~Stream() {
  {
    Streams& all = streams();
    std::lock_guard<std::mutex> hold(all.lock);
    all.all.erase(this);
  }
  {
    std::lock_guard<std::mutex> hold(lock_);
    ended_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Stream::launch(std::function<void()> work) {
  {
    std::lock_guard<std::mutex> hold(lock_);
    queue_.push_back(std::move(work));
  }
  changed_.notify_all();
}

void Stream::synchronize() {
  std::unique_lock<std::mutex> hold(lock_);
  changed_.wait(hold, [this] { return queue_.empty() && !busy_; });
  if (failed_) {
    failed_ = false;
    throw error_;
  }
}

bool Stream::is_idle() {
  std::lock_guard<std::mutex> hold(lock_);
  return queue_.empty() && !busy_;
}

void Stream::run() {
  this_card = card;
  std::unique_lock<std::mutex> hold(lock_);
  for (;;) {
    changed_.wait(hold, [this] { return ended_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    hold.unlock();
    Error error{OK, ""};
    try {
      work();
    } catch (const Error& thrown) {
      error = thrown;
    } catch (const std::exception& thrown) {
      error = Error(KERNEL_FAILED, thrown.what());
    }
    work = nullptr;
    hold.lock();
    busy_ = false;
    if (error.code != OK && !failed_) {
      failed_ = true;
      error_ = error;
    }
    changed_.notify_all();
  }
}

Stream* resolve(void* stream) {
  if (stream) return static_cast<Stream*>(stream);
  const int card = current_card();
  Streams& all = streams();
  {
    std::lock_guard<std::mutex> hold(all.lock);
    if (all.default_of[card]) return all.default_of[card];
  }
  Stream* made = new Stream(card);
  std::lock_guard<std::mutex> hold(all.lock);
  return all.default_of[card] = made;
}

void synchronize_card(int card) {
  std::vector<Stream*> found;
  {
    Streams& all = streams();
    std::lock_guard<std::mutex> hold(all.lock);
    for (Stream* stream : all.all)
      if (stream->card == card) found.push_back(stream);
  }
  for (Stream* stream : found) stream->synchronize();
}

namespace {

// A mark in a stream. It is done when the stream has come to the place of its last record.
struct Event {
  std::mutex lock;
  std::condition_variable changed;
  uint64_t recorded = 0, done = 0;
  std::chrono::steady_clock::time_point time;
};
// A stream may be asked for a mark after its owner has destroyed the handle.
using EventHandle = std::shared_ptr<Event>;
Event& event(void* handle) { return **static_cast<EventHandle*>(handle); }

constexpr int HOST_TO_HOST = 0, HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2, DEVICE_TO_DEVICE = 3;
const char* const COPY_NAMES[] = {"host-to-host", "host-to-device", "device-to-host",
                                  "device-to-device"};

bool is_page_locked(const void* address) {
  Memory& all = memory();
  std::lock_guard<std::mutex> hold(all.lock);
  return all.find(address) != nullptr;
}

// What a copy says of its addresses must be true: a card cannot reach the host's memory.
void check_copy(const void* to, const void* from, int kind) {
  if (kind < HOST_TO_HOST || kind > DEVICE_TO_DEVICE) return;
  const bool to_card = kind == HOST_TO_DEVICE || kind == DEVICE_TO_DEVICE;
  const bool from_card = kind == DEVICE_TO_HOST || kind == DEVICE_TO_DEVICE;
  if ((card_of(to) >= 0) != to_card || (card_of(from) >= 0) != from_card)
    throw Error(INVALID_PARAM, std::string("a copy ") + COPY_NAMES[kind] +
                                   " got an address of the other side");
}

void record_copy(const char* how, int kind, size_t size) {
  record("copy %s %s %zu", kind >= 0 && kind <= 3 ? COPY_NAMES[kind] : "other", how, size);
}

}  // namespace
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

// -------------------------------------------------------------------------------------- streams

int aclrtCreateStream(void** stream) {
  return guarded([&] { *stream = new Stream(current_card()); });
}
int aclrtCreateStreamWithConfig(void** stream, uint32_t, uint32_t) {
  return aclrtCreateStream(stream);
}
int aclrtDestroyStream(void* stream) {
  delete static_cast<Stream*>(stream);
  return OK;
}
int aclrtDestroyStreamForce(void* stream) { return aclrtDestroyStream(stream); }
int aclrtStreamGetId(void* stream, int32_t* id) {
  return guarded([&] { *id = resolve(stream)->id; });
}
int aclrtStreamQuery(void* stream, int* status) {
  return guarded([&] { *status = resolve(stream)->is_idle() ? 0 : 1; });
}
int aclrtSynchronizeStream(void* stream) {
  record("synchronize stream");
  return guarded([&] { resolve(stream)->synchronize(); });
}
int aclrtSynchronizeStreamWithTimeout(void* stream, int32_t) {
  return aclrtSynchronizeStream(stream);
}
int aclrtSynchronizeDevice() {
  record("synchronize card");
  return guarded([&] { synchronize_card(current_card()); });
}
int aclrtSynchronizeDeviceWithTimeout(int32_t) { return aclrtSynchronizeDevice(); }
int aclrtSetStreamFailureMode(void*, uint64_t) { return OK; }
int aclrtSetStreamOverflowSwitch(void*, uint32_t) { return OK; }
int aclrtGetStreamOverflowSwitch(void*, uint32_t* on) {
  *on = 0;
  return OK;
}
int aclrtPeekAtLastError(int) { return OK; }
int aclrtGetLastError(int) { return OK; }
int aclrtSetOpExecuteTimeOut(uint32_t) { return OK; }
int aclrtSetOpWaitTimeout(uint32_t) { return OK; }
int aclrtGetSysParamOpt(int, int64_t* value) {
  *value = 0;
  return OK;
}
int aclrtSetSysParamOpt(int, int64_t) { return OK; }
int aclrtCtxSetSysParamOpt(int, int64_t) { return OK; }

// --------------------------------------------------------------------------------------- events

int aclrtCreateEventWithFlag(void** handle, uint32_t) {
  *handle = new EventHandle(std::make_shared<Event>());
  return OK;
}
int aclrtCreateEventExWithFlag(void** handle, uint32_t flag) {
  return aclrtCreateEventWithFlag(handle, flag);
}
int aclrtDestroyEvent(void* handle) {
  delete static_cast<EventHandle*>(handle);
  return OK;
}
int aclrtRecordEvent(void* handle, void* stream) {
  return guarded([&] {
    EventHandle mark = *static_cast<EventHandle*>(handle);
    uint64_t number;
    {
      std::lock_guard<std::mutex> hold(mark->lock);
      number = ++mark->recorded;
    }
    resolve(stream)->launch([mark, number] {
      std::lock_guard<std::mutex> hold(mark->lock);
      mark->done = number;
      mark->time = std::chrono::steady_clock::now();
      mark->changed.notify_all();
    });
  });
}
int aclrtResetEvent(void*, void*) { return OK; }
int aclrtStreamWaitEvent(void* stream, void* handle) {
  return guarded([&] {
    EventHandle mark = *static_cast<EventHandle*>(handle);
    std::unique_lock<std::mutex> hold(mark->lock);
    const uint64_t number = mark->recorded;
    hold.unlock();
    resolve(stream)->launch([mark, number] {
      std::unique_lock<std::mutex> hold(mark->lock);
      mark->changed.wait(hold, [&] { return mark->done >= number; });
    });
  });
}
int aclrtSynchronizeEvent(void* handle) {
  record("synchronize event");
  Event& mark = event(handle);
  std::unique_lock<std::mutex> hold(mark.lock);
  mark.changed.wait(hold, [&, number = mark.recorded] { return mark.done >= number; });
  return OK;
}
int aclrtQueryEventStatus(void* handle, int* status) {
  Event& mark = event(handle);
  std::lock_guard<std::mutex> hold(mark.lock);
  *status = mark.done == mark.recorded ? 1 : 0;
  return OK;
}
int aclrtQueryEventWaitStatus(void* handle, int* status) {
  aclrtQueryEventStatus(handle, status);
  *status = *status ? 0 : 0xffff;
  return OK;
}
int aclrtEventElapsedTime(float* milliseconds, void* from, void* to) {
  const auto seconds = std::chrono::duration<float>(event(to).time - event(from).time);
  *milliseconds = 1000 * seconds.count();
  return OK;
}

// --------------------------------------------------------------------------------------- copies

int aclrtMemcpy(void* to, size_t, const void* from, size_t size, int kind) {
  record_copy("blocking", kind, size);
  return guarded([&] {
    check_copy(to, from, kind);
    memcpy(to, from, size);
  });
}
int aclrtMemcpyAsync(void* to, size_t, const void* from, size_t size, int kind, void* stream) {
  return guarded([&] {
    check_copy(to, from, kind);
    const void* host = kind == HOST_TO_DEVICE ? from : kind == DEVICE_TO_HOST ? to : nullptr;
    const bool waits = host && !is_page_locked(host);  // pageable memory cannot be left to a card
    record_copy(waits ? "blocking" : "queued", kind, size);
    Stream* on = resolve(stream);
    on->launch([=] { memcpy(to, from, size); });
    if (waits) on->synchronize();
  });
}
int aclrtMemset(void* to, size_t, int32_t value, size_t size) {
  memset(to, value, size);
  return OK;
}
int aclrtMemsetAsync(void* to, size_t, int32_t value, size_t size, void* stream) {
  return guarded([&] { resolve(stream)->launch([=] { memset(to, value, size); }); });
}

}  // extern "C"
