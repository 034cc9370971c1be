// Kernels of layers, reductions, losses and whole lists of tensors.
#include "kernels.h"

using cann::BoolArray, cann::for_cube, cann::IntArray, cann::optional, cann::Scalar,
    cann::ScalarList, cann::Tensor, cann::TensorList, cann::write, cann::written;

// ------------------------------------------------------------------------- the matrix unit: cube

KERNEL(aclnnConvolution,
       (Tensor * input, Tensor* weight, Tensor* bias, IntArray* stride, IntArray* padding,
        IntArray* dilation, bool transposed, IntArray* output_padding, int64_t groups, Tensor* out,
        int8_t math_type),
       write(out, at::convolution(for_cube(*input, math_type), for_cube(*weight, math_type),
                                  for_cube(optional(bias), 0), *stride, *padding, *dilation,
                                  transposed, *output_padding, groups)))

KERNEL(aclnnConvolutionBackward,
       (Tensor * grad, Tensor* input, Tensor* weight, IntArray* bias_sizes, IntArray* stride,
        IntArray* padding, IntArray* dilation, bool transposed, IntArray* output_padding,
        int64_t groups, BoolArray* mask, int8_t math_type, Tensor* grad_input, Tensor* grad_weight,
        Tensor* grad_bias),
       {
         c10::OptionalArrayRef<int64_t> sizes;
         if (bias_sizes) sizes = at::IntArrayRef(*bias_sizes);
         auto gradients = at::convolution_backward(
             for_cube(*grad, math_type), for_cube(*input, math_type), for_cube(*weight, math_type),
             sizes, *stride, *padding, *dilation, transposed, *output_padding, groups,
             {(*mask)[0], (*mask)[1], (*mask)[2]});
         if ((*mask)[0]) write(grad_input, std::get<0>(gradients));
         if ((*mask)[1]) write(grad_weight, std::get<1>(gradients));
         if ((*mask)[2]) write(grad_bias, std::get<2>(gradients));
       })

KERNEL(aclnnMatmul, (Tensor * self, Tensor* other, Tensor* out, int8_t math_type),
       write(out, at::matmul(for_cube(*self, math_type), for_cube(*other, math_type))))
KERNEL(aclnnMm, (Tensor * self, Tensor* other, Tensor* out, int8_t math_type),
       write(out, at::mm(for_cube(*self, math_type), for_cube(*other, math_type))))
KERNEL(aclnnBatchMatMul, (Tensor * self, Tensor* other, Tensor* out, int8_t math_type),
       write(out, at::bmm(for_cube(*self, math_type), for_cube(*other, math_type))))
KERNEL(aclnnAddmm,
       (Tensor * self, Tensor* one, Tensor* other, Scalar* beta, Scalar* alpha, Tensor* out,
        int8_t math_type),
       write(out, at::addmm(for_cube(*self, 0), for_cube(*one, math_type),
                            for_cube(*other, math_type), *beta, *alpha)))

// --------------------------------------------------------------------------------------- layers

namespace {
// Statistics are added up in fp32. Torch's CPU takes fewer mixtures of types than a card.
at::Tensor in_fp32(const Tensor* tensor) {
  return tensor ? tensor->to(at::kFloat) : at::Tensor();
}
}  // namespace

KERNEL(aclnnBatchNorm,
       (Tensor * input, Tensor* weight, Tensor* bias, Tensor* mean, Tensor* variance, bool training,
        double momentum, double epsilon, Tensor* out, Tensor* saved_mean, Tensor* saved_invstd),
       {
         auto [result, batch_mean, batch_invstd] =
             at::native_batch_norm(in_fp32(input), optional(weight), optional(bias), optional(mean),
                                   optional(variance), training, momentum, epsilon);
         write(out, result);
         if (mean) written(*mean);
         if (variance) written(*variance);
         if (!training) return;
         write(saved_mean, batch_mean);
         write(saved_invstd, batch_invstd);
       })

