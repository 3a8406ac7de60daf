"""Processes from Python: with pipes, with pools, with locks and memory that they share."""
import concurrent.futures
import multiprocessing
import multiprocessing.shared_memory
import subprocess


def square(number):
    return number * number


if __name__ == "__main__":
    print(subprocess.run(["tr", "a", "b"], input="aa", capture_output=True, text=True, check=True).stdout)
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, range(4)))
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        print(sum(pool.map(square, range(4))))
    lock, queue = multiprocessing.Lock(), multiprocessing.Queue()
    with lock:
        child = multiprocessing.Process(target=queue.put, args=("queued",))
        child.start()
        print(queue.get())
        child.join()
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=64)
    memory.buf[0] = 7
    again = multiprocessing.shared_memory.SharedMemory(memory.name)
    print(again.buf[0])
    again.close()
    memory.close()
    memory.unlink()
    semaphore = multiprocessing.Semaphore(2)
    print(semaphore.acquire(), semaphore.acquire(), semaphore.acquire(timeout=0.01))

# says:
# bb
# [0, 1, 4, 9]
# 14
# queued
# 7
# True True False
