# Passes that run a vendor's program: the command, what it leaves, what is said where it is
# not installed, fails, or leaves nothing.  The programs are scripts of this case.
unset QNN_SDK_ROOT
had=$PATH
golden=$top/tests/golden/openvino
export golden
here_is() { sed "s|$PWD|HERE|g"; }
lines='for a in "$@"; do echo "<$a>"; done >>"$LOG"'
export LOG="$PWD/log"
mkdir graph && cp "$golden/plain/"*model* graph/

# not installed
mkdir bin nothing
PATH=$PWD/nothing
for pass in OpenVINOConversion QNNConversion; do
    "$drupe" run-pass --pass_name $pass -m graph/model.onnx -o no >>.said 2>&1 || echo "exit $?"
done
QNN_SDK_ROOT=$PWD/nothing "$drupe" run-pass --pass_name QNNConversion -m graph/model.onnx -o no >>.said 2>&1
"$drupe" run-pass --pass_name OpenVINOConversion -m graph/model.onnx -o no --dry_run --json >.json
PATH=$had
here_is <.said | sed 's|bin/[a-z0-9_.-]*|bin/ARCH|'
"$json" get programs <.json
[ -e no ] && echo "something was left"

# OpenVINO: a workflow in Olive's words
program ovc "$lines; cp \"\$golden/plain/ov_model.xml\" ir.xml; cp \"\$golden/plain/ov_model.bin\" ir.bin; echo done"
PATH=$PWD/bin:$had
cat >ov.json <<END
{"input_model": {"type": "ONNXModel", "model_path": "graph/model.onnx"},
 "passes": {
   "convert": {"type": "OpenVINOConversion", "config": {"model_name": "ir",
       "input_shapes": [[2, 4], [3], [1, -1]], "compress_to_fp16": false,
       "extra_configs": {"output": "out,same", "verbose": true}}},
   "update": {"type": "OpenVINOIoUpdate", "input_names": ["x", "y", "z"], "static": true,
       "input_shapes": [[2, 4], [3], [1, 8]]},
   "wrap": {"type": "OpenVINOEncapsulation", "target_device": "npu"}},
 "output_dir": "ov"}
END
"$drupe" run --config ov.json --dry_run 2>&1 | here_is
"$drupe" run --config ov.json >.said 2>&1 || cat .said
here_is <log
tree ov/model
sed 's/^ *//' ov/model_config.json | tr -d '\n' && echo
grep -o '"type": "[A-Za-z]*Model"' ov/footprint.json | sort | uniq -c | sed 's/^ *//'
"$drupe" run --config ov.json 2>&1 | grep steps
# another version of the program is another key
program ovc "$lines; cp \"\$golden/old/ov_model.xml\" ir.xml; cp \"\$golden/old/ov_model.bin\" ir.bin"
"$drupe" run --config ov.json 2>&1 | grep steps
# an IR's bytes are those of both files
cat >size.json <<END
{"input_model": {"type": "OpenVINOModel", "model_path": "graph"},
 "passes": {"update": {"type": "OpenVINOIoUpdate", "input_names": ["x", "y", "z"]}},
 "evaluator": {"metrics": [{"name": "s", "type": "size_on_disk", "sub_types": [{"name": "bytes"}]}]},
 "evaluate_input_model": true, "packaging_config": {"type": "Zipfile", "name": "best"}, "output_dir": "sized"}
END
"$drupe" run --config size.json >.said 2>&1 || cat .said
grep '"value"' sized/input_model_metrics.json sized/metrics.json | sed 's/.*value": //'
wc -c graph/ov_model.* sized/model/* | grep -v total | awk '{print $1}'
grep -ao '"type": "OpenVINOModel"' sized/best.zip | sort -u
# alone; from an IR; what the folder says that it is
try run-pass --pass_name OpenVINOEncapsulation -m graph/ov_model.xml -o wrapped
try run-pass --pass_name OpenVINOEncapsulation -m graph/model.onnx -o no
try run-pass --pass_name OpenVINOConversion -m graph/model.onnx -o ir --pass_config '{"model_name": "ir"}' | here_is
sed 's/^ *//' ir/model_config.json | tr -d '\n' && echo
try evaluate -m ir
try run-pass --pass_name OnnxFloatToFloat16 -m ir -o no
# what is refused
for config in '{"input_shapes": [[1, "a"]]}' '{"input_shapes": []}' '{"static": false, "input_shapes": [[1]]}' \
    '{"model_name": "a/b"}' '{"extra_configs": {"share_weights": true}}' '{"extra_configs": {"inputs": "x"}}' \
    '{"example_input_func": "f"}' '{"extra_configs": {"input": "a"}, "input_shapes": "x[1]"}'; do
    try run-pass --pass_name OpenVINOConversion -m graph/model.onnx -o no --pass_config "$config"
