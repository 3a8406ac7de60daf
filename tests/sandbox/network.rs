//! Whom a harness reaches.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::bed::{Bed, end, runner};

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

#[test]
fn only_the_tcp_ports_that_a_policy_names_are_reached_and_listened_on() {
    // All are taken: whoever may ask for one that is gets another answer than whoever may not.
    let taken = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [reached, unreached, bound, unbound] = taken.each_ref().map(|held| held.local_addr().unwrap().port());
    let bed = Bed::new();
    let policies = bed.path("policies");
    fs::create_dir(&policies).unwrap();
    let text = format!(
        "description = \"d\"\nextends = \"open-net\"\n\
         [network]\nconnect_tcp = [{reached}]\nbind_tcp = [{bound}]\n"
    );
    fs::write(policies.join("ports.toml"), text).unwrap();
    let script = format!(
        "import errno, socket\n\
         def tried(ask, port):\n\
         \x20   try: ask(socket.socket(), ('127.0.0.1', port)); print('done')\n\
         \x20   except OSError as error: print(errno.errorcode[error.errno])\n\
         for port in {reached}, {unreached}: tried(socket.socket.connect, port)\n\
         for port in {bound}, {unbound}, 0: tried(socket.socket.bind, port)\n"
    );
    let mut command = Command::new(runner());
    command
        .args(["sandbox", "run", "--policy", "ports", "--policy-dir"])
        .arg(&policies);
    command.arg("--cwd").arg(bed.workspace());
    let ended = end(command.args(["--", "/usr/bin/python3", "-c", &script]));
    assert_eq!(ended.ok(), "done\nEACCES\nEADDRINUSE\nEACCES\nEACCES\n");
}