KERNEL(aclnnBatchNormBackward,
       (Tensor * grad, Tensor* input, Tensor* weight, Tensor* mean, Tensor* variance,
        Tensor* saved_mean, Tensor* saved_invstd, bool training, double epsilon, BoolArray* mask,
        Tensor* grad_input, Tensor* grad_weight, Tensor* grad_bias),
       {
         auto gradients = at::native_batch_norm_backward(
             in_fp32(grad), in_fp32(input), in_fp32(weight), in_fp32(mean), in_fp32(variance),
             in_fp32(saved_mean), in_fp32(saved_invstd), training, epsilon,
             {(*mask)[0], (*mask)[1], (*mask)[2]});
         if ((*mask)[0]) write(grad_input, std::get<0>(gradients));
         if ((*mask)[1]) write(grad_weight, std::get<1>(gradients));
         if ((*mask)[2]) write(grad_bias, std::get<2>(gradients));
       })

KERNEL(aclnnMaxPool2dWithMask,
       (Tensor * self, IntArray* kernel, IntArray* stride, IntArray* padding, IntArray* dilation,
        bool ceil_mode, Tensor* out, Tensor*),
       write(out, at::max_pool2d(*self, *kernel, *stride, *padding, *dilation, ceil_mode)))

KERNEL(aclnnSoftmax, (Tensor * self, int64_t dim, Tensor* out),
       write(out, at::softmax(*self, dim, out->scalar_type())))

KERNEL(aclnnBinaryCrossEntropy,
       (Tensor * self, Tensor* target, Tensor* weight, int64_t reduction, Tensor* out),
       write(out, at::binary_cross_entropy(*self, *target, optional(weight), reduction)))
KERNEL(aclnnBinaryCrossEntropyBackward,
       (Tensor * grad, Tensor* self, Tensor* target, Tensor* weight, int64_t reduction, Tensor* out),
       write(out, at::binary_cross_entropy_backward(*grad, *self, *target, optional(weight),
                                                    reduction)))

// ----------------------------------------------------------------------------------- reductions

namespace {
at::IntArrayRef all_if_empty(const IntArray* dims) {
  return dims ? at::IntArrayRef(*dims) : at::IntArrayRef();
}
// Any or all over several dimensions, of which torch 2.1 takes one at a time.
template <class Reduce>
at::Tensor reduce_flags(const at::Tensor& self, const IntArray* dims, bool keep, Reduce reduce) {
  at::Tensor flags = self.to(at::kBool);
  std::vector<int64_t> over(all_if_empty(dims).begin(), all_if_empty(dims).end());
  for (int64_t& dim : over) dim = dim < 0 ? dim + std::max<int64_t>(self.dim(), 1) : dim;
  std::sort(over.rbegin(), over.rend());
  if (over.empty())
    for (int64_t dim = self.dim() - 1; dim >= 0; --dim) over.push_back(dim);
  if (self.dim() == 0) return flags;
  for (int64_t dim : over) flags = reduce(flags, dim, keep);
  return flags;
}
}  // namespace

KERNEL(aclnnAll, (Tensor * self, IntArray* dims, bool keep, Tensor* out),
       write(out, reduce_flags(*self, dims, keep, [](const at::Tensor& x, int64_t dim, bool keep) {
               return at::all(x, dim, keep);
             })))
KERNEL(aclnnAny, (Tensor * self, IntArray* dims, bool keep, Tensor* out),
       write(out, reduce_flags(*self, dims, keep, [](const at::Tensor& x, int64_t dim, bool keep) {
               return at::any(x, dim, keep);
             })))
KERNEL(aclnnArgMax, (Tensor * self, int64_t dim, bool keep, Tensor* out),
       write(out, at::argmax(*self, dim, keep)))
KERNEL(aclnnMean, (Tensor * self, IntArray* dims, bool keep, int, Tensor* out),
       write(out, at::mean(*self, all_if_empty(dims), keep, out->scalar_type())))
KERNEL(aclnnReduceSum, (Tensor * self, IntArray* dims, bool keep, int, Tensor* out),
       write(out, at::sum(*self, all_if_empty(dims), keep, out->scalar_type())))
KERNEL(aclnnLinalgVectorNorm,
       (Tensor * self, Scalar* order, IntArray* dims, bool keep, int, Tensor* out),
       write(out, at::linalg_vector_norm(*self, *order, all_if_empty(dims), keep,
                                         out->scalar_type())))
