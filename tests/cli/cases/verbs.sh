# Commands: unknown ones get a hint, all of Olive's are known.
try quantise
try fintune
try auto_opt
try capture
try xyzzy
try -m x
try --json
for verb in init run run-pass auto-opt optimize capture-onnx-graph diffusion-lora finetune \
    generate-adapter convert-adapters quantize tune-session-params generate-cost-model \
    configure-qualcomm-sdk shared-cache extract-adapters generate-model-package; do
    "$drupe" $verb >out 2>&1
    printf '%-24s %s: %s\n' $verb $? "$(head -n 1 out)"
done
