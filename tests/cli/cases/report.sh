# report.html beside a quantized model: well-formed, nothing from elsewhere, the same bytes
# for any threads and folder, other bytes for another run.
model_with_tokenizer m
"$drupe" quantize -m m --group_size 32 --threads 1 -o a >/dev/null 2>err
tree a
tags a/report.html
grep -c -e '<script' -e '://' -e "$PWD" a/report.html
grep -o -e '<h[12]>[^<]*' -e '<title>[^<]*' a/report.html | sed 's/: .*//' | sort | uniq -c
grep -c '<polyline' a/report.html
cp -r m m2
"$drupe" quantize -m m2 --group_size 32 --threads 2 -o b >/dev/null 2>err
cmp a/report.html b/report.html && echo "the same bytes"
"$drupe" quantize -m m --group_size 16 -o c >/dev/null 2>err
cmp -s a/report.html c/report.html || echo "other bytes"
"$drupe" quantize -m m --group_size 32 --no_evaluate -o d >/dev/null 2>err
tags d/report.html
sed -n '/How close/,/Where/p' d/report.html
grep -A 4 -e '<td>gate' d/report.html
# calibrated, with scales folded: sizes add up to what is in the folder
"$drupe" quantize -m m --algorithm awq --group_size 32 --max_samples 4 --max_seq_len 32 -o e \
    >out 2>err
tags e/report.html
grep -A 1 -e '<td>calibration' -e '<td>pass' -e '<td>q_group_size' e/report.html
awk '/bits a weight/ { on = 1 } /<\/table>/ { on = 0 } on && /^<td>[0-9]*<\/td>$/ && ++n % 2 == 0 {
    gsub(/[^0-9]/, ""); sum += $0 } END { print sum }' e/report.html
awk '/^bytes/ { print $3 }' out
# of a step that is not the last it stays, beside what the last one made
"$drupe" optimize -m m --precision int4 --no_check -o f >/dev/null 2>err
tree f
tags f/report.html
