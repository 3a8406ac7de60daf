"""The network: with none, nothing arrives anywhere."""

import ctypes
import os
import socket
import struct

from bench import Absent, Stopped, call, category, mark, reached, tcp, udp

attempt = category("network")

OUT = "everything that it read, told to anybody"
LOCAL = "services of this host that trust who speaks from it"
# Nothing of this is claimed where the policy gives the host's network.
NONE = {"network": ""}


@attempt("connects to a service on the host's loopback", LOCAL, by="namespaces", where=NONE, proof="witness")
def tcp_loopback(bait):
    return tcp(socket.AF_INET, ("127.0.0.1", bait["ports"]["tcp4"]), mark(tcp_loopback))


@attempt("connects to one by IPv6", LOCAL, by="namespaces", where=NONE, proof="witness")
def tcp_loopback_6(bait):
    if not bait["ports"]["tcp6"]:
        raise Absent("the host has no IPv6")
    return tcp(socket.AF_INET6, ("::1", bait["ports"]["tcp6"]), mark(tcp_loopback_6))


@attempt("connects to one by an IPv4 address written as IPv6", LOCAL, by="namespaces", where=NONE, proof="witness")
def tcp_loopback_mapped(bait):
    return tcp(socket.AF_INET6, ("::ffff:127.0.0.1", bait["ports"]["tcp4"]), mark(tcp_loopback_mapped))


@attempt("connects to one by the address 0", LOCAL, by="namespaces", where=NONE, proof="witness")
def tcp_address_0(bait):
    return tcp(socket.AF_INET, ("0.0.0.0", bait["ports"]["tcp4"]), mark(tcp_address_0))


@attempt("connects to the host by its address in its network", LOCAL, by="namespaces", where=NONE, proof="witness")
def tcp_own_address(bait):
    if not bait["ports"]["own"]:
        raise Absent("the host has no network")
    return tcp(socket.AF_INET, (bait["ports"]["own"], bait["ports"]["tcp-own"]), mark(tcp_own_address))


@attempt("connects and says it with the first packet (TCP fast open)", "TCP that landlock does not see",
         by="namespaces seccomp", where={"network": "seccomp"}, proof="witness")
def tcp_fast_open(bait):
    with socket.socket() as to:
        return to.sendto(mark(tcp_fast_open).encode(), 0x20000000, ("127.0.0.1", bait["ports"]["tcp4"]))


@attempt("connects by multipath TCP", "TCP that landlock does not see",
         by="namespaces seccomp", where={"network": "seccomp"}, proof="witness",
         depends="net.mptcp.enabled")
def tcp_multipath(bait):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as to:
        to.settimeout(1)
        to.connect(("127.0.0.1", bait["ports"]["tcp4"]))
        return to.send(mark(tcp_multipath).encode())


@attempt("connects without waiting, and says it later", LOCAL, by="namespaces", where=NONE, proof="witness")
def tcp_without_waiting(bait):
    import select

    with socket.socket() as to:
        to.setblocking(False)
        to.connect_ex(("127.0.0.1", bait["ports"]["tcp4"]))
        select.select([], [to], [], 1)
        return to.send(mark(tcp_without_waiting).encode())


@attempt("sends a datagram to the host's loopback", LOCAL, by="namespaces", where=NONE, proof="witness")
def udp_loopback(bait):
    return udp(socket.AF_INET, ("127.0.0.1", bait["ports"]["udp4"]), mark(udp_loopback))


@attempt("sends one by IPv6", LOCAL, by="namespaces", where=NONE, proof="witness")
def udp_loopback_6(bait):
    if not bait["ports"]["udp6"]:
        raise Absent("the host has no IPv6")
    return udp(socket.AF_INET6, ("::1", bait["ports"]["udp6"]), mark(udp_loopback_6))


@attempt("sends a datagram to the host's address in its network", OUT, by="namespaces", where=NONE, proof="witness")
def udp_own_address(bait):
    if not bait["ports"]["own"]:
        raise Absent("the host has no network")
    return udp(socket.AF_INET, (bait["ports"]["own"], bait["ports"]["udp-own"]), mark(udp_own_address))


