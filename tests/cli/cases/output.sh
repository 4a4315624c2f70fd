# Output folders: only drupe's own are replaced, and whole.
model m
mkdir mine
echo text >mine/thesis.txt
try quantize -m m --no_evaluate -o mine
cat mine/thesis.txt
echo x >file
try quantize -m m --no_evaluate -o file
try quantize -m m --no_evaluate -o file/below
try quantize -m m --no_evaluate -o .
try quantize -m m --no_evaluate -o /proc/drupe-result
mkdir empty
"$drupe" quantize -m m --no_evaluate -o empty >/dev/null 2>&1
echo "empty: $?"
tree empty
"$drupe" auto-opt -m m -o empty/ >/dev/null 2>&1
echo "again, another result: $?"
tree empty
echo mine >empty/note.txt
"$drupe" quantize -m m --no_evaluate -o empty >/dev/null 2>&1
echo "drupe's, with a note in it: $?"
tree empty
try auto-opt -m empty -o empty
try auto-opt -m empty/model -o empty
ln -s empty link
"$drupe" quantize -m m --no_evaluate -o link >/dev/null 2>&1
echo "through a link: $? $(readlink link)"
"$drupe" quantize -m m --no_evaluate -o new/deep/folder >/dev/null 2>&1
echo "new folders: $?"
tree new
ls | LC_ALL=C sort | tr '\n' ' '
