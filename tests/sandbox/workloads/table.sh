# What shows processes.
sleep 100 & job=$!
# Until then it is still a shell.
until [ "$(cat /proc/$job/comm)" = sleep ]; do sleep 0.01; done
ps -o comm= -p $job
ps -eo args= | grep -cx 'sleep 100'
top -bn1 | awk '$NF == "sleep"' | wc -l
pgrep -x sleep | grep -c "^$job\$"
kill $job
grep -c MemTotal /proc/meminfo
[ "$(cat /proc/self/comm)" = cat ] && echo self
# says:
# sleep
# 1
# 1
# 1
# 1
# self