done
sed 's/"OpenVINOIoUpdate"/"QNNModelLibGenerator"/; s/"input_names".*true,/"lib_name": "m"},/; /\[1, 8\]/d' ov.json >mixed.json
try run --config mixed.json
sed 's/"output_dir"/"evaluator": {"metrics": [{"name": "p", "type": "accuracy", "sub_types": [{"name": "perplexity"}]}]}, "output_dir"/; /"wrap"/d; s/\[1, 8\]\]},/[1, 8]]}},/' ov.json >judged.json
try run --config judged.json
# it fails, it is killed, it leaves nothing
program ovc 'echo "[ ERROR ]  Cannot convert"; exit 5'
try run-pass --pass_name OpenVINOConversion -m graph/model.onnx -o no
program ovc 'kill -9 $$'
try run-pass --pass_name OpenVINOConversion -m graph/model.onnx -o no
program ovc 'exit 0'
try run-pass --pass_name OpenVINOConversion -m graph/model.onnx -o no
program ovc 'echo "<net/>" >ov_model.xml; echo x >ov_model.bin'
try run-pass --pass_name OpenVINOConversion -m graph/model.onnx -o no
ls -d no no.tmp 2>/dev/null
# a run that is killed, or ended by a signal, takes its program along
ended_by() { # SIGNAL: how long drupe and its program are there after it
    rm -f pid
    "$drupe" run-pass --pass_name OpenVINOConversion -m graph/model.onnx -o no >.said 2>&1 &
    run=$!
    for _ in $(seq 100); do [ -s pid ] && break || sleep 0.1; done
    kill "-$1" $run
    wait $run
    echo "exit $?"
    for _ in $(seq 100); do kill -0 "$(cat pid)" 2>/dev/null || break; sleep 0.1; done
    kill -0 "$(cat pid)" 2>/dev/null && echo "it goes on"
}
program ovc 'echo $$ >"${LOG%/log}/pid"; exec sleep 60'
ended_by TERM
ls -d no no.tmp 2>/dev/null
ended_by KILL
rm -rf no.tmp

# QNN: three programs of an SDK
rm -f log
bin=sdk/bin/x86_64-linux-clang
[ "$(uname -m)" = x86_64 ] || bin=sdk/bin/aarch64-ubuntu-gcc9.4
mkdir -p $bin sdk/lib/${bin#sdk/bin/} sdk/olive-pyenv/bin
: >sdk/lib/${bin#sdk/bin/}/libQnnModelDlc.so
say="echo \"\${0##*/}\" >>\"\$LOG\"; $lines"
program qnn-onnx-converter "$say; echo int >\"\$4\"; echo w >\"\${4%.cpp}.bin\""
program qnn-model-lib-generator "$say; for a in \"\$@\"; do o=\$a; done; for t in aarch64-android x86_64-linux-clang; do mkdir -p \"\$o/\$t\"; echo so >\"\$o/\$t/libtiny.so\"; done"
program qnn-context-binary-generator "$say; echo bin >\"\$6/\$8.bin\""
mv bin/qnn-* $bin/
export QNN_SDK_ROOT=$PWD/sdk
cat >qnn.yaml <<END
input_model: {type: ONNXModel, model_path: graph/model.onnx}
passes:
  cpp: {type: QNNConversion, input_dim: ["zeta 2,4", "mask 1,8"], out_node: [out, same], extra_args: --input_list 'a b.txt'}
  lib: {type: QNNModelLibGenerator, lib_targets: x86_64-linux-clang aarch64-android, lib_name: tiny}
  bin: {type: QNNContextBinaryGenerator, backend: /qnn/libQnnHtp.so, binary_file: tiny_ctx, extra_args: --log_level info}
output_dir: qnn
END
"$drupe" run --config qnn.yaml >.said 2>&1 || cat .said
here_is <log | sed 's|x86_64-linux-clang/lib|ARCH/lib|; s|runs/[0-9a-f]*|runs/KEY|'
tree qnn/model
sed 's/^ *//' qnn/model_config.json | tr -d '\n' && echo
sed '/bin:/d; s/: qnn/: lib/' qnn.yaml >lib.yaml
"$drupe" run --config lib.yaml >.said 2>&1 || cat .said
sed 's/^ *//' lib/model_config.json | tr -d '\n' && echo
# an earlier result, a DLC, and formats that do not fit
rm -f log
context='{"backend": "b.so"}'
"$drupe" run-pass --pass_name QNNContextBinaryGenerator -m lib -o ctx --pass_config "$context" >.said 2>&1 || cat .said
echo dlc >a.dlc
"$drupe" run-pass --pass_name QNNContextBinaryGenerator -m a.dlc -o dlc --pass_config "$context" >.said 2>&1 || cat .said
here_is <log | grep -i -e model -e dlc | sed 's|lib/[a-z0-9_.-]*/|lib/ARCH/|; s|model/[a-z0-9_-]*/lib|model/ARCH/lib|'
cat >format.yaml <<END
input_model: {type: QNNModel, model_path: a.dlc, model_file_format: QNN.CPP}
passes:
  bin: {type: QNNContextBinaryGenerator, backend: b.so}
output_dir: none
END
try run --config format.yaml
sed -i 's/QNN.CPP/QNN.LIB/' format.yaml
"$drupe" run --config format.yaml >.said 2>&1 || cat .said
rm -rf none
try run-pass --pass_name QNNModelLibGenerator -m graph -o none
try run-pass --pass_name QNNContextBinaryGenerator -m lib -o none
for config in '{"input_dim": "2,4"}' '{"input_dim": ["x 1,b"]}' '{"extra_args": "-o x"}' '{"extra_args": "--output_path=x"}'; do
    try run-pass --pass_name QNNConversion -m graph/model.onnx -o none --pass_config "$config"
done
ls -d none none.tmp 2>/dev/null
:
