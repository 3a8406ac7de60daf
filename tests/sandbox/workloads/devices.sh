# The devices that every program takes for granted.
echo gone > /dev/null
head -c 3 /dev/zero | od -An -tx1 | tr -d ' '
head -c 8 /dev/urandom | wc -c
head -c 8 /dev/random | wc -c
echo full > /dev/full 2>/dev/null || echo refused
(echo out > /dev/stdout) | cat
(echo err > /dev/stderr) 2>&1 | cat
echo in | cat /dev/stdin
echo shared > /dev/shm/file && cat /dev/shm/file && rm /dev/shm/file
readlink /dev/fd
# says:
# 000000
# 8
# 8
# refused
# out
# err
# in
# shared
# /proc/self/fd
