"""What TensorRT's ONNX parser imports, as data: operators, element types, restrictions, and since when.

Sources: the parser's table of supported operators for TensorRT 10.15 (onnx-tensorrt, docs/operators.md, with its
docs/Changelog.md), the parser's own checks of that time (attributes and outputs of Attention, scales and zero
points), NVIDIA's operator reference (Attention, Quantize, Dequantize), and the parser notes of the releases 11.0 to
11.5. No table of a later version than 10.15 had been published when this was written. What the parser of TensorRT for
RTX 1.7 says of the same graphs, and where it is told to differ: tests/graphs/test_own_parser.py.
"""

Version = tuple[int, int]  # major, minor

OLDEST: Version = (10, 14)  # the first that imports Attention
TABLE: Version = (10, 15)  # the version of the published table
VERSIONS: tuple[Version, ...] = (OLDEST, TABLE, (11, 0))  # where what is imported last changed for our graphs

LOWEST_OPSET = 9
# From that version on; 23 is what ONNX 1.18 defines, which the parser was built with from 10.11 on.
HIGHEST_OPSET: dict[Version, int] = {(10, 14): 23, (10, 15): 24, (11, 5): 25}

# The types of operands that carry data; indices, axes and conditions have the types that ONNX gives them.
_FLOATS = "FP32 FP16 BF16"
_NUMBERS = f"{_FLOATS} INT32 INT64"
_ANY = f"{_NUMBERS} BOOL"
_CONSTANTS = f"{_ANY} FP8 FP4 INT4"
_SUPPORTED = {
    _FLOATS: """
        Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos Cosh
        CumSum Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization
        GRU HardSigmoid HardSwish Hardmax ImageScaler InstanceNormalization IsInf LayerNormalization LeakyRelu Log
        LogSoftmax LRN LSTM LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization ParametricSoftplus PRelu
        QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Reciprocal Resize
        RMSNormalization RNN RotaryEmbedding Round ScaledTanh Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign
        Sqrt Tan Tanh ThresholdedRelu Upsample""",
    _NUMBERS: """
        Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Min Mod Mul
        Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
        ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TopK""",
    _ANY: """
        Concat Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop OneHot Reshape ReverseSequence
        Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where""",
    "BOOL": "And Not Or Xor",
    "FP32": "STFT",
    "FP32 FP16": """
        BlackmanWindow DeformConv GridSample HammingWindow HannWindow Mish NonMaxSuppression NonZero RoiAlign""",
    f"{_FLOATS} INT32": "TensorScatter",
    f"{_FLOATS} INT8 FP8": "Attention",
    f"{_ANY} UINT8": "Cast CastLike",
    _CONSTANTS: "Constant ConstantOfShape",
    "INT8 FP8 FP4 INT4": "DequantizeLinear",
    f"{_NUMBERS} INT8": "Gelu",
    f"{_NUMBERS} FP8": "Mean",
}
OPERATORS: dict[str, frozenset[str]] = {
    operator: frozenset(types.split()) for types, operators in _SUPPORTED.items() for operator in operators.split()
}
REFUSED = frozenset(
    [
        "AffineGrid",
        "Bernoulli",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Col2Im",
        "CenterCropPad",
        "Compress",
        "ConcatFromSequence",
        "ConvInteger",
        "DFT",
        "Det",
        "DynamicQuantizeLinear",
        "ImageDecoder",
        "MatMulInteger",
        "MaxRoiPool",
        "MaxUnpool",
        "MelWeightMatrix",
        "Multinomial",
        "NegativeLogLikelihoodLoss",
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
        "QLinearConv",
        "QLinearMatMul",
        "RegexFullMatch",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceLength",
        "SequenceMap",
        "SoftmaxCrossEntropyLoss",
        "SplitToSequence",
        "StringConcat",
        "StringNormalizer",
        "StringSplit",
        "TfIdfVectorizer",
        "Unique",
    ]
)
SINCE: dict[str, Version] = {
    "Attention": (10, 14),
    "RMSNormalization": (10, 15),
    "RotaryEmbedding": (10, 15),
    "TensorScatter": (10, 15),
}
UNTABLED: dict[str, Version] = {"Swish": (11, 0), "DFT": (11, 2)}  # imported since, with types nobody has published
SQUEEZE_ALL: Version = (11, 5)  # Squeeze without axes; before, where the shape is fixed

