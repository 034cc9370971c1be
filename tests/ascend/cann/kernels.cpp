// The handles of aclCreate…, the two steps of a kernel, and the checks that all kernels share.
#include "kernels.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace cann {

namespace {

// aclDataType, of acl_base.h
enum DataType : int {
  FLOAT = 0, FLOAT16 = 1, INT8 = 2, INT32 = 3, UINT8 = 4, INT16 = 6, INT64 = 9, DOUBLE = 11,
  BOOL = 12, COMPLEX64 = 16, COMPLEX128 = 17, BF16 = 27,
};
// aclFormat of tensors in torch's own layout: NCHW, NHWC, ND, NDHWC, NCDHW and NCL.
constexpr int PLAIN_FORMATS[] = {0, 1, 2, 27, 30, 47};

at::ScalarType scalar_type(int type) {
  switch (type) {
    case FLOAT: return at::kFloat;
    case FLOAT16: return at::kHalf;
    case INT8: return at::kChar;
    case INT32: return at::kInt;
    case UINT8: return at::kByte;
    case INT16: return at::kShort;
    case INT64: return at::kLong;
    case DOUBLE: return at::kDouble;
    case BOOL: return at::kBool;
    case COMPLEX64: return at::kComplexFloat;
    case COMPLEX128: return at::kComplexDouble;
    case BF16: return at::kBFloat16;
  }
  throw Error(KERNEL_REFUSED, "not emulated: aclDataType " + std::to_string(type));
}

// Torch's CPU kernels, without what torch does around them for the caller's tensors.
struct PlainTorch {
  c10::InferenceMode no_inference{false};
  at::AutoDispatchBelowADInplaceOrView no_autograd;
  c10::impl::ExcludeDispatchKeyGuard no_modes{
      c10::autocast_dispatch_keyset |
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot,
                           c10::DispatchKey::Functionalize})};
};

}  // namespace

void check_parameter(const char* kernel, Tensor* tensor) {
  if (!tensor) return;
  if (!tensor->refusal.empty()) throw Error(KERNEL_REFUSED, tensor->refusal);
  check(kernel, *tensor);
}

void check(const char* name, const at::Tensor& tensor) {
  if (!tensor.defined()) return;
  const std::string kernel = name;
  if (tensor.scalar_type() == at::kBFloat16 && !soc().has_bf16)
    throw Error(KERNEL_REFUSED, "EZ1001: " + kernel + ": " + soc().name + " has no DT_BFLOAT16");
  const bool is_cast = kernel == "aclnnInplaceCopy" || kernel == "aclnnCast";
  if (tensor.scalar_type() == at::kDouble && !is_cast)
    throw Error(KERNEL_REFUSED, "EZ1001: " + kernel + ": DT_DOUBLE is not computed by this card");
  if (tensor.numel() == 0) return;
  const int there = card_of(tensor.const_data_ptr()), card = current_card();
  if (there != card)
    throw Error(KERNEL_FAILED,
                kernel + " on card " + std::to_string(card) + " was given memory of " +
                    (there < 0 ? std::string("the host") : "card " + std::to_string(there)));
}

TensorList::~TensorList() {
  for (Tensor* handle : handles) handle->release();
}
ScalarList::~ScalarList() {
  for (Scalar* handle : handles) handle->release();
}

int launch(Executor* executor, void* stream) {
  std::shared_ptr<Executor> owned(executor);
  record("kernel %s", owned->name.c_str());
  return guarded([&] {
    Stream* on = resolve(stream);
    if (on->card != current_card())
      throw Error(STREAM_OF_OTHER_CONTEXT, owned->name + ": the stream is another card's");
    on->launch([owned] {
      PlainTorch guard;
      try {
        owned->compute();
      } catch (const Error&) {
        throw;
      } catch (const std::exception& error) {
        throw Error(KERNEL_FAILED, owned->name + ": " + error.what());
      }
    });
  });
}

void written(const at::Tensor& tensor) {
  if (!tensor.is_floating_point() || !saturates()) return;
  if (at::isfinite(tensor).all().item<bool>()) return;
  set_overflow(card_of(tensor.const_data_ptr()));
  at::nan_to_num_(const_cast<at::Tensor&>(tensor), 0.0);  // NaN to 0, Inf to the largest number
}

void write(const at::Tensor& out, const at::Tensor& result) {
  if (out.sizes() != result.sizes())
    throw Error(KERNEL_FAILED, "an output has another shape than what was computed");
  out.copy_(result);
  written(out);
}
void write(const Tensor* out, const at::Tensor& result) {
  write(static_cast<const at::Tensor&>(*out), result);
}

