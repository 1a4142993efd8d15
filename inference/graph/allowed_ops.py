"""The ops that an exported graph may hold. Whatever is not here is refused, known or not.

No op here reads or writes files, reaches the network, calls back into the host program, holds state beyond one run
(variables, tables, queues, iterators, stateful random numbers) or restores a checkpoint. Control flow and function
calls are here; the bodies that they name are checked too.
"""

_STRUCTURE = """
Const Placeholder PlaceholderWithDefault Identity IdentityN NoOp StopGradient PreventGradient Snapshot EnsureShape
Assert CheckNumerics Cast Bitcast ZerosLike OnesLike Fill Shape ShapeN Size Rank
"""

_CONTROL_FLOW = """
If StatelessIf Case StatelessCase While StatelessWhile PartitionedCall StatefulPartitionedCall
Switch Merge Enter Exit NextIteration LoopCond ControlTrigger RefIdentity
EmptyTensorList TensorListConcat TensorListConcatLists TensorListConcatV2 TensorListElementShape
TensorListFromTensor TensorListGather TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack
TensorListPushBackBatch TensorListReserve TensorListResize TensorListScatter TensorListScatterIntoExistingList
TensorListScatterV2 TensorListSetItem TensorListSplit TensorListStack
"""

_ARRAYS = """
BatchToSpace BatchToSpaceND BroadcastArgs BroadcastGradientArgs BroadcastTo Concat ConcatOffset ConcatV2 DepthToSpace
Diag DiagPart DynamicPartition DynamicStitch ExpandDims ExtractImagePatches ExtractVolumePatches Gather GatherNd
GatherV2 InvertPermutation LinSpace MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV3 MatrixDiagV3
MatrixSetDiagV3 MirrorPad MirrorPadGrad OneHot Pack Pad PadV2 ParallelConcat ParallelDynamicStitch Range Reshape
ResizeArea Reverse ReverseSequence ReverseV2 Roll ScatterNd Select SelectV2 Slice SpaceToBatch SpaceToBatchND
SpaceToDepth Split SplitV Squeeze StridedSlice StridedSliceGrad TensorScatterAdd TensorScatterMax TensorScatterMin
TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile Transpose ConjugateTranspose Unique UniqueV2
UniqueWithCounts UnravelIndex Unpack Where
"""

_MATH = """
Abs AccumulateNV2 Acos Acosh Add AddN AddV2 All Any ApproximateEqual ArgMax ArgMin Asin Asinh Atan Atan2 Atanh
BatchMatMul BatchMatMulV2 BatchMatMulV3 Betainc Bincount BitwiseAnd BitwiseOr BitwiseXor Bucketize Ceil ClipByValue
Cos Cosh Cross CumulativeLogsumexp Cumprod Cumsum DenseBincount Digamma Div DivNoNan Einsum Equal Erf Erfc Erfinv Exp
Expm1 Floor FloorDiv FloorMod Greater GreaterEqual HistogramFixedWidth Igamma Igammac InTopKV2 Inv InvGrad
Invert IsFinite IsInf IsNan LeftShift Less LessEqual Lgamma Log Log1p LogicalAnd LogicalNot LogicalOr LowerBound
MatMul MatrixDeterminant MatrixInverse MatrixSolve Max Maximum Mean Min Minimum Mod Mul MulNoNan Ndtri Neg NextAfter
NotEqual Polygamma Pow Prod RealDiv Reciprocal ReciprocalGrad RightShift Rint Round Rsqrt RsqrtGrad SegmentMax
SegmentMean SegmentMin SegmentProd SegmentSum Sigmoid SigmoidGrad Sign Sin Sinh Sqrt SqrtGrad Square
SquaredDifference Sub Sum Tan Tanh TanhGrad TruncateDiv TruncateMod UnsortedSegmentMax UnsortedSegmentMin
UnsortedSegmentProd UnsortedSegmentSum UpperBound Xdivy Xlogy Xlog1py Zeta NthElement
"""

_NETWORKS = """
AvgPool AvgPool3D AvgPool3DGrad AvgPoolGrad BiasAdd BiasAddGrad BiasAddV1 Conv Conv2D Conv2DBackpropFilter
Conv2DBackpropFilterV2 Conv2DBackpropInput Conv2DBackpropInputV2 Conv3D Conv3DBackpropFilterV2 Conv3DBackpropInputV2
DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput Dilation2D
Dilation2DBackpropFilter Dilation2DBackpropInput Elu EluGrad FractionalAvgPool FusedBatchNorm FusedBatchNormGrad
FusedBatchNormGradV2 FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3 L2Loss LRN LRNGrad LeakyRelu LeakyReluGrad
LogSoftmax MaxPool MaxPool3D MaxPool3DGrad MaxPoolGrad MaxPoolGradV2 MaxPoolGradWithArgmax MaxPoolV2
MaxPoolWithArgmax Relu Relu6 Relu6Grad ReluGrad Selu SeluGrad Softmax SoftmaxCrossEntropyWithLogits Softplus
SoftplusGrad Softsign SoftsignGrad SparseSoftmaxCrossEntropyWithLogits TopK TopKV2 _FusedBatchNormEx _FusedConv2D
_FusedMatMul _FusedDepthwiseConv2dNative
"""

_IMAGES = """
AdjustContrastv2 CropAndResize CropAndResizeGradBoxes CropAndResizeGradImage CombinedNonMaxSuppression
ImageProjectiveTransformV2 ImageProjectiveTransformV3 NonMaxSuppression NonMaxSuppressionV2 NonMaxSuppressionV3
NonMaxSuppressionV4 NonMaxSuppressionV5 ResizeBicubic ResizeBicubicGrad ResizeBilinear ResizeBilinearGrad
ResizeNearestNeighbor ResizeNearestNeighborGrad ScaleAndTranslate ScaleAndTranslateGrad
"""

_STATELESS_RANDOM = """
StatelessRandomGetAlg StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg StatelessRandomNormal
StatelessRandomNormalV2 StatelessRandomUniform StatelessRandomUniformV2 StatelessTruncatedNormal
StatelessTruncatedNormalV2
"""

ALLOWED_OPS = frozenset(
    " ".join((_STRUCTURE, _CONTROL_FLOW, _ARRAYS, _MATH, _NETWORKS, _IMAGES, _STATELESS_RANDOM)).split()
)
