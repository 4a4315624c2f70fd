# Models that are not there, or not models.
mkdir empty
: >file
try quantize -m ./none
try quantize -m none/such/thing
try quantize -m empty
try quantize -m file
try quantize -m hub/model
try finetune -m hub/model -d json --data_files file --text_field a
try auto-opt -m hub/model
try capture-onnx-graph -m hub/model
try inspect -m hub/model
try tokenize -m hub/model --text a
try generate -m hub/model -p a
try auto-opt -m https://huggingface.co/hub/model
try auto-opt -m azureml://registries/azureml/models/Phi-3.5-mini-instruct/versions/1
try quantize -m azureml://registries/azureml/models/Phi-3.5-mini-instruct/versions/1
try inspect -m none.onnx
try inspect -m none.safetensors
try generate -m empty -p a
ls
