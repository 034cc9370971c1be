// A device for tests: PyTorch's PrivateUse1 key, which Python renames to "npu", with host memory
// behind it.
//
// Operators run on the CPU through PyTorch's boxed fallback, in the device's own memory, so that
// results are the CPU's bit for bit. What makes the device worth having is what it refuses, as an
// accelerator does and the CPU cannot:
//
//   * an operator on tensors of several devices (tensors without dimensions are exempt),
//   * float64, but for single numbers,
//   * a view of device memory that no kernel below makes,
//   * use in a process forked from one that has used it,
//   * binary cross-entropy under autocast.
//
// Written for torch 2.13; __init__.py names the oldest torch that it is built with.

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

namespace {

constexpr auto kNpu = c10::DeviceType::PrivateUse1;
constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);
constexpr c10::DeviceIndex kCards = 2;

// ---------------------------------------------------------------------------------------- cards

thread_local c10::DeviceIndex current_card = 0;

c10::DeviceIndex exchange_card(c10::DeviceIndex card) {
  TORCH_CHECK(0 <= card && card < kCards, "npu:", int(card), ": there are ", int(kCards), " cards");
  return std::exchange(current_card, card);
}

// Everything is done when it returns, so streams and events are names only.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kNpu; }
  c10::DeviceIndex deviceCount() const noexcept override { return kCards; }

  c10::Device getDevice() const override { return {kNpu, current_card}; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {kNpu, exchange_card(device.index())};
  }
  void setDevice(c10::Device device) const override { exchange_card(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current_card = device.index();
  }

  c10::Stream getStream(c10::Device device) const override { return getDefaultStream(device); }
  c10::Stream getDefaultStream(c10::Device device) const override {
    const c10::Device card(kNpu, device.has_index() ? device.index() : current_card);
    return c10::Stream(c10::Stream::DEFAULT, card);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return getDefaultStream(stream.device());
  }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}

  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag)
      const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// --------------------------------------------------------------------------------------- memory

// Blocks of host memory, and how much they are.
class Blocks {
 public:
  void* allocate(size_t bytes) {
    void* data = c10::alloc_cpu(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    sizes_[data] = bytes;
    now_ += bytes;
    peak_ = std::max(peak_, now_);
    return data;
  }
  void free(void* data) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto block = sizes_.find(data);
      now_ -= block->second;
      sizes_.erase(block);
    }
    c10::free_cpu(data);
  }
  bool contain(const void* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return sizes_.count(data) > 0;
  }
  size_t now() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return now_;
  }
  size_t peak() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return peak_;
  }
  void reset_peak() {
    const std::lock_guard<std::mutex> lock(mutex_);
    peak_ = now_;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<const void*, size_t> sizes_;
  size_t now_ = 0, peak_ = 0;
};

// Never destroyed: the interpreter may free tensors later than this library's statics.
template <bool on_card>
struct Memory final : c10::Allocator {
  static Blocks& blocks() {
    static auto* const blocks = new Blocks;
    return *blocks;
  }
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device device =
        on_card ? c10::Device(kNpu, current_card) : c10::Device(c10::DeviceType::CPU);
    if (on_card) {
      static const pid_t owner = getpid();
      TORCH_CHECK(getpid() == owner, "npu: in use by the process that this one was forked from");
    }
    void* data = blocks().allocate(bytes);
    return {data, data, raw_deleter(), device};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return [](void* data) { blocks().free(data); };
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

using DeviceMemory = Memory<true>;
using PinnedMemory = Memory<false>;  // page-locked, if it were not a test
DeviceMemory device_memory;
PinnedMemory pinned_memory;
REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &device_memory);

// The CPU's view of a tensor: the same memory, sizes and strides. What the CPU writes to it is
// written to the tensor, even where an operator's schema forgets to say that it writes.
at::Tensor on_cpu(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.is_cpu()) {
    return tensor;
  }
  const c10::Storage& storage = tensor.storage();
  c10::DataPtr data(
      storage.mutable_data(),
      new c10::Storage(storage),  // keeps the memory while the view lives
      [](void* kept) { delete static_cast<c10::Storage*>(kept); },
      c10::Device(c10::DeviceType::CPU));
  auto view = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(
          c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data),
          c10::GetCPUAllocator(), /*resizable=*/true),
      c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  view.unsafeGetTensorImpl()->set_sizes_and_strides(
      tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return view;
}

// -------------------------------------------------------------------------------- random numbers

// A generator of the CPU's kind, so that the same seed draws the same numbers on either device.
struct Generator final : at::CPUGeneratorImpl {
  explicit Generator(c10::DeviceIndex card) {
    device_ = c10::Device(kNpu, card);
    key_set_ = kKeys;
  }

  template <class From, class To>
  static void copy_state(From& from, To& to) {
    to.set_engine(from.engine());
    to.set_next_float_normal_sample(from.next_float_normal_sample());
    to.set_next_double_normal_sample(from.next_double_normal_sample());
  }

 private:
  Generator* clone_impl() const override {
    auto* copy = new Generator(device_.index());
    copy_state(const_cast<Generator&>(*this), *copy);
    return copy;
  }
};

