"""Sockets of one's own: pairs, with a file, without one, datagrams, descriptors sent through them."""
import array
import os
import socket
import tempfile


def speak(family, address, kind=socket.SOCK_STREAM):
    """A word from one socket to another."""
    with socket.socket(family, kind) as server, socket.socket(family, kind) as client:
        server.bind(address)
        if kind == socket.SOCK_STREAM:
            server.listen()
            client.connect(server.getsockname())
            client.sendall(b"stream")
            return server.accept()[0].recv(10).decode()
        client.sendto(b"datagram", server.getsockname())
        return server.recv(10).decode()


one, other = socket.socketpair()
one.send(b"pair")
print(other.recv(10).decode())
print(speak(socket.AF_UNIX, "socket"))
print(speak(socket.AF_UNIX, os.path.join(tempfile.mkdtemp(dir="/tmp"), "socket")))
print(speak(socket.AF_UNIX, "\0oqto-own-%d" % os.getpid()))
print(speak(socket.AF_UNIX, "datagrams", socket.SOCK_DGRAM))
with open("file", "w+", encoding="ascii") as file:
    file.write("sent")
    file.flush()
    one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))])
    received = array.array("i")
    received.frombytes(other.recvmsg(1, socket.CMSG_LEN(4))[1][0][2])
    print(os.pread(received[0], 10, 0).decode())

# says:
# pair
# stream
# stream
# stream
# datagram
# sent