namespace {

constexpr int8_t KEEP_TYPE = 0, ALLOW_LESS = 1, USE_FP16 = 2, USE_HF32 = 3;  // of cubeMathType
constexpr uint32_t HF32_DROPPED_BITS = 12;  // of fp32's 23 bits of mantissa HF32 keeps 11

at::Tensor to_hf32(const at::Tensor& tensor) {
  at::Tensor rounded = tensor.contiguous().clone();
  float* numbers = rounded.data_ptr<float>();
  for (int64_t i = 0; i < rounded.numel(); ++i) {
    if (!std::isfinite(numbers[i])) continue;
    uint32_t bits;
    memcpy(&bits, &numbers[i], sizeof bits);
    bits += 1u << (HF32_DROPPED_BITS - 1);
    bits &= ~((1u << HF32_DROPPED_BITS) - 1);
    memcpy(&numbers[i], &bits, sizeof bits);
  }
  return rounded.as_strided(tensor.sizes(), rounded.strides());
}

}  // namespace

at::Tensor for_cube(const at::Tensor& tensor, int8_t math_type) {
  if (!tensor.defined()) return tensor;
  if (tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16)
    return tensor.to(at::kFloat);  // the cube adds up in fp32
  if (tensor.scalar_type() != at::kFloat) return tensor;
  const bool is_old = !soc().has_hf32;
  if (is_old || math_type == USE_FP16) return tensor.to(at::kHalf).to(at::kFloat);
  if (math_type == ALLOW_LESS || math_type == USE_HF32) return to_hf32(tensor);
  return tensor;
}

}  // namespace cann

using namespace cann;

// -------------------------------------------------------------------------------------- handles

extern "C" {

Tensor* aclCreateTensor(const int64_t* sizes, uint64_t dims, int type, const int64_t* strides,
                        int64_t offset, int format, const int64_t*, uint64_t, void* data) {
  PlainTorch guard;
  const bool is_plain = std::count(std::begin(PLAIN_FORMATS), std::end(PLAIN_FORMATS), format);
  if (!is_plain) return new Tensor({}, "not emulated: aclFormat " + std::to_string(format));
  const auto options = at::TensorOptions().dtype(scalar_type(type));
  char* start = static_cast<char*>(data);
  if (start) start += offset * options.dtype().itemsize();
  const at::IntArrayRef shape(sizes, dims), steps(strides, dims);
  at::Tensor value = start ? at::from_blob(start, shape, steps, options)
                           : at::empty_strided(shape, steps, options);  // without elements
  return new Tensor(std::move(value));
}
int aclDestroyTensor(Tensor* tensor) {
  if (tensor) tensor->release();
  return OK;
}
int aclGetViewShape(const Tensor* tensor, int64_t** sizes, uint64_t* dims) {
  *dims = tensor->dim();
  *sizes = new int64_t[*dims + 1];
  memcpy(*sizes, tensor->sizes().data(), *dims * sizeof(int64_t));
  return OK;
}

Scalar* aclCreateScalar(void* value, int type) {
  switch (type) {
    case FLOAT: return new Scalar(*static_cast<float*>(value));
    case DOUBLE: return new Scalar(*static_cast<double*>(value));
    case INT64: return new Scalar(*static_cast<int64_t*>(value));
    case INT32: return new Scalar(*static_cast<int32_t*>(value));
    case BOOL: return new Scalar(*static_cast<bool*>(value));
    case FLOAT16: return new Scalar(*static_cast<c10::Half*>(value));
    case BF16: return new Scalar(*static_cast<c10::BFloat16*>(value));
  }
  report(Error(KERNEL_REFUSED, "not emulated: a scalar of aclDataType " + std::to_string(type)));
  return nullptr;
}
int aclDestroyScalar(Scalar* scalar) {
  if (scalar) scalar->release();
  return OK;
}

IntArray* aclCreateIntArray(const int64_t* values, uint64_t count) {
  return new IntArray(values, values + count);
}
int aclDestroyIntArray(IntArray* array) {
  if (array) array->release();
  return OK;
}
BoolArray* aclCreateBoolArray(const bool* values, uint64_t count) {
  return new BoolArray(values, values + count);
}
int aclDestroyBoolArray(BoolArray* array) {
  if (array) array->release();
  return OK;
}
FloatArray* aclCreateFloatArray(const float* values, uint64_t count) {
  return new FloatArray(values, values + count);
}
int aclDestroyFloatArray(FloatArray* array) {
  if (array) array->release();
  return OK;
}

// A list takes its members over.
TensorList* aclCreateTensorList(Tensor* const* members, uint64_t count) {
  auto* list = new TensorList;
  for (uint64_t i = 0; i < count; ++i) {
    list->push_back(optional(members[i]));
    if (members[i]) list->handles.push_back(members[i]);
  }
  return list;
}
int aclDestroyTensorList(TensorList* list) {
  if (list) list->release();
  return OK;
}
ScalarList* aclCreateScalarList(Scalar* const* members, uint64_t count) {
  auto* list = new ScalarList;
  for (uint64_t i = 0; i < count; ++i) {
    list->push_back(*members[i]);
    list->handles.push_back(members[i]);
  }
  return list;
}
int aclDestroyScalarList(ScalarList* list) {
  if (list) list->release();
  return OK;
}

}  // extern "C"
