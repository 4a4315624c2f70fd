# packaging_config: the best candidates in a zip archive of Olive's layout, read by unzip.
command -v unzip >said || skip "unzip is not here"
ways=$top/examples/workflows
model_with_tokenizer model
sed 's/"max_samples": 5,/"max_samples": 3, "output_model_num": 2,/
     s/"output_dir"/"packaging_config": { "type": "zipfile", "name": "best" }, "output_dir"/' \
    "$ways/search.json" >two.json
"$drupe" run --config two.json >said 2>&1 || cat said
grep package said
unzip -qt searched/best.zip
unzip -Z1 searched/best.zip
unzip -q searched/best.zip -d open
one=open/CandidateModels/cpu-cpu/BestCandidateModel_1
diff searched/model/model.onnx.data $one/model.onnx.data && echo same
cat $one/inference_config.json
echo
grep -E '"(model_path|onnx_file_name|rank)"' open/models_rank.json
diff $one/../BestCandidateModel_2/model.onnx.data searched/candidates/2/model/model.onnx.data &&
    echo same
grep -c null $one/configurations.json # the input's
grep -o '"[a-z_]*_metrics"' $one/metrics.json
# the same bytes again, from the cache
sha256sum <searched/best.zip >first
"$drupe" run --config two.json >said 2>&1 || cat said
sha256sum <searched/best.zip | diff first - && echo same
# a Hugging Face model, two archives, the older form
cat >hf.yaml <<END
passes: {q: {type: Rtn, group_size: 16}}
engine:
  target: {type: LocalSystem, config: {accelerators: [{execution_providers: [CUDAExecutionProvider]}]}}
  packaging_config:
  - {type: Zipfile, config: {export_in_mlflow_format: false}}
  - {name: again, include_runtime_packages: false}
END
"$drupe" run --config hf.yaml -m model -o hf --json >said 2>err || cat err
sed -n '/packages/,/]/p' said
unzip -Z1 hf/OutputModels.zip
cmp hf/OutputModels.zip hf/again.zip && echo same
unzip -p hf/again.zip 'CandidateModels/*/model_info.json' | grep -E 'model_path|metrics'
# what there is no package of
"$drupe" run --config hf.yaml -m model -o hf --dry_run | grep package
sed 's/type: Zipfile/type: AzureMLModels/' hf.yaml >bad.yaml
try run --config bad.yaml -m model -o no
sed 's/false}}/true}}/' hf.yaml >bad.yaml
try run --config bad.yaml -m model -o no
[ -e no ] || echo nothing
