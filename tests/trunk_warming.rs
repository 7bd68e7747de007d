//! Windows opened by padding: clients are served behind it, and who announces padding and doesn't send it is cut in time.

mod process;
mod programs;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use midmile_wire::trunk::{Offer, Padding};
use process::ends::until_reset;
use process::{Scratch, connect, echo, exchange};
use programs::dialer::proved;
use programs::gateways::{self, KEYS, key_file, listener, peer, trunk};
use programs::relay::Relay;

/// Connections that wait ready in these tests' pools.
const READY: u64 = 3;
const WINDOW: u32 = 1 << 20;
/// A line of `[gateway]`, which the tables follow.
const BY_TRAFFIC: &str = "window_by = \"traffic\"\n";

/// The gateway that dials for others, with more lines of its trunk.
fn far(scratch: &Scratch, to: &str, more: &str) -> Relay {
    let key = key_file(scratch, "ab.key", KEYS[0]);
    // A small send buffer: padding that isn't read stays with the gateway.
    let more = format!("leg = {{ initial_window = \"{WINDOW}B\", send_buffer = \"64KiB\" }}\n{more}");
    let tables = [BY_TRAFFIC.to_owned(), peer(&key, "a", None, ""), trunk("127.0.0.1:0", &["a"], &[to], &more)];
    gateways::start(&gateways::file(scratch, "b", "cores = 1", &tables))
}

#[test]
fn clients_are_served_on_connections_that_padding_has_opened() {
    let (scratch, to) = (Scratch::new("trunk-warm"), echo(b'e').to_string());
    let b = far(&scratch, &to, "");
    let key = key_file(&scratch, "a.key", KEYS[0]);
    let more = format!("pool_min = {READY}\nleg = {{ initial_window = \"{WINDOW}B\" }}");
    let tables = [BY_TRAFFIC.to_owned(), listener(&to, &["b"], ""), peer(&key, "b", Some(&b.listen[0]), &more)];
    let a = gateways::start(&gateways::file(&scratch, "a", "cores = 1", &tables));
    for gateway in [&a, &b] {
        assert!(gateway.running.logged("initial windows of legs").contains("warming"), "{}", gateway.running.log());
    }
    a.reaches("/peers/0/ready", READY);
    let mut clients: Vec<TcpStream> = (0..2 * READY).map(|_| connect(a.addr()).0).collect();
    for client in &mut clients {
        exchange(client, "behind the padding");
    }
    drop(clients);
    a.finished();
    b.finished();
    a.reaches("/peers/0/ready", READY);
    for loss in ["warming", "handshake", "timeout"] {
        assert_eq!(a.count(&format!("/peers/0/losses/{loss}")), 0, "{:#}", a.status());
    }
}

#[test]
fn padding_that_is_announced_and_does_not_come_is_cut_in_time_and_counted() {
    let scratch = Scratch::new("trunk-warm-late");
    let b = far(&scratch, &echo(b'e').to_string(), "timeouts = { handshake = \"1s\" }");
    let begun = Instant::now();
    let (mut stream, padding) = proved(b.addr(), Offer { follows: 1000, takes: 0 });
    assert_eq!(padding, Padding { sends: 1000, receives: 0 });
    stream.write_all(&[0; 999]).unwrap();
    until_reset(&mut stream);
    // A second of the handshake's, and one for less than half a MiB.
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    b.counts("/totals/refusals/trunk-warming", 1);
}

#[test]
fn padding_that_is_not_read_is_cut_in_time_and_counted() {
    let scratch = Scratch::new("trunk-warm-unread");
    let b = far(&scratch, &echo(b'e').to_string(), "timeouts = { handshake = \"1s\" }");
    // More than both kernels' buffers hold isn't sent: what was handed over and never read is what the timeout is for.
    let (mut stream, padding) = proved(b.addr(), Offer { follows: 1, takes: 16 << 20 });
    assert_eq!(padding, Padding { sends: 1, receives: 2 * WINDOW });
    b.counts("/totals/refusals/trunk-warming", 1);
    until_reset(&mut stream);
}

#[test]
fn who_speaks_before_it_has_all_padding_is_cut() {
    let scratch = Scratch::new("trunk-warm-early");
    let b = far(&scratch, &echo(b'e').to_string(), "");
    let (mut stream, padding) = proved(b.addr(), Offer { follows: 2, takes: 16 << 20 });
    assert_eq!(padding.receives, 2 * WINDOW);
    stream.write_all(&[0; 3]).unwrap();
    b.counts("/totals/refusals/trunk-invalid", 1);
    until_reset(&mut stream);
}
