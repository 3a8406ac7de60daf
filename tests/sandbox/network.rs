//! Whom a harness reaches.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::bed::{Bed, end};

fn connect(port: u16) -> String {
    format!("import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('in')")
}

#[test]
fn the_hosts_loopback_is_reached_under_open_net_only() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = connect(listener.local_addr().unwrap().port());
    let bed = Bed::new();
    let words = ["/usr/bin/python3", "-c", &script];
    assert_eq!(end(&mut bed.command("open-net", &words)).ok(), "in\n");
    let ended = end(&mut bed.command("workspace", &words));
    assert!(ended.code != 0 && ended.err.contains("refused"), "{}", ended.err);
}

#[test]
fn there_is_no_way_out_under_workspace() {
    let bed = Bed::new();
    assert_eq!(
        bed.sh("cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '")
            .ok(),
        "lo\n"
    );
    assert_ne!(
        bed.python("import socket; socket.create_connection(('192.0.2.1', 80), 5)")
            .code,
        0
    );
}

#[test]
fn abstract_sockets_of_the_host_are_out_of_reach_under_every_policy() {
    let name = format!("oqto-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let script = format!("import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')");
    let bed = Bed::new();
    for policy in ["workspace", "open-net"] {
        assert_ne!(
            end(&mut bed.command(policy, &["/usr/bin/python3", "-c", &script])).code,
            0,
            "{policy}"
        );
    }
}

#[test]
fn names_can_be_looked_up_under_open_net() {
    let bed = Bed::new();
    let script = "import socket; print(socket.gethostbyname('localhost')); open('/etc/resolv.conf').read()";
    assert_eq!(
        end(&mut bed.command("open-net", &["/usr/bin/python3", "-c", script])).ok(),
        "127.0.0.1\n"
    );
}
