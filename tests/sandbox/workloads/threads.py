"""Threads, timers, an event loop with a child of its own."""
import asyncio
import threading
import time

said = []
threads = [threading.Thread(target=said.append, args=(number,)) for number in range(50)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(said))
before = time.monotonic()
time.sleep(0.01)
print(time.monotonic() - before >= 0.01)


async def main():
    child = await asyncio.create_subprocess_exec("echo", "from a child", stdout=asyncio.subprocess.PIPE)
    print((await child.communicate())[0].decode().strip())
    print(await asyncio.to_thread(lambda: "from a thread"))


asyncio.run(main())

# says:
# 50
# True
# from a child
# from a thread