const at::Generator& default_generator(c10::DeviceIndex card) {
  static const auto generators = [] {
    std::vector<at::Generator> made;
    for (c10::DeviceIndex n = 0; n < kCards; ++n) {
      made.push_back(at::make_generator<Generator>(n));
    }
    return made;
  }();
  return generators.at(card < 0 ? current_card : card);
}

// While it lives, the CPU's default generator has the state of a device's.
class Drawing {
 public:
  explicit Drawing(at::Generator device)
      : device_(std::move(device)), cpu_(at::detail::getDefaultCPUGenerator()) {
    exchange();
  }
  ~Drawing() { exchange(); }
  Drawing(const Drawing&) = delete;
  Drawing& operator=(const Drawing&) = delete;

 private:
  void exchange() {
    const std::lock_guard<std::mutex> lock(cpu_.mutex());
    at::CPUGeneratorImpl kept;
    auto& device = *device_.get<Generator>();
    auto& cpu = *cpu_.get<at::CPUGeneratorImpl>();
    Generator::copy_state(cpu, kept);
    Generator::copy_state(device, cpu);
    Generator::copy_state(kept, device);
  }
  at::Generator device_, cpu_;
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kCards; }
  c10::DeviceIndex getCurrentDevice() const override { return current_card; }
  void setCurrentDevice(c10::DeviceIndex card) const override { exchange_card(card); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex card) const override {
    return exchange_card(card);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex card) const override {
    return card < 0 ? current_card : exchange_card(card);
  }

  const at::Generator& getDefaultGenerator(c10::DeviceIndex card) const override {
    return default_generator(card);
  }
  at::Generator getNewGenerator(c10::DeviceIndex card) const override {
    return at::make_generator<Generator>(card < 0 ? current_card : card);
  }

  bool isPinnedPtr(const void* data) const override { return PinnedMemory::blocks().contain(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    const c10::OptionalDeviceGuard guard(storage.device());
    auto data = device_memory.allocate(bytes);
    device_memory.copy_data(data.mutable_get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.set_data_ptr_noswap(std::move(data));
    storage.set_nbytes(bytes);
  }
};

[[maybe_unused]] const bool hooks_registered = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  return true;
}();

// --------------------------------------------------------------------------- tensors and storage

at::ScalarType supported(std::optional<at::ScalarType> wanted, at::IntArrayRef size) {
  const auto dtype = c10::dtype_or_default(wanted);
  // Single numbers are let through: torch's own GradScaler inverts its scale in float64.
  TORCH_CHECK(dtype != at::kDouble || size.empty(), "npu: has no float64");
  return dtype;
}

at::Tensor empty(
    at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(size, &device_memory, kKeys, supported(dtype, size), format);
}

at::Tensor empty_strided(
    at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(
      size, stride, &device_memory, kKeys, supported(dtype, size));
}

// The one way between devices, in either direction.
at::Tensor copy_from(const at::Tensor& source, const at::Tensor& target, bool) {
  on_cpu(target).copy_(on_cpu(source));
  return target;
}

// How the fallback writes back. What on_cpu made is written already, unless it was resized: then
// the strides matter too, as their order decides how later sums are rounded.
at::Tensor copy_from_and_resize(const at::Tensor& source, const at::Tensor& target) {
  if (source.const_data_ptr() != target.const_data_ptr() || source.sizes() != target.sizes()) {
    target.resize_(source.sizes());
    if (source.is_non_overlapping_and_dense()) {
      target.as_strided_(source.sizes(), source.strides());
    }
    copy_from(source, target, /*non_blocking=*/false);
  }
  return target;
}

std::vector<at::Tensor> to_cpu(at::TensorList tensors) {
  std::vector<at::Tensor> views;
  for (const auto& tensor : tensors) {
    views.push_back(on_cpu(tensor));
  }
  return views;
}

at::Scalar local_scalar_dense(const at::Tensor& tensor) {
  return at::native::_local_scalar_dense_cpu(on_cpu(tensor));
}

const at::Tensor& resize_(
    const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(self.device());
  return at::native::resize_(self, size, format);  // resizes by the storage's own allocator
}

at::Tensor& set_empty(at::Tensor& self) {
  const c10::OptionalDeviceGuard guard(self.device());
  c10::Storage storage(
      c10::Storage::use_byte_size_t(), 0, device_memory.allocate(0), &device_memory,
      /*resizable=*/true);
  return self.set_(std::move(storage), 0, {0}, {});
}

void record_stream(at::Tensor&, at::Stream) {}

// -------------------------------------------------------------------------------------- fallback

