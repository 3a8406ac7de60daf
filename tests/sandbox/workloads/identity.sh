# Who and where one is, as programs ask.
id -un
[ "$(id -u)" != 0 ] && echo not root
getent passwd "$(id -u)" | cut -d: -f1,6
getent group "$(id -g)" | cut -d: -f1
echo "$HOME $USER $SHELL"
cd ~ && pwd
getent hosts localhost > /dev/null && echo localhost
LC_ALL=C.UTF-8 locale | grep -c 'LC_CTYPE=.*C.UTF-8'
LC_ALL=C.UTF-8 printf 'ä' | wc -m
date -d @0 -u +%Y
nproc > /dev/null && echo processors
uname -s
df / > /dev/null && echo disks
# says:
# agent
# not root
# agent:/home/agent
# agent
# /home/agent agent /bin/sh
# /home/agent
# localhost
# 1
# 1
# 1970
# processors
# Linux
# disks
