//! Whom a harness reaches.

use std::net::TcpListener;

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
fn names_can_be_looked_up_under_open_net() {
    let bed = Bed::new();
    let script = "import socket; print(socket.gethostbyname('localhost')); open('/etc/resolv.conf').read()";
    assert_eq!(
        end(&mut bed.command("open-net", &["/usr/bin/python3", "-c", script])).ok(),
        "127.0.0.1\n"
    );
}