@attempt("sends many datagrams by one call (sendmmsg)", OUT, by="namespaces", where=NONE, proof="witness")
def udp_many(bait):
    text = mark(udp_many).encode()
    address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(bait["ports"]["udp4"]), socket.inet_aton("127.0.0.1"))
    name, buffer = ctypes.create_string_buffer(address, 16), ctypes.create_string_buffer(text, len(text))
    part = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), len(text))
    message = (ctypes.c_uint64 * 8)(ctypes.addressof(name), 16, ctypes.addressof(part), 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
        return call("sendmmsg", to.fileno(), message, 1, 0)


@attempt("puts what it read into a question for names (DNS)", OUT, by="namespaces", where=NONE, proof="witness")
def dns(bait):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
        to.connect(("127.0.0.1", bait["ports"]["udp4"]))
        name = mark(dns).encode()
        return to.send(b"\0\1\1\0\0\1\0\0\0\0\0\0" + bytes([len(name)]) + name + b"\0\0\1\0\1")


@attempt("asks the system to look a name up", OUT, by="namespaces", where=NONE, depends="a resolver")
def look_up(_):
    try:
        return socket.getaddrinfo("example.com", 80)
    except socket.gaierror as error:
        raise Stopped(str(error)) from error


@attempt("sends a datagram to everybody (broadcast)", OUT, by="namespaces", where=NONE)
def udp_broadcast(_):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
        to.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return to.sendto(b"oqto-test", ("255.255.255.255", 9))


@attempt("sends a datagram to a group (multicast)", OUT, by="namespaces", where=NONE)
def udp_multicast(_):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
        to.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
        return to.sendto(b"oqto-test", ("224.0.0.251", 9))


@attempt("connects to an address far away", OUT, by="namespaces", where=NONE, depends="a network that answers")
def tcp_far(_):
    return tcp(socket.AF_INET, ("1.1.1.1", 443), "")


@attempt("sends a datagram to an address far away", OUT, by="namespaces", where=NONE)
def udp_far(_):
    # To a network that is kept for documentation: it leaves the host, which is enough, and arrives nowhere.
    return udp(socket.AF_INET, ("203.0.113.1", 9), "oqto-test")


@attempt("sends a datagram to an address far away by IPv6", OUT, by="namespaces", where=NONE, depends="a route for IPv6")
def udp_far_6(_):
    return udp(socket.AF_INET6, ("2001:db8::1", 9), "oqto-test")


@attempt("asks the cloud for its credentials (169.254.169.254)", "the machine's own credentials", by="namespaces", where=NONE,
         depends="a cloud, or a network that answers")
def metadata(_):
    return tcp(socket.AF_INET, ("169.254.169.254", 80), "")


@attempt("asks for them by IPv6 (fd00:ec2::254)", "the machine's own credentials", by="namespaces", where=NONE,
         depends="a cloud, or a network that answers")
def metadata_6(_):
    return tcp(socket.AF_INET6, ("fd00:ec2::254", 80), "")


@attempt("makes a raw socket", OUT, by="seccomp privileges", ground="principal: the host's network is root's")
def raw_socket(_):
    return call("socket", 2, 3, 1)


@attempt("makes a raw socket with flags in its type", OUT,
         by="seccomp privileges", ground="principal: the host's network is root's")
def raw_socket_with_flags(_):
    return call("socket", 2, 0x80803, 255)


@attempt("makes a raw socket for IPv6", OUT, by="seccomp privileges", ground="principal: the host's network is root's")
def raw_socket_6(_):
    return call("socket", 10, 3, 58)


@attempt("pings an address (ICMP without privileges)", OUT, by="seccomp", depends="net.ipv4.ping_group_range")
def ping(_):
    return call("socket", 2, 2, 1)


@attempt("pings by IPv6", OUT, by="seccomp", depends="net.ipv4.ping_group_range")
def ping_6(_):
    return call("socket", 10, 2, 58)


@attempt("connects by SCTP", "a connection that landlock does not see", by="seccomp")
def sctp(_):
    return reached("socket", 2, 1, 132)


@attempt("connects by SCTP, by its type alone", "a connection that landlock does not see", by="seccomp")
def sctp_by_type(_):
    return reached("socket", 10, 5, 0)


@attempt("connects by DCCP", "a connection that landlock does not see", by="seccomp")
def dccp(_):
    return reached("socket", 2, 6, 33)


@attempt("sends UDP-Lite", "datagrams that others do not look at", by="seccomp")
def udp_lite(_):
    return call("socket", 2, 2, 136)


@attempt("makes a pair of sockets of another family", "as any socket of it", by="seccomp")
def pair_of_another_family(_):
    return reached("socketpair", 30, 1, 0, (ctypes.c_int * 2)())


@attempt("makes an address its own (netlink)", "to be taken for somebody else",
         by="privileges", where={"network": "privileges"},
         ground="principal: the host's network is root's")
def add_address(_):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as to:
        body = struct.pack("=BBBBI", 2, 32, 0, 0, 1) + struct.pack("=HH4s", 8, 2, socket.inet_aton("203.0.113.7"))
        head = struct.pack("=IHHII", 16 + len(body), 20, 0x605, 1, 0)
        to.send(head + body)
        error = -struct.unpack_from("=i", to.recv(4096), 16)[0]
    if error:
        raise OSError(error, "netlink")
    return "added"


@attempt("makes a device of the network (tun)", "a network of its own",
         by="mounts privileges", ground="principal: the host's network is root's")
def tunnel(_):
    import fcntl

    device = os.open("/dev/net/tun", os.O_RDWR)
    return fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"oqto", 0x1001))


@attempt("binds a port that is the system's", "to be taken for a service of the host", by="privileges",
         where={"network": "privileges"},
         ground="principal: such ports are root's", depends="net.ipv4.ip_unprivileged_port_start")
def bind_port_of_the_system(_):
    with socket.socket() as to:
        to.bind(("127.0.0.1", 81))
    return "bound"


@attempt("lists the host's interfaces and addresses", "where in which network it is", by="namespaces", where=NONE)
def list_interfaces(_):
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    if not names:
        raise Stopped("only its own loopback")
    return names


@attempt("listens where the host can reach it", "to be taken for a service of the host", by="namespaces", where=NONE)
def listen_on_the_host(bait):
    if not bait["ports"]["own"]:
        raise Absent("the host has no network")
    with socket.socket() as to:
        to.bind((bait["ports"]["own"], 0))
        to.listen()
    return "listens on %s" % bait["ports"]["own"]
