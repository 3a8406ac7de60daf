# Pipes, here-documents, sub-shells, substitution, named pipes.
echo one two | tr a-z A-Z | cat
cat <<X
here: $(echo substituted) $((6 * 7))
X
(cd / && pwd)
mkfifo pipe
(echo through > pipe &)
cat pipe
seq 5 | while read -r number; do [ "$number" -lt 4 ] || echo "$number"; done
{ echo out; echo err >&2; } 2>&1 | sort
printf 'a\nb\n' | tee copy | wc -l
cat copy
# says:
# ONE TWO
# here: substituted 42
# /
# through
# 4
# 5
# err
# out
# 2
# a
# b
