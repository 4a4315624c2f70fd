# What a person types first.
try
try --help
try help
try -h
try --version
try help quantize | head -n 3
try quantize --help | head -n 3
try quantize -m x -h | head -n 2
try help nonsense
try help run
