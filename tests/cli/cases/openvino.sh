# OpenVINO's own converter on a graph, and OpenVINO's word on what comes of it.
ovc=$(command -v ovc) || skip "oracle: no ovc in PATH (pip install openvino)"
python=$(sed -n '1s/^#!//p' "$ovc")
"$python" -c 'import onnx, openvino' 2>/dev/null || skip "oracle: $ovc without onnx or openvino"
"$python" "$top/tools/oracle/openvino_check.py" "$drupe" 2>&1
