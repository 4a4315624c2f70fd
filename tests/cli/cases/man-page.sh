# drupe(1) names every verb and option, those that are refused, too.
"$drupe" man >drupe.1 || echo "no page"
"$drupe" docs >docs.md
sed -n '1,4p' drupe.1 | sed 's/drupe [0-9.]*"/drupe VERSION"/'
missing=0
verb=
sed -n 's/^## \([a-z-]*\)$/verb \1/p; s/^| .*`--\([a-z0-9_]*\)` |.* |.*/option \1/p
    s/^| `\([a-z-]*\)` | .*/later \1/p' docs.md >wanted
[ "$(grep -c '^option' wanted)" -ge 200 ] || echo "too few options"
while read -r kind name; do
    roff=$(printf '%s\n' "$name" | sed 's/-/\\-/g')
    case $kind in
    verb)
        grep -qxF ".SS $roff" drupe.1 || echo "missing: $name"
        awk -v v="$name" '/^\.S[SH] / { p = 0; gsub(/\\/, ""); if ($0 == ".SS " v) p = 1 } p' \
            drupe.1 >section
        verb=$name
        ;;
    option)
        grep -qF "\\-\\-$name" section || {
            echo "missing: $verb --$name"
            missing=$((missing + 1))
        }
        ;;
    later) [ "$name" = "" ] || grep -qxF ".B $roff" drupe.1 || echo "missing: $name" ;;
    esac
done <wanted
echo "$missing missing"
