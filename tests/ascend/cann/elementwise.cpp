// Kernels that compute each number by itself, and those that make or move numbers.
#include "kernels.h"

using cann::BoolArray, cann::IntArray, cann::optional, cann::Scalar, cann::Tensor, cann::TensorList,
    cann::write, cann::written;

#define UNARY(NAME, FUNCTION) \
  KERNEL(aclnn##NAME, (Tensor * self, Tensor* out), write(out, FUNCTION(*self)))
#define BINARY(NAME, FUNCTION)                                    \
  KERNEL(aclnn##NAME, (Tensor * self, Tensor* other, Tensor* out), \
         write(out, FUNCTION(*self, *other)))
#define WITH_SCALAR(NAME, FUNCTION)                                \
  KERNEL(aclnn##NAME, (Tensor * self, Scalar* other, Tensor* out), \
         write(out, FUNCTION(*self, *other)))

UNARY(Abs, at::abs)
UNARY(BitwiseNot, at::bitwise_not)
UNARY(Exp, at::exp)
UNARY(IsFinite, at::isfinite)
UNARY(Log, at::log)
UNARY(Log10, at::log10)
UNARY(LogicalNot, at::logical_not)
UNARY(Neg, at::neg)
UNARY(Reciprocal, at::reciprocal)
UNARY(Relu, at::relu)
UNARY(Round, at::round)
UNARY(Sigmoid, at::sigmoid)
UNARY(Sign, at::sign)
UNARY(Sqrt, at::sqrt)

BINARY(BitwiseAndTensor, at::bitwise_and)
BINARY(BitwiseOrTensor, at::bitwise_or)
BINARY(Div, at::div)
BINARY(EqTensor, at::eq)
BINARY(GeTensor, at::ge)
BINARY(GtTensor, at::gt)
BINARY(LeTensor, at::le)
BINARY(LtTensor, at::lt)
BINARY(LogicalAnd, at::logical_and)
BINARY(LogicalOr, at::logical_or)
BINARY(Maximum, at::maximum)
BINARY(Minimum, at::minimum)
BINARY(Mul, at::mul)
BINARY(NeTensor, at::ne)

WITH_SCALAR(ClampMin, at::clamp_min)
WITH_SCALAR(Divs, at::div)
WITH_SCALAR(EqScalar, at::eq)
WITH_SCALAR(GeScalar, at::ge)
WITH_SCALAR(GtScalar, at::gt)
WITH_SCALAR(LeScalar, at::le)
WITH_SCALAR(LtScalar, at::lt)
WITH_SCALAR(LeakyRelu, at::leaky_relu)
WITH_SCALAR(Muls, at::mul)
WITH_SCALAR(NeScalar, at::ne)
WITH_SCALAR(PowTensorScalar, at::pow)

KERNEL(aclnnAdd, (Tensor * self, Tensor* other, Scalar* alpha, Tensor* out),
       write(out, at::add(*self, *other, *alpha)))
KERNEL(aclnnAdds, (Tensor * self, Scalar* other, Scalar* alpha, Tensor* out),
       write(out, at::add(*self, *other, *alpha)))
KERNEL(aclnnSub, (Tensor * self, Tensor* other, Scalar* alpha, Tensor* out),
       write(out, at::sub(*self, *other, *alpha)))
KERNEL(aclnnSubs, (Tensor * self, Scalar* other, Scalar* alpha, Tensor* out),
       write(out, at::sub(*self, *other, *alpha)))
KERNEL(aclnnRsubs, (Tensor * self, Scalar* other, Scalar* alpha, Tensor* out),
       write(out, at::rsub(*self, *other, *alpha)))
KERNEL(aclnnClamp, (Tensor * self, Scalar* low, Scalar* high, Tensor* out), {
  c10::optional<at::Scalar> least, most;
  if (low) least = *low;
  if (high) most = *high;
  write(out, at::clamp(*self, least, most));
})
KERNEL(aclnnClampMax, (Tensor * self, Scalar* high, Tensor* out),
       write(out, at::clamp_max(*self, *high)))
KERNEL(aclnnSWhere, (Tensor * condition, Tensor* self, Tensor* other, Tensor* out),
       write(out, at::where(*condition, *self, *other)))

// ------------------------------------------------------------------------------------- in place

KERNEL(aclnnInplaceAdd, (Tensor * self, Tensor* other, Scalar* alpha),
       written(self->add_(*other, *alpha)))
KERNEL(aclnnInplaceAdds, (Tensor * self, Scalar* other, Scalar* alpha),
       written(self->add_(*other, *alpha)))
KERNEL(aclnnInplaceSub, (Tensor * self, Tensor* other, Scalar* alpha),
       written(self->sub_(*other, *alpha)))
KERNEL(aclnnInplaceMul, (Tensor * self, Tensor* other), written(self->mul_(*other)))
KERNEL(aclnnInplaceMuls, (Tensor * self, Scalar* other), written(self->mul_(*other)))
KERNEL(aclnnInplaceDiv, (Tensor * self, Tensor* other), written(self->div_(*other)))
KERNEL(aclnnInplaceDivs, (Tensor * self, Scalar* other), written(self->div_(*other)))
KERNEL(aclnnInplaceAddcdiv, (Tensor * self, Tensor* one, Tensor* other, Scalar* value),
       written(self->addcdiv_(*one, *other, *value)))
KERNEL(aclnnInplaceAddcmul, (Tensor * self, Tensor* one, Tensor* other, Scalar* value),
       written(self->addcmul_(*one, *other, *value)))
KERNEL(aclnnInplaceClampMinTensor, (Tensor * self, Tensor* low), written(self->clamp_min_(*low)))
KERNEL(aclnnInplaceLerps, (Tensor * self, Tensor* end, Scalar* weight),
       written(self->lerp_(*end, *weight)))
KERNEL(aclnnInplaceRelu, (Tensor * self), at::relu_(*self))
KERNEL(aclnnInplaceCopy, (Tensor * self, Tensor* from), {
  self->copy_(*from);
  if (self->scalar_type() != from->scalar_type()) written(*self);
})
KERNEL(aclnnCast, (Tensor * self, int, Tensor* out), write(out, self->to(out->scalar_type())))
KERNEL(aclnnInplaceFillScalar, (Tensor * self, Scalar* value), self->fill_(*value))
KERNEL(aclnnInplaceFillTensor, (Tensor * self, Tensor* value), self->fill_(*value))
KERNEL(aclnnInplaceOne, (Tensor * self), self->fill_(1))
KERNEL(aclnnInplaceZero, (Tensor * self), self->zero_())
KERNEL(aclnnInplaceMaskedFillScalar, (Tensor * self, Tensor* mask, Scalar* value),
       self->masked_fill_(*mask, *value))

// ------------------------------------------------------------------------ gradients by element

KERNEL(aclnnSigmoidBackward, (Tensor * grad, Tensor* output, Tensor* out),
       write(out, at::sigmoid_backward(*grad, *output)))
KERNEL(aclnnThresholdBackward, (Tensor * grad, Tensor* self, Scalar* threshold, Tensor* out),
       write(out, at::threshold_backward(*grad, *self, *threshold)))
KERNEL(aclnnLeakyReluBackward,
       (Tensor * grad, Tensor* self, Scalar* slope, bool is_result, Tensor* out),
       write(out, at::leaky_relu_backward(*grad, *self, *slope, is_result)))

// ---------------------------------------------------------------------------- made, and moved

KERNEL(aclnnArange, (Scalar * start, Scalar* end, Scalar* step, Tensor* out),
       write(out, at::arange(*start, *end, *step, out->options())))
KERNEL(aclnnEye, (int64_t rows, int64_t columns, Tensor* out),
       write(out, at::eye(rows, columns, out->options())))
KERNEL(aclnnCat, (TensorList * parts, int64_t dim, Tensor* out), {
  std::vector<at::Tensor> same;
  for (const at::Tensor& part : *parts) same.push_back(part.to(out->scalar_type()));
  out->copy_(at::cat(same, dim));
})
KERNEL(aclnnStack, (TensorList * parts, int64_t dim, Tensor* out),
       out->copy_(at::stack(*parts, dim)))
KERNEL(aclnnFlip, (Tensor * self, IntArray* dims, Tensor* out), out->copy_(at::flip(*self, *dims)))
KERNEL(aclnnConstantPadNd, (Tensor * self, IntArray* pad, Scalar* value, Tensor* out),
       out->copy_(at::constant_pad_nd(*self, *pad, *value)))
KERNEL(aclnnGather, (Tensor * self, int64_t dim, Tensor* index, Tensor* out),
       out->copy_(at::gather(*self, dim, *index)))
KERNEL(aclnnIndexSelect, (Tensor * self, int64_t dim, Tensor* index, Tensor* out),
       out->copy_(at::index_select(*self, dim, *index)))

namespace {
c10::List<c10::optional<at::Tensor>> as_indices(const TensorList& list) {
  c10::List<c10::optional<at::Tensor>> indices;
  for (const at::Tensor& index : list) {
    const bool is_all = !index.defined() || (index.dim() == 1 && index.numel() == 0);
    indices.push_back(is_all ? c10::optional<at::Tensor>() : index);
  }
  return indices;
}
}  // namespace

KERNEL(aclnnIndex, (Tensor * self, TensorList* indices, Tensor* out),
       out->copy_(at::index(*self, as_indices(*indices))))
KERNEL(aclnnIndexPutImpl,
       (Tensor * self, TensorList* indices, Tensor* values, bool accumulate, bool),
       at::index_put_(*self, as_indices(*indices), *values, accumulate))
