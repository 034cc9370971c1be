"""Names of the kernels of CANN that training, inference and S3FD use.

Recorded on the emulated cards (tests/ascend) with torch_npu 2.1.0.post17, 2.6.0 and 2.13.0;
``tests/integration/test_emulated_cards.py`` finds a name that is used and not listed.
"""

KERNEL_NAMES = tuple(
    """
    aclnnAbs aclnnAdd aclnnAddmm aclnnAdds aclnnAll aclnnAny aclnnArange aclnnArgMax
    aclnnBatchMatMul aclnnBatchNorm aclnnBatchNormBackward aclnnBinaryCrossEntropy
    aclnnBinaryCrossEntropyBackward aclnnBitwiseAndTensor aclnnBitwiseNot aclnnBitwiseOrTensor
    aclnnCast aclnnCat aclnnClamp aclnnClampMin aclnnConstantPadNd aclnnConvolution
    aclnnConvolutionBackward aclnnDiv aclnnDivs aclnnEqScalar aclnnEqTensor aclnnExp aclnnEye
    aclnnFlip aclnnForeachAddScalarV2 aclnnForeachAddcmulScalarV2 aclnnForeachDivScalarList
    aclnnForeachLerpScalar aclnnForeachMulScalarV2 aclnnForeachNorm aclnnForeachSqrt aclnnGather
    aclnnGeScalar aclnnGtScalar aclnnGtTensor aclnnIndexSelect aclnnInplaceAdd
    aclnnInplaceAddcdiv aclnnInplaceAdds aclnnInplaceClampMinTensor aclnnInplaceCopy
    aclnnInplaceFillScalar aclnnInplaceMaskedFillScalar aclnnInplaceOne aclnnInplaceRelu
    aclnnInplaceZero aclnnIsFinite aclnnLeScalar aclnnLeakyRelu aclnnLeakyReluBackward
    aclnnLinalgVectorNorm aclnnLog aclnnLog10 aclnnMatmul aclnnMax aclnnMaxPool2dWithMask
    aclnnMaximum aclnnMean aclnnMm aclnnMul aclnnMuls aclnnNeTensor aclnnNeg
    aclnnPowTensorScalar aclnnReciprocal aclnnReduceSum aclnnRound aclnnRsubs aclnnSWhere
    aclnnSigmoid aclnnSigmoidBackward aclnnSign aclnnSoftmax aclnnSqrt aclnnStack aclnnSub
    aclnnSubs aclnnThresholdBackward
    """.split()  # noqa: SIM905 (a line for each would be long)
)