// The device of an operator's tensors.
//
// cpu_fallback takes tensors from anywhere. A device does not, but for single numbers that are only
// read, and for indices.
std::optional<c10::Device> common_device(
    const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  static const std::unordered_set<std::string> indexing{
      "aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_",
      "aten::_unsafe_index", "aten::_unsafe_index_put"};
  const auto& parameters = op.schema().arguments();
  const auto arguments = torch::jit::last(stack, parameters.size());
  std::optional<c10::Device> common;

  const auto check = [&](const at::Tensor& tensor, const c10::Argument& parameter, bool index) {
    const bool written = parameter.alias_info() != nullptr && parameter.alias_info()->isWrite();
    if (!tensor.defined() || (tensor.is_cpu() && (index || (tensor.dim() == 0 && !written)))) {
      return;
    }
    common = common.value_or(tensor.device());
    TORCH_CHECK(
        tensor.device() == *common, op.schema().operator_name(), ": ", parameter.name(), " is on ",
        tensor.device(), ", and other tensors on ", *common);
  };
  for (const auto n : c10::irange(arguments.size())) {
    const auto& value = arguments[n];
    if (value.isTensor()) {
      check(value.toTensor(), parameters[n], /*index=*/false);
    } else if (value.isTensorList()) {
      for (const auto& tensor : value.toTensorVector()) {
        check(tensor, parameters[n], /*index=*/false);
      }
    } else if (value.isOptionalTensorList()) {
      for (const auto& tensor : value.toOptionalTensorVector()) {
        check(tensor.value_or(at::Tensor()), parameters[n], indexing.count(op.schema().name()) > 0);
      }
    }
  }
  return common;
}

// Takes the generator out of an operator's arguments, where the CPU would refuse it.
at::Generator take_generator(
    const c10::OperatorHandle& op, torch::jit::Stack* stack, c10::Device device) {
  const auto count = op.schema().arguments().size();
  for (auto argument = stack->end() - count; argument != stack->end(); ++argument) {
    if (argument->isGenerator()) {
      const auto generator = std::exchange(*argument, c10::IValue()).toGenerator();
      TORCH_CHECK(generator.device() == device, "npu: generator of ", generator.device());
      return generator;
    }
  }
  return default_generator(device.index());
}

// The fallback returns to the device of the first tensor, which may be a number of the CPU's.
void bring_home(const c10::OperatorHandle& op, torch::jit::Stack* stack, c10::Device device) {
  const auto count = op.schema().returns().size();
  for (auto result = stack->end() - count; result != stack->end(); ++result) {
    if (result->isTensor() && result->toTensor().defined()) {
      *result = result->toTensor().to(device);
    } else if (result->isTensorList()) {
      auto tensors = result->toTensorVector();
      for (auto& tensor : tensors) {
        tensor = tensor.to(device);
      }
      *result = std::move(tensors);
    }
  }
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto device = common_device(op, *stack);
  std::optional<Drawing> drawing;
  if (device && op.hasTag(at::Tag::nondeterministic_seeded)) {
    drawing.emplace(take_generator(op, stack, *device));
  }
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
  if (device) {
    bring_home(op, stack, *device);
  }
}

// -------------------------------------------------------------------------------------- autocast

at::Tensor refuse_binary_cross_entropy(
    const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, int64_t) {
  TORCH_CHECK(false, "npu: binary_cross_entropy is unsafe under autocast; compute it in float32");
}

#define LOWER_PRECISION(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define FP32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define FP32_BY_DTYPE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define PROMOTE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)

}  // namespace

// ---------------------------------------------------------------------------------- registration

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_to_cpu", &to_cpu);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  m.impl("record_stream", &record_stream);

  m.impl("view", &at::native::view);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("resize_", &resize_);
  m.impl("set_", &set_empty);
  using SetStorage = at::Tensor&(at::Tensor&, at::Storage);
  m.impl("set_.source_Storage", static_cast<SetStorage*>(&at::native::set_));
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);

  // Both would look for a kernel that an accelerator overrides, before any fallback.
  m.impl("convolution", torch::CppFunction::makeFromBoxedFunction<&fallback>());
  m.impl("convolution_backward", torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  AT_FORALL_LOWER_PRECISION_FP(LOWER_PRECISION)
  AT_FORALL_FP32(FP32)
  AT_FORALL_FP32_SET_OPT_DTYPE(FP32_BY_DTYPE)
  AT_FORALL_PROMOTE(PROMOTE)
  m.impl("binary_cross_entropy", &refuse_binary_cross_entropy);
}

// What the module torch.npu is made of.
TORCH_LIBRARY(npu_device, m) {
  m.def("device_count", [] { return int64_t(kCards); });
  m.def("current_device", [] { return int64_t(current_card); });
  m.def("set_device", [](int64_t card) { exchange_card(c10::DeviceIndex(card)); });
  m.def("manual_seed", [](int64_t seed, int64_t card) {
    auto generator = default_generator(c10::DeviceIndex(card));
    generator.set_current_seed(uint64_t(seed));
  });
  m.def("get_rng_state", [](int64_t card) {
    return default_generator(c10::DeviceIndex(card)).get_state();
  });
  m.def("set_rng_state", [](const at::Tensor& state, int64_t card) {
    auto generator = default_generator(c10::DeviceIndex(card));
    generator.set_state(state);
  });
  m.def("memory_allocated", [] { return int64_t(DeviceMemory::blocks().now()); });
  m.def("max_memory_allocated", [] { return int64_t(DeviceMemory::blocks().peak()); });
  m.def("reset_peak_memory_stats", [] { DeviceMemory::blocks().reset_peak(); });
}
