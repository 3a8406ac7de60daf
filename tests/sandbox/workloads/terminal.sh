# A terminal of one's own.
script -qec 'test -t 0 && test -t 1 && stty size > /dev/null && tty' /dev/null < /dev/null | tr -d '\r' | grep -c '^/dev/pts/'
# says:
# 1
