"""Servers on the loopback: TCP, UDP, HTTP, names."""
import http.server
import socket
import threading
import urllib.request

with socket.create_server(("127.0.0.1", 0)) as server:
    client = socket.create_connection(server.getsockname())
    client.sendall(b"tcp")
    print(server.accept()[0].recv(10).decode())
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"udp", server.getsockname())
    print(server.recv(10).decode())
print(socket.gethostbyname("localhost"))
print("lo" in [name for _, name in socket.if_nameindex()])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
server.RequestHandlerClass.log_message = lambda *_: None
threading.Thread(target=server.serve_forever, daemon=True).start()
with open("served", "w", encoding="ascii") as file:
    file.write("by http")
with urllib.request.urlopen("http://localhost:%d/served" % server.server_port) as answer:
    print(answer.read().decode())

# says:
# tcp
# udp
# 127.0.0.1
# True
# by http
