"""Databases, large mappings, locks, sparse and shared files."""
import fcntl
import mmap
import os
import sqlite3
import tempfile

store = sqlite3.connect("store")
print(store.execute("pragma journal_mode = wal").fetchone()[0])
with store:
    store.execute("create table words (word)")
    store.executemany("insert into words values (?)", [("one",), ("two",)])
print(sqlite3.connect("store").execute("select count(*) from words").fetchone()[0], os.path.exists("store-shm"))

with open("large", "w+b") as file:
    file.truncate(256 << 20)
    with mmap.mmap(file.fileno(), 0) as place:
        place[200 << 20] = 7
        place.flush()
    print(os.pread(file.fileno(), 1, 200 << 20))
    os.posix_fallocate(file.fileno(), 0, 1 << 20)
    os.fsync(file.fileno())

with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as place:
    place[0] = 1
    place.madvise(mmap.MADV_DONTNEED)
    print(place[0])

with open("lock", "w", encoding="ascii") as one, open("lock", "w", encoding="ascii") as other:
    fcntl.flock(one, fcntl.LOCK_EX)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("locked")
    fcntl.lockf(one, fcntl.LOCK_EX)
with tempfile.NamedTemporaryFile() as file, tempfile.TemporaryFile(dir=".") as unnamed:
    print(file.name.startswith("/tmp/"), unnamed.write(b"x"))
source = os.open("store", os.O_RDONLY)
print(os.copy_file_range(source, os.open("copied", os.O_WRONLY | os.O_CREAT), 10))
print(os.sendfile(os.open("sent", os.O_WRONLY | os.O_CREAT), source, 0, 10))

# says:
# wal
# 2 True
# b'\x07'
# 0
# locked
# True 1
# 10
# 10
