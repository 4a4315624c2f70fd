# strip.awk - code(line): the line without comments and without what is inside quotes.
# Call it for each line of a file in order; set in_comment = 0 at the first.
function code(s,    out, c, n)
{
    out = ""
    for (;;) {
        if (in_comment) {
            n = index(s, "*/")
            if (n == 0)
                return out
            s = substr(s, n + 2)
            in_comment = 0
            out = out " "
        }
        if (!match(s, /["']|\/\*|\/\//))
            return out s
        out = out substr(s, 1, RSTART - 1)
        c = substr(s, RSTART, 2)
        s = substr(s, RSTART + 1)
        if (c == "//")
            return out
        if (c == "/*") {
            in_comment = 1
            s = substr(s, 2)
            continue
        }
        c = substr(c, 1, 1) # a literal: up to its quote that no backslash precedes
        while (s != "" && substr(s, 1, 1) != c) {
            if (substr(s, 1, 1) == "\\")
                s = substr(s, 2)
            s = substr(s, 2)
        }
        out = out c c
        s = substr(s, 2)
    }
}
