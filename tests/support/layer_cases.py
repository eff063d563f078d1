"""Lines of the list of layers that the builder of TensorRT for RTX 1.7 logs at its verbose level."""

HALF = "Datatype: Half, Format: (Linear) Row major linear format"
FLOAT = HALF.replace("Half", "Float")
SCALES = (
    f"{{ Name: __mye1_alpha_myl1, Dimensions: [1], Strides: [1], StrideOrder: [0], {FLOAT} }}, "
    f"{{ Name: __mye2_beta_myl1, Dimensions: [1], Strides: [1], StrideOrder: [0], {FLOAT} }}"
)
END = "StreamId: 0, Metadata: "
COPY = (
    "Name: [ShapeHostToDeviceCopy 0]{}, LayerType: ShapeHostToDevice, Inputs: [], Outputs: [ {{ Name: "
    "sym_size_int_21, Location: Device, Dimensions: [], Datatype: Int64, Format: Format not available due to dynamic "
    "shapes }}], ParameterType: ShapeH2D, shapeValues0: [-19], TacticValue: 0x0000000000000000, " + END
)
CALL = "Name: __mye7369_0_myl1_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , " + END
PRODUCT = (
    "Name: node_linear_2+node_linear_1_myl1_3, LayerType: gemm, Inputs: [ { Name: mul_41/float16/Cast_0.1_myl1, "
    f"Dimensions: [-1,128], Strides: [128,1], StrideOrder: [1,0], {HALF} }}], Constants: [ {{ Name: "
    f"__mye25985_dconst_myl1, Dimensions: [2,128,128], Strides: [16384,128,1], StrideOrder: [2,1,0], {HALF} }}, "
    f"{SCALES}], Outputs: [ {{ Name: __mye25973_myl1, Dimensions: [2,-1,128], Strides: [-1,128,1], StrideOrder: "
    f"[2,1,0], {HALF} }}], TacticName: __myelin_CASK_STUB, {END}[ONNX Layer: node_linear_2][ONNX Layer: node_linear_1]"
)
ARBITRARY = "Datatype: Half, Format: (Arbitrary) Format with stride order = [1,2,0]"
ATTENTION = (
    "Name: _gemm_mha_v2_myl1_10, LayerType: kgen, Inputs: [ "
    f"{{ Name: __mye26249_59_myl1, Dimensions: [-1,-1,64], Strides: [64,-1,1], StrideOrder: [1,2,0], {ARBITRARY} }}, "
    f"{{ Name: __myln_k_arg__bb26020_58_myl1, Dimensions: [-1,64,-1], Strides: [64,1,-1], StrideOrder: [1,0,2], "
    f"{ARBITRARY} }}, {{ Name: wanted/Gather_9.1_myl1, Dimensions: [-1,1,-1,-1], Strides: [-1,-1,-1,1], StrideOrder: "
    f"[3,2,1,0], {HALF} }}, {{ Name: __myln_k_arg__bb26020_55_myl1, Dimensions: [-1,-1,64], Strides: [64,-1,1], "
    f"StrideOrder: [1,2,0], {ARBITRARY} }}], Constants: [], Outputs: [ {{ Name: __myln_k_arg__bb26020_61_myl1, "
    f"Dimensions: [-1,-1,64], Strides: [64,-1,1], StrideOrder: [1,2,0], {ARBITRARY} }}], TacticName: "
    f"_gemm_mha_v2_0xfb33dc598441d7663d5294cc6, {END}[ONNX Layer: node_scaled_dot_product_attention.wanted]"
)
FUSION = (
    f"Name: __myl_FcAdd_myl1_12, LayerType: runtime_fusion, Inputs: [ {{ Name: a_myl1, Dimensions: [-1,128], {HALF} }}]"
    f", Constants: [ {{ Name: w_myl1, Dimensions: [128,128], {HALF} }}], Outputs: [ {{ Name: b_myl1, Dimensions: "
    f"[-1,128], {HALF} }}], TacticName: , {END}[ONNX Layer: node_linear_3.wanted][ONNX Layer: node_add_214.wanted]"
)
SIGNAL = "Name: __mye30165_myl3_4, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , " + END
LAST = (
    f"Name: node_linear_7 [profile 1]_myl3_22, LayerType: gemm, Inputs: [ {{ Name: x_myl3, Dimensions: [-1,128], {HALF}"
    f" }}], Constants: [ {{ Name: w_myl3, Dimensions: [128,1056], {HALF} }}, {SCALES}], Outputs: [ {{ Name: y_myl3, "
    f"Dimensions: [-1,1056], {HALF} }}], TacticName: __myelin_CASK_STUB, {END}[ONNX Layer: node_linear_7]"
)
GATHER = (
    f"Name: __myl_LogGath_myl3_24, LayerType: kgen, Inputs: [ {{ Name: y_myl3, Dimensions: [-1,-1,1056], {FLOAT} }}], "
    f"Constants: [ {{ Name: c_myl3, Dimensions: [859], Datatype: Int32, Format: (Linear) Row major linear format }}], "
    f"Outputs: [ {{ Name: logprobs [profile 1], Dimensions: [-1,-1,859], {FLOAT} }}], TacticName: __myl_LogGath_0xa6, "
    f"{END}[ONNX Layer: node_log_softmax][ONNX Layer: node_index_select]"
)
SCORES = (
    "Name: __fc26162_myl1_8, LayerType: gemm, Inputs: [ { Name: q_myl1, Dimensions: [-1,-1,64], Strides: [-1,64,1], "
    f"StrideOrder: [2,1,0], {FLOAT} }}, {{ Name: k_myl1, Dimensions: [-1,64,-1], {FLOAT} }}], Constants: [ {SCALES}], "
    f"Outputs: [ {{ Name: s_myl1, Dimensions: [-1,-1,-1], {FLOAT} }}], TacticName: __myelin_CASK_STUB, {END}[ONNX "
    "Layer: node_scaled_dot_product_attention]"
)
DECOMPOSED = (SCORES, SCORES.replace("__fc26162_myl1_8", "__fc26198_myl1_14"), PRODUCT)


def log_of(*lines: str) -> str:
    """A log that ends with these layers."""
    listed = "\n".join(lines)
    return (
        f"VERBOSE Compiled.\nVERBOSE Layers:\n{listed}\n\nI/O Tensors:\n Name: input_ids, IOMode: Input\n\nINFO Done.\n"
    )


LOG = log_of(COPY.format(""), CALL, PRODUCT, ATTENTION, FUSION, COPY.format(" [profile 1]"), SIGNAL, LAST, GATHER)
