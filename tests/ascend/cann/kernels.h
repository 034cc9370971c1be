// How an aclnn kernel is written here: its parameters as CANN's, its arithmetic by torch's CPU.
//
// CANN calls a kernel in two steps: …GetWorkspaceSize takes the parameters and gives an executor,
// the kernel itself runs the executor in a stream. KERNEL defines both.
#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <memory>
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
  explicit Tensor(at::Tensor value) : at::Tensor(std::move(value)) {}
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
  std::vector<std::shared_ptr<Handle>> handles;
};

// The first step: take the handles that this thread has made for the kernel.
int prepare(const char* name, uint64_t* workspace, Executor** executor,
            std::function<void()> compute);
// The second step. The executor is used up.
int launch(Executor* executor, void* stream);

#define PARAMETERS(...) __VA_ARGS__
#define KERNEL(NAME, TAKES, ...)                                                          \
  extern "C" int NAME##GetWorkspaceSize(PARAMETERS TAKES, uint64_t* workspace,            \
                                        cann::Executor** executor) {                      \
    return cann::prepare(#NAME, workspace, executor, [=]() mutable { __VA_ARGS__; });     \
  }                                                                                       \
  extern "C" int NAME(void*, uint64_t, cann::Executor* executor, void* stream) {          \
    return cann::launch(executor, stream);                                                \
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
