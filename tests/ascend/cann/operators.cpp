// Operators of the older interface aclop, of which torch_npu still uses a few.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cann.h"

using namespace cann;

namespace {
struct TensorDescription {
  int type, format;
  std::vector<int64_t> sizes;
};
struct DataBuffer {
  void* data;
  size_t size;
};

constexpr int STATUS_NUMBERS = 8;  // of which the first says whether there was an overflow
constexpr int INT32 = 3;           // of aclDataType

// The register's state into an output: V2 has int32, the older one float, and its input as well.
void write_status(int card, DataBuffer* buffer, int type) {
  const bool overflow = has_overflow(card);
  float as_float[STATUS_NUMBERS] = {overflow ? 1.0f : 0.0f};
  int32_t as_int[STATUS_NUMBERS] = {overflow};
  const void* numbers = type == INT32 ? static_cast<void*>(as_int) : as_float;
  memcpy(buffer->data, numbers, std::min(buffer->size, sizeof as_float));
}

void execute(const std::string& name, int inputs, DataBuffer** in, int outputs,
             TensorDescription** described, DataBuffer** out, void* stream) {
  record("operator %s", name.c_str());
  Stream* on = resolve(stream);
  if (name == "NPUGetFloatStatusV2" || name == "NPUGetFloatStatus") {
    DataBuffer target = *out[0], also = inputs ? *in[0] : DataBuffer{nullptr, 0};
    const int type = described[0]->type;
    on->launch([=]() mutable {
      write_status(on->card, &target, type);
      if (also.data) write_status(on->card, &also, type);
    });
  } else if (name == "NPUClearFloatStatusV2" || name == "NPUClearFloatStatus") {
    on->launch([=] { clear_overflow(on->card); });
  } else if (name == "NPUAllocFloatStatus") {
    DataBuffer target = *out[0];
    on->launch([=] { memset(target.data, 0, target.size); });
  } else {
    throw Error(UNSUPPORTED, "not emulated: operator " + name);
  }
}
}  // namespace

extern "C" {

TensorDescription* aclCreateTensorDesc(int type, int dims, const int64_t* sizes, int format) {
  return new TensorDescription{type, format, {sizes, sizes + dims}};
}
void aclDestroyTensorDesc(const TensorDescription* described) { delete described; }
int aclGetTensorDescType(const TensorDescription* described) { return described->type; }
int aclGetTensorDescFormat(const TensorDescription* described) { return described->format; }
size_t aclGetTensorDescNumDims(const TensorDescription* described) {
  return described->sizes.size();
}
int aclGetTensorDescDimV2(const TensorDescription* described, size_t dim, int64_t* size) {
  *size = described->sizes[dim];
  return OK;
}
int aclSetTensorFormat(TensorDescription*, int) { return OK; }
int aclSetTensorShape(TensorDescription*, int, const int64_t*) { return OK; }
int aclSetTensorPlaceMent(TensorDescription*, int) { return OK; }
void aclSetTensorDescName(TensorDescription*, const char*) {}
int aclSetTensorConst(TensorDescription*, void*, size_t) { return OK; }

DataBuffer* aclCreateDataBuffer(void* data, size_t size) { return new DataBuffer{data, size}; }
int aclDestroyDataBuffer(const DataBuffer* buffer) {
  delete buffer;
  return OK;
}
void* aclopCreateAttr() { return malloc(1); }
void aclopDestroyAttr(const void* attributes) { free(const_cast<void*>(attributes)); }

int aclopCompileAndExecute(const char* name, int inputs, TensorDescription**, DataBuffer** in,
                           int outputs, TensorDescription** described, DataBuffer** out, void*,
                           int, int, const char*, void* stream) {
  return guarded([&] { execute(name, inputs, in, outputs, described, out, stream); });
}
int aclopCompileAndExecuteV2(const char* name, int inputs, TensorDescription** taken,
                             DataBuffer** in, int outputs, TensorDescription** described,
                             DataBuffer** out, void* attributes, int engine, int compilation,
                             const char* path, void* stream) {
  return aclopCompileAndExecute(name, inputs, taken, in, outputs, described, out, attributes,
                                engine, compilation, path, stream);
}

// Options of the compiler of operators. Kernels here need none.
int aclSetCompileopt(int, const char*) { return OK; }
size_t aclGetCompileoptSize(int) { return sizeof "disable"; }
int aclGetCompileopt(int, char* value, size_t) {
  strcpy(value, "disable");
  return OK;
}
int aclopSetCompileFlag(int) { return OK; }

// The profiler's marks.
uint64_t MsprofGetHashId(const char*, size_t) { return 0; }
uint64_t MsprofSysCycleTime() { return 0; }
int MsprofRegisterCallback(uint32_t, void*) { return OK; }
int MsprofReportApi(uint32_t, const void*) { return OK; }
int MsprofReportCompactInfo(uint32_t, const void*, uint32_t) { return OK; }
int MsprofReportAdditionalInfo(uint32_t, const void*, uint32_t) { return OK; }
void aclAppLog(int, const char*, const char*, uint32_t, const char*, ...) {}
int aclGetDeviceCapability(uint32_t, int, int64_t* value) {
  *value = 0;
  return OK;
}

}  // extern "C"