NETWORK_TYPES = frozenset(f"{_ANY} UINT8".split())  # what inputs and outputs of the network may be
NAMES = {"FLOAT": "FP32", "FLOAT16": "FP16", "BFLOAT16": "BF16", "FLOAT8E4M3FN": "FP8", "FLOAT4E2M1": "FP4"}
TOP_K_BELOW = 3840

# Operands that carry data where it is not the first one alone ...
DATA_OPERANDS: dict[str, tuple[int, ...]] = {"Where": (1, 2), "Attention": (0, 1, 2), "OneHot": (2,)}
# ... where there are none, the types are those of what the node makes.
DATA_RESULTS = frozenset(
    ["Cast", "CastLike", "Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform"]
)
# Operands that ONNX allows to differ in type, and a strongly typed network does not.
ALIKE: dict[str, tuple[int, ...]] = {"Attention": (0, 1, 2), "Pow": (0, 1), "QuantizeLinear": (0, 1)}
# Operands that fix the shape of a result: shapes of inputs may enter them, values of inputs may not.
SHAPE_OPERANDS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}
# Operators whose results have as many elements as their data say.
DATA_SHAPED = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress"})

# Operands that the parser needs at build time.
BUILD_TIME: dict[str, int] = {
    "CumSum": 1,
    "OneHot": 1,
    "Squeeze": 1,
    "Unsqueeze": 1,
    "Dropout": 2,
    **{operator: 1 for operator in OPERATORS if operator.startswith("Reduce")},
}
# Of these the parser itself needs the operand: a weight, through no operators but these. The builder computes others.
READ_THROUGH: dict[str, frozenset[str]] = {
    "Dropout": frozenset(),
    **{operator: frozenset(["Cast", "Identity"]) for operator in OPERATORS if operator.startswith("Reduce")},
}
# Operands of a fixed rank, of a fixed type, and those that may not be given.
RANKS: dict[str, dict[int, int]] = {
    "Attention": dict.fromkeys(range(4), 4),
    "TensorScatter": dict.fromkeys(range(2), 4),
}
OPERAND_TYPES: dict[str, dict[int, str]] = {"RotaryEmbedding": {3: "INT64"}}
ABSENT: dict[str, tuple[int, ...]] = {"Attention": (4, 5, 6)}
# Outputs beyond the first that the parser does not make.
ONE_OUTPUT = frozenset({"Attention", "BatchNormalization", "LayerNormalization", "MaxPool"})
# Attributes: the only value that is imported; None: the attribute may not be there at all.
ATTRIBUTES: dict[str, dict[str, float | str | None]] = {
    "Attention": {"softcap": 0.0, "qk_matmul_output_mode": 0, "softmax_precision": None},
    "BatchNormalization": {"training_mode": 0},
    "Constant": {"sparse_value": None, "value_string": None, "value_strings": None},
    "ScatterND": {"reduction": "none"},
    "TensorScatter": {"axis": -2},
    "TopK": {"sorted": 1},
}
# Restrictions of the table that are not checked here, because no graph of ours holds the operator.
UNCHECKED: dict[str, str] = {
    "AveragePool": "2D or 3D, no dilations",
    "DeformConv": "one or two spatial dimensions, equal pads at both ends",
    "EyeLike": "an input of static dimensions",
    "GridSample": "a 4D input (5D since 11.2)",
    "GRU": "the same activations in both directions",
    "Hardmax": "a constant axis dimension",
    "If": "branches whose outputs have equal ranks and different names",
    "Loop": "scan outputs of static length, loop-carried values of one shape",
    "LpPool": "no dilations",
    "LSTM": "the same activations in both directions, input_forget 0, layout 0",
    "MaxPool": "2D or 3D, no dilations",
    "Resize": "some of its modes",
    "RNN": "the same activations in both directions",
    "STFT": "constant frame_step and window, a real input",
}
