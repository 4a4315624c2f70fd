# groff has no warning for drupe(1).
command -v groff >/dev/null || { echo "no groff"; exit 77; }
"$drupe" man >drupe.1
groff -man -ww -Tascii -P-cbou drupe.1 2>&1 >page
grep -c '^COMMANDS$' page
grep -A1 '^   quantize$' page
