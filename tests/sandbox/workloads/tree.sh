# Files, links, modes, programs of one's own.
echo text > file
ln -s file soft && ln file hard && cat soft hard
mkdir -p a/b && mv file a/b/file && cp -a a copy && cat copy/b/file
chmod 600 hard && stat -c %a hard
printf '#!/bin/sh\necho ran "$1"\n' > program && chmod +x program && ./program it
cp /bin/echo own && ./own copied
truncate -s 1M large && stat -c %s large
dd if=/dev/zero of=large bs=1k count=1 conv=notrunc 2>/dev/null && stat -c %s large
touch -d '2001-02-03 04:05:06 UTC' dated && stat -c %Y dated
temporary=$(mktemp) && echo x > "$temporary" && rm "$temporary" && echo temporary
find . -name 'f*' | sort
rm -rf a copy && ls | wc -l
mkdir ~/here && echo home > ~/here/file && cat ~/here/file && rm -r ~/here
flock lock echo locked
# says:
# text
# text
# text
# 600
# ran it
# copied
# 1048576
# 1048576
# 981173106
# temporary
# ./a/b/file
# ./copy/b/file
# 6
# home
# locked