KERNEL(aclnnMax, (Tensor * self, Tensor* out), write(out, at::max(*self)))
KERNEL(aclnnMin, (Tensor * self, Tensor* out), write(out, at::min(*self)))

// The number of elements is known when it has run: the output is made smaller.
KERNEL(aclnnNonzeroV2, (Tensor * self, Tensor* out), {
  const at::Tensor found = at::nonzero(*self).t();
  out->narrow(1, 0, found.size(1)).copy_(found);
  *static_cast<at::Tensor*>(out) =
      at::from_blob(out->data_ptr(), found.sizes(), out->options());
})

// ----------------------------------------------------------------------------- lists of tensors

namespace {
void write_all(const TensorList& outs, const std::vector<at::Tensor>& results) {
  for (size_t i = 0; i < outs.size(); ++i) write(outs[i], results[i]);
}
}  // namespace

KERNEL(aclnnForeachNorm, (TensorList * self, Scalar* order, TensorList* out),
       write_all(*out, at::_foreach_norm(*self, *order)))
KERNEL(aclnnForeachSqrt, (TensorList * self, TensorList* out),
       write_all(*out, at::_foreach_sqrt(*self)))
KERNEL(aclnnForeachAddScalarV2, (TensorList * self, Scalar* scalar, TensorList* out),
       write_all(*out, at::_foreach_add(*self, *scalar)))
KERNEL(aclnnForeachMulScalarV2, (TensorList * self, Scalar* scalar, TensorList* out),
       write_all(*out, at::_foreach_mul(*self, *scalar)))
KERNEL(aclnnForeachDivScalarV2, (TensorList * self, Scalar* scalar, TensorList* out),
       write_all(*out, at::_foreach_div(*self, *scalar)))
KERNEL(aclnnForeachAddListV2,
       (TensorList * self, TensorList* other, Scalar* alpha, TensorList* out),
       write_all(*out, at::_foreach_add(*self, *other, *alpha)))
KERNEL(aclnnForeachMulList, (TensorList * self, TensorList* other, TensorList* out),
       write_all(*out, at::_foreach_mul(*self, *other)))
KERNEL(aclnnForeachDivList, (TensorList * self, TensorList* other, TensorList* out),
       write_all(*out, at::_foreach_div(*self, *other)))
KERNEL(aclnnForeachDivScalarList, (TensorList * self, ScalarList* scalars, TensorList* out),
       write_all(*out, at::_foreach_div(*self, *scalars)))
KERNEL(aclnnForeachMulScalarList, (TensorList * self, ScalarList* scalars, TensorList* out),
       write_all(*out, at::_foreach_mul(*self, *scalars)))
KERNEL(aclnnForeachLerpScalar,
       (TensorList * self, TensorList* end, Scalar* weight, TensorList* out),
       write_all(*out, at::_foreach_lerp(*self, *end, *weight)))
KERNEL(aclnnForeachAddcmulScalarV2,
       (TensorList * self, TensorList* one, TensorList* other, Scalar* value, TensorList* out),
       write_all(*out, at::_foreach_addcmul(*self, *one, *other, *value)))
KERNEL(aclnnForeachAddcdivScalarV2,
       (TensorList * self, TensorList* one, TensorList* other, Scalar* value, TensorList* out),
       write_all(*out, at::_foreach_addcdiv(*self, *one, *other, *value)))
// The values of a list come as a tensor on the card here.
KERNEL(aclnnForeachAddcdivScalarList,
       (TensorList * self, TensorList* one, TensorList* other, Tensor* values, TensorList* out),
       write_all(*out, at::_foreach_addcdiv(*self, *one, *other, *values)))
KERNEL(aclnnForeachCopy, (TensorList * from, TensorList* to), {
  for (size_t i = 0; i < to->size(); ++i) (*to)[i].copy_((*from)[i]);
})
KERNEL(aclnnForeachNonFiniteCheckAndUnscale,
       (TensorList * gradients, Tensor* found, Tensor* inverse_scale), {
         for (const at::Tensor& gradient : *gradients) {
           if (!at::isfinite(gradient).all().item<bool>()) found->fill_(1.0);
           gradient.mul_(*inverse_scale);
         }
       })
