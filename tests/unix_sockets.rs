//! Unix-domain sockets on either side, and the files they leave.

mod process;
mod programs;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use process::{Scratch, run, text};
use programs::data::{MIB, file, sum, sum_said};
use programs::nginx::{self, Site};
use programs::relay::Relay;
use programs::{client, curl, lacks, said};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Signal;

/// A download over the Unix socket `path`.
fn over(path: &str) -> Command {
    curl(&["--unix-socket", path, "http://localhost/file"])
}

#[test]
fn unix_to_tcp_tcp_to_unix_and_unix_to_unix() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("unix");
    let (inside, front, chained) = (scratch.path("in.sock"), scratch.path("front.sock"), scratch.path("chain.sock"));
    let _nginx = nginx::start_unix(&scratch, &inside, Site::default());
    let wanted = sum(&file(&scratch, "data/file", 64 * MIB + 3, 15));
    let inside = format!("unix:{inside}");
    let tcp = Relay::between(&[("127.0.0.1:0", &inside), (&format!("unix:{front}"), &inside)], &[]);
    assert_eq!(sum_said(&mut curl(&[&tcp.url("/file")])), wanted);
    assert_eq!(sum_said(&mut over(&front)), wanted);
    let unix = Relay::between(&[(&format!("unix:{chained}"), &tcp.addr().to_string())], &[]);
    assert_eq!(sum_said(&mut over(&chained)), wanted);
    unix.finished();
    tcp.finished();
}

#[test]
fn an_upload_over_unix_sockets() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("unix-up");
    let (inside, front) = (scratch.path("in.sock"), scratch.path("front.sock"));
    let _nginx = nginx::start_unix(&scratch, &inside, Site::default());
    let path = file(&scratch, "up", 64 * MIB + 5, 16);
    let relay = Relay::between(&[(&format!("unix:{front}"), &format!("unix:{inside}"))], &[]);
    said(&mut curl(&["--unix-socket", &front, "--upload-file", &path, "http://localhost/put/stored"]));
    assert_eq!(sum(&scratch.path("put/stored")), sum(&path));
    relay.finished();
}

#[test]
fn a_name_without_a_file() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("abstract");
    let (_nginx, addr) = nginx::start(&scratch, Site::default());
    let wanted = sum(&file(&scratch, "data/file", MIB, 17));
    let name = format!("midmile-abstract-{}", std::process::id());
    let front = Relay::between(&[(&format!("unix:@{name}"), &addr.to_string())], &[]);
    let back = Relay::to(format!("unix:@{name}"));
    assert_eq!(sum_said(&mut curl(&["--abstract-unix-socket", &name, "http://localhost/file"])), wanted);
    assert_eq!(sum_said(&mut curl(&[&back.url("/file")])), wanted);
    back.finished();
    front.finished();
}

#[test]
fn half_a_close_over_unix_sockets() {
    if lacks(&["socat"]) {
        return;
    }
    let scratch = Scratch::new("unix-half");
    let (inside, front) = (scratch.path("in.sock"), scratch.path("front.sock"));
    let mut command = programs::server("socat");
    command.args(["-t", "120", &format!("UNIX-LISTEN:{inside},fork"), "EXEC:sha256sum"]);
    let _socat = programs::Server::start_unix(&scratch, "socat.log", &inside, command);
    let relay = Relay::between(&[(&format!("unix:{front}"), &format!("unix:{inside}"))], &[]);
    let path = file(&scratch, "there", 32 * MIB, 18);
    let mut command = client("socat");
    command.args(["-t", "120", "-", &format!("UNIX-CONNECT:{front}")]).stdin(std::fs::File::open(&path).unwrap());
    assert_eq!(said(&mut command).split_whitespace().next(), Some(&*sum(&path)));
    relay.finished();
}

