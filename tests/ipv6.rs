//! IPv6 on either side.

mod process;
mod programs;

use std::net::SocketAddr;

use process::Scratch;
use programs::data::{MIB, file, sum, sum_said};
use programs::nginx::{self, Site};
use programs::relay::Relay;
use programs::{Server, curl, lacks, reserve_v6, said};

/// nginx on IPv6; `None` where it or IPv6 isn't there.
fn nginx_v6(scratch: &Scratch, site: Site) -> Option<(Server, SocketAddr)> {
    if lacks(&["nginx", "curl"]) {
        return None;
    }
    let addr = reserve_v6()?;
    Some((nginx::start_at(scratch, addr, site), addr))
}

#[test]
fn six_to_six_four_to_six_and_six_to_four() {
    let scratch = Scratch::new("v6");
    let Some((_nginx, addr)) = nginx_v6(&scratch, Site::default()) else { return };
    let wanted = sum(&file(&scratch, "data/file", 64 * MIB, 19));
    let to = addr.to_string();
    let six = Relay::between(&[("[::1]:0", &to), ("127.0.0.1:0", &to)], &[]);
    assert!(six.addr().is_ipv6() && six.addr_of(1).is_ipv4());
    let four = Relay::between(&[("[::1]:0", &six.listen[1])], &[]);
    for listen in six.listen.iter().chain(&four.listen) {
        assert_eq!(sum_said(&mut curl(&[&format!("http://{listen}/file")])), wanted, "{listen}");
    }
    four.finished();
    six.finished();
}

#[test]
fn the_proxy_header_of_an_ipv6_client() {
    let scratch = Scratch::new("v6-proxy");
    let site = Site { listen: "proxy_protocol", directives: "location /who { return 200 \"$proxy_protocol_addr\"; }" };
    let Some((_nginx, addr)) = nginx_v6(&scratch, site) else { return };
    let to = addr.to_string();
    for version in ["v1", "v2"] {
        let relay = Relay::between(&[("[::1]:0", &to), ("127.0.0.1:0", &to)], &["--send-proxy", version]);
        for (listen, client) in relay.listen.iter().zip(["::1", "127.0.0.1"]) {
            assert_eq!(said(&mut curl(&[&format!("http://{listen}/who")])), client, "{version}");
        }
        relay.finished();
    }
}
