# Files that lie about their sizes, up to a sparse terabyte: refused at once, with the value
# found.
sparse() { # FILE: a terabyte of zeros after what it holds
    truncate -s 1T "$1" || skip "this file system has no sparse files of that size"
}
look() { # a look that must not take long
    start=$(date +%s)
    try inspect -m "$1"
    [ $(($(date +%s) - start)) -lt 10 ] || echo "slow"
}
bytes() { # N NUMBER: little-endian, in so many bytes
    i=0 v=$2
    while [ $i -lt "$1" ]; do
        printf "\\$(printf %03o $((v & 255)))"
        v=$((v >> 8)) i=$((i + 1))
    done
}
text() { # a string of a GGUF
    bytes 8 ${#1}
    printf %s "$1"
}

model a
sparse a/model.safetensors
look a
look a/model.safetensors
model b
{ bytes 8 2; printf '{}'; } >b/model.safetensors
sparse b/model.safetensors
look b
model c
{ bytes 8 1099511627000; printf '{}'; } >c/model.safetensors
sparse c/model.safetensors
look c
look c/model.safetensors

# A pickle: no end; an end that points into the zeros.
model d
rm d/model.safetensors
printf 'PK\003\004' >d/pytorch_model.bin
sparse d/pytorch_model.bin
look d
{ printf 'PK\005\006'; bytes 4 0; bytes 2 1000; bytes 2 1000; bytes 4 4000000000; bytes 4 64; bytes 2 0; } >>d/pytorch_model.bin
look d

# GGUF: nothing behind the counts; an array of empty strings; a tensor that is not there.
{ printf GGUF; bytes 4 3; bytes 8 60000; bytes 8 60000; } >e.gguf
sparse e.gguf
look e.gguf
{ printf GGUF; bytes 4 3; bytes 8 0; bytes 8 1; text tokens; bytes 4 9; bytes 4 8; bytes 8 100000000000; } >f.gguf
sparse f.gguf
look f.gguf
{ printf GGUF; bytes 4 3; bytes 8 1; bytes 8 0; text t; bytes 4 2; bytes 8 1048576; bytes 8 1099511627776; bytes 4 0; bytes 8 0; } >g.gguf
sparse g.gguf
look g.gguf

# JSON and ONNX.
for f in config.json model.safetensors.index.json; do
    model h
    rm h/model.safetensors
    printf '{"a": [' >h/$f
    sparse h/$f
    look h
    rm -r h
done
: >i.onnx
sparse i.onnx
look i.onnx
: >j.onnx_adapter
sparse j.onnx_adapter
look j.onnx_adapter

# Deep nesting and numbers that overflow.
model k
rm k/model.safetensors
i=0
while [ $i -lt 100000 ]; do printf '[['; i=$((i + 2)); done >deep
{ bytes 8 100000; cat deep; } >k/model.safetensors
look k
cp deep k/config.json
look k