#[test]
fn a_backend_without_a_listener_is_a_named_end() {
    if lacks(&["curl"]) {
        return;
    }
    let scratch = Scratch::new("unix-gone");
    let stale = scratch.path("stale.sock");
    // It never listened: a listener would live on in a child that another test's thread is just starting.
    net::bind(unix_socket(), &SocketAddrUnix::new(&stale).unwrap()).unwrap();
    let missing = format!("unix:{}", scratch.path("missing.sock"));
    let routes = [("127.0.0.1:0", &*format!("unix:{stale}")), ("127.0.0.1:0", &missing)];
    let relay = Relay::between(&routes, &[]);
    for listen in &relay.listen {
        let output = curl(&[&format!("http://{listen}/")]).output().unwrap();
        // The reset may come so soon that curl calls it a connection that failed (7) or a send that did (55), not one that was cut (56).
        assert!(matches!(output.status.code(), Some(7 | 55 | 56)), "{}", text(&output.stderr));
    }
    relay.settled();
    assert_eq!((relay.ends("dial-refused"), relay.ends("dial-unreachable")), (1, 1), "{:#}", relay.status());
}

/// A Unix-domain socket that has no name yet.
fn unix_socket() -> OwnedFd {
    net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket")
}

/// A relay from the Unix socket `path` to nowhere.
fn listening_at(path: &str) -> Relay {
    Relay::between(&[(&format!("unix:{path}"), "127.0.0.1:1")], &[])
}

#[test]
fn the_file_is_removed_at_the_end_and_a_stale_one_at_the_start() {
    let scratch = Scratch::new("unix-file");
    let path = scratch.path("relay.sock");
    let mut relay = listening_at(&path);
    assert!(Path::new(&path).exists());
    relay.running.signal(Signal::TERM);
    assert_eq!(relay.running.code(), Some(0));
    assert!(!Path::new(&path).exists(), "an orderly end removes it");
    let relay = listening_at(&path);
    relay.running.signal(Signal::KILL);
    let mut relay = relay;
    assert_eq!(relay.running.code(), None);
    assert!(Path::new(&path).exists(), "one that is killed leaves it");
    let mut relay = listening_at(&path);
    relay.running.signal(Signal::TERM);
    assert_eq!(relay.running.code(), Some(0));
    assert!(!Path::new(&path).exists());
}

#[test]
fn what_is_in_the_way_stays() {
    let scratch = Scratch::new("unix-way");
    let (taken, notes) = (scratch.path("taken.sock"), scratch.write("notes", "precious"));
    let _listener = UnixListener::bind(&taken).unwrap();
    for (path, said) in [(&taken, "the address is in use"), (&notes, "a file that isn't a socket is in the way")] {
        let output = run(&["relay", "--listen", &format!("unix:{path}"), "--to", "127.0.0.1:1"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(path) && stderr.contains(said), "{stderr}");
        assert!(Path::new(path).exists());
    }
    assert_eq!(std::fs::read_to_string(notes).unwrap(), "precious");
}

/// Clients of a backend whose queue holds fewer.
const CLIENTS: usize = 50;

#[test]
fn a_backend_whose_queue_is_full_for_a_moment_is_waited_for() {
    let scratch = Scratch::new("unix-queue");
    let path = scratch.path("full.sock");
    let socket = unix_socket();
    net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    net::listen(&socket, 8).unwrap();
    let relay = Relay::to(format!("unix:{path}"));
    let clients: Vec<_> = (0..CLIENTS).filter_map(|_| TcpStream::connect(relay.addr()).ok()).collect();
    relay.counts("/totals/pairs_opened", CLIENTS as u64);
    // Now the server gets round to it: it greets each.
    let listener = UnixListener::from(socket);
    std::thread::spawn(move || {
        listener.incoming().map_while(Result::ok).try_for_each(|mut stream| stream.write_all(b"g"))
    });
    let served = clients.into_iter().filter(|mut stream| stream.read_exact(&mut [0]).is_ok()).count();
    assert_eq!(served, CLIENTS, "{:#}", relay.settled());
}
