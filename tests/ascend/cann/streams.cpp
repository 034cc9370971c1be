// Streams, events and copies: the second half of the functions aclrt… of CANN.
#include "cann.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

namespace cann {

namespace {

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
  enter_card(card);
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

extern "C" {

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
