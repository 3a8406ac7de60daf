# Jobs, signals, time limits, what a shell waits for.
sleep 100 & job=$!
kill -TERM $job
wait $job || echo "ended with $?"
timeout 0.1 sleep 100 || echo "timed out with $?"
trap 'echo trapped' USR1
kill -USR1 $$
sh -c 'kill -STOP $$' & job=$!
while ! grep -q '^State:.T' /proc/$job/status; do :; done
kill -CONT $job
wait $job && echo continued
setsid sh -c 'echo detached'
nohup sh -c 'echo kept' 2>/dev/null
nice -n 5 sh -c 'nice'
bash -mc 'sleep 100 & kill %1; wait %1; echo "job $?"' 2>/dev/null
xargs -P 4 -n 1 echo < /dev/null
ulimit -c
# says:
# ended with 143
# timed out with 124
# trapped
# continued
# detached
# kept
# 5
# job 143
#
# 0
