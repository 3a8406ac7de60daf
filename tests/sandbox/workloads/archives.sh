# Archives of the usual kinds.
mkdir in && echo text > in/file && ln -s file in/link
tar -czf all.tar.gz in && mkdir out && tar -xzf all.tar.gz -C out && cat out/in/link
tar -cf - in | tar -xf - -C /tmp && cat /tmp/in/file && rm -r /tmp/in
gzip -c in/file | gunzip
xz -c in/file | xz -d
zip -qr all.zip in && mkdir unzipped && (cd unzipped && unzip -q ../all.zip) && cat unzipped/in/file
# says:
# text
# text
# text
# text
# text
