"""The ONNX operators and element types that lehr promises; the conformance table and its closing sum are counted by these."""

from __future__ import annotations

OPERATORS = frozenset(
    """
    Conv ConvTranspose Gemm MatMul
    BatchNormalization InstanceNormalization LayerNormalization GroupNormalization LRN
    MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool

    Relu LeakyRelu PRelu ThresholdedRelu Elu Celu Selu Gelu Mish Swish HardSigmoid HardSwish Sigmoid Tanh Softplus
    Softsign Softmax LogSoftmax Hardmax Clip Erf

    Abs Add Div Exp Log Mod Mul Neg Pow Reciprocal Sign Sqrt Sub
    Acos Acosh Asin Asinh Atan Atanh Cos Cosh Sin Sinh Tan
    Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual
    And Not Or Xor
    BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
    Ceil Floor Round
    Where Cast CastLike Sum Mean Min Max

    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    ArgMax ArgMin CumSum

    Concat Split Slice Pad Reshape Flatten Squeeze Unsqueeze Transpose Expand Tile
    Gather GatherElements GatherND ScatterElements ScatterND OneHot
    Shape Size Constant ConstantOfShape Range EyeLike Trilu DepthToSpace SpaceToDepth Resize Upsample Identity Dropout

    SoftmaxCrossEntropyLoss NegativeLogLikelihoodLoss Einsum TopK
    """.split()
)

# As node_tests.py names types: a tensor by its element type, anything else by its kind.
TYPES = frozenset(
    """
    DOUBLE FLOAT FLOAT16 BFLOAT16 BOOL
    INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64
    """.split()
)


def out_of_scope(operator: str, body: list[str], types: list[str]) -> str | None:
    """Why a test is not among the promised ones, or None.

    `operator` is what the test is about, `body` the operators its model holds, `types` those of its values and casts.
    """
    if operator not in OPERATORS:
        return f"operator {operator}"
    for inner in body:
        if inner not in OPERATORS:
            return f"{operator} expanded into {inner}"
    for kind in types:
        if kind not in TYPES:
            return f"type {kind}"
    return None
