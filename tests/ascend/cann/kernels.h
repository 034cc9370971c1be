// How an aclnn kernel is written here: its parameters as CANN's, its arithmetic by torch's CPU.
//
// CANN calls a kernel in two steps: …GetWorkspaceSize takes the parameters and gives an executor,
// the kernel itself runs the executor in a stream. KERNEL defines both.
#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include "cann.h"

namespace cann {

// What aclCreate… gives. It lives until aclDestroy… was called and the kernel that took it has run.
struct Handle {
  virtual ~Handle() = default;
  void retain() { ++owners_; }
  void release() {
    if (--owners_ == 0) delete this;
  }

 private:
  std::atomic<int> owners_{1};
};

struct Tensor : Handle, at::Tensor {
  explicit Tensor(at::Tensor value, std::string refusal = "")
      : at::Tensor(std::move(value)), refusal(std::move(refusal)) {}
  const std::string refusal;  // why no kernel takes it
};
struct Scalar : Handle, at::Scalar {
  explicit Scalar(at::Scalar value) : at::Scalar(std::move(value)) {}
};
struct IntArray : Handle, std::vector<int64_t> {
  using std::vector<int64_t>::vector;
};
struct BoolArray : Handle, std::vector<bool> {
  using std::vector<bool>::vector;
};
struct FloatArray : Handle, std::vector<float> {
  using std::vector<float>::vector;
};
struct TensorList : Handle, std::vector<at::Tensor> {
  std::vector<Tensor*> handles;
  ~TensorList() override;
};
struct ScalarList : Handle, std::vector<at::Scalar> {
  std::vector<Scalar*> handles;
  ~ScalarList() override;
};

// A kernel with its parameters.
struct Executor {
  std::string name;
  std::function<void()> compute;
};

// Refuse what the card cannot compute: a type it has not, memory that is not its own.
void check(const char* kernel, const at::Tensor& tensor);

void check_parameter(const char* kernel, Tensor* tensor);
inline void check_parameter(const char* kernel, TensorList* list) {
  for (const at::Tensor& tensor : *list) check(kernel, tensor);
}
template <class Other>
void check_parameter(const char*, Other) {}

// A parameter that the executor keeps: a handle is shared, a number copied.
template <class Parameter>
auto keep(Parameter parameter) {
  if constexpr (std::is_pointer_v<Parameter>) {
    if (parameter) parameter->retain();
    using Kind = std::remove_pointer_t<Parameter>;
    return std::shared_ptr<Kind>(parameter, [](Kind* kept) {
      if (kept) kept->release();
    });
  } else {
    return parameter;
  }
}
template <class Kind>
Kind* give(const std::shared_ptr<Kind>& kept) {
  return kept.get();
}
template <class Number>
Number give(Number number) {
  return number;
}

// The first step, for the function ``compute`` of a kernel's parameters.
template <auto compute>
struct FirstStep;
template <class... Parameters, void (*compute)(const char*, Parameters...)>
struct FirstStep<compute> {
  template <const char* name>
  static int prepare(Parameters... parameters, uint64_t* workspace, Executor** executor) {
    *workspace = 0;
    return guarded([&] {
      (check_parameter(name, parameters), ...);
      auto kept = std::make_tuple(keep(parameters)...);
      *executor = new Executor{name, [kept] {
                                 std::apply([](const auto&... all) { compute(name, give(all)...); },
                                            kept);
                               }};
    });
  }
};
// The second step. The executor is used up.
int launch(Executor* executor, void* stream);

// CANN's name of the first step belongs to a template's function: the loader is told which (ifunc).
#define PARAMETERS(...) __VA_ARGS__
#define KERNEL(NAME, TAKES, ...)                                                              \
  namespace {                                                                                 \
  constexpr char NAME##_name[] = #NAME;                                                       \
  void NAME##_compute(const char*, PARAMETERS TAKES) { __VA_ARGS__; }                         \
  }                                                                                           \
  extern "C" void* NAME##_first_step() {                                                      \
    return reinterpret_cast<void*>(&cann::FirstStep<NAME##_compute>::prepare<NAME##_name>);   \
  }                                                                                           \
  extern "C" int NAME##GetWorkspaceSize() __attribute__((ifunc(#NAME "_first_step")));        \
  extern "C" int NAME(void*, uint64_t, cann::Executor* executor, void* stream) {              \
    return cann::launch(executor, stream);                                                    \
  }

// A parameter that may be missing: an undefined tensor then.
inline at::Tensor optional(const Tensor* tensor) {
  return tensor ? static_cast<const at::Tensor&>(*tensor) : at::Tensor();
}

// Give what was computed to an output of the same shape; overflow as the card has it.
void write(const at::Tensor& out, const at::Tensor& result);
void write(const Tensor* out, const at::Tensor& result);
// What has changed in place.
void written(const at::Tensor& tensor);

// The numbers of a tensor as the matrix unit takes them: fp32, HF32 or fp16, by ``math_type``.
at::Tensor for_cube(const at::Tensor& tensor, int8_t math_type);

}  // namespace cann
