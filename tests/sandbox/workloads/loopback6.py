"""The same by IPv6."""
import socket

with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
    client = socket.create_connection(server.getsockname()[:2])
    client.sendall(b"tcp")
    print(server.accept()[0].recv(10).decode())
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
    server.bind(("::1", 0))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.sendto(b"udp", server.getsockname()[:2])
    print(server.recv(10).decode())

# says:
# tcp
# udp
