// What the parts of the emulated CANN share: cards, memory, streams, and the log of what was done.
#pragma once

#include <condition_variable>
#include <cstdarg>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

namespace cann {

// Error codes of CANN (acl_base.h, acl_rt.h): those that torch_npu or a user may meet.
enum Code : int {
  OK = 0,
  INVALID_PARAM = 107000,
  NO_CONTEXT = 107002,  // SetDevice was not called in this thread
  STREAM_OF_OTHER_CONTEXT = 107003,
  OUT_OF_MEMORY = 207001,
  UNSUPPORTED = 561112,  // no kernel found
  KERNEL_FAILED = 507015,  // "aicore exception"
  KERNEL_REFUSED = 161002,  // of aclnn: a parameter that the kernel does not take
  COLLECTIVE_FAILED = 507048,
};

struct Error : std::runtime_error {
  Code code;
  Error(Code code, const std::string& text) : std::runtime_error(text), code(code) {}
};

// Keep the text for aclGetRecentErrMsg, and give the code back.
int report(const Error& error);
// Run a function; its code is 0, or that of the Error it throws.
int guarded(const std::function<void()>& work);

// One line of the log that the environment variable EMULATED_CANN_LOG names.
void record(const char* format, ...) __attribute__((format(printf, 1, 2)));

// ------------------------------------------------------------------------------------- the card

// What a card can do, by the name of its SoC.
struct Soc {
  std::string name;
  bool has_bf16;
  bool has_hf32;             // and so fp32 in its matrix unit; older ones have fp16 only
  bool can_keep_infinities;  // else arithmetic saturates: there are no Inf and NaN
};
const Soc& soc();

constexpr int MAX_CARDS = 64;
int card_count();
int current_card();          // of this thread; throws NO_CONTEXT
void enter_card(int card);   // let this thread work on it
bool saturates();    // whether overflow gives the largest number and sets the register
void set_overflow(int card);
bool has_overflow(int card);
void clear_overflow(int card);

// The card on which an address lies, or -1 if it is the host's.
int card_of(const void* address);
// Whether a card can reach it: memory of a card, or page-locked memory of the host.
bool is_page_locked(const void* address);

// ------------------------------------------------------------------------------------- a stream

// Work of one card in order, in a thread of its own, as on a card: the caller goes on meanwhile.
class Stream {
 public:
  explicit Stream(int card);
  ~Stream();
  void launch(std::function<void()> work);
  // Wait until all is done. Throws the first Error of the work since the last call.
  void synchronize();
  bool is_idle();
  const int card;
  const int id;

 private:
  void run();
  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool busy_ = false, ended_ = false;
  bool failed_ = false;
  Error error_{OK, ""};
  std::thread thread_;
};

// The stream itself, or for nullptr the default one of this thread's card.
Stream* resolve(void* stream);
// Wait for all streams of a card.
void synchronize_card(int card);

}  // namespace cann

extern "C" const char* aclGetRecentErrMsg();
