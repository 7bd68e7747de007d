//! Hosts in a row, each a network namespace joined to the next: a client at one end, a server at the other.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace. It lives as long as a process in it, which ends when our end of its pipe is closed: even if we are killed.
pub(crate) struct Host {
    keeper: Child,
}

impl Host {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        // Once it answers it is in its namespace.
        keeper.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        keeper.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let host = Self { keeper };
        host.command("ip link set lo up");
        host
    }

    /// Does something there. Sockets that it makes stay there, and so do the programs that it starts.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.keeper.id())).unwrap();
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            there.join().unwrap()
        })
    }

    /// Runs a command there, which must do, and returns what it says.
    pub(crate) fn command(&self, line: &str) -> String {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let output = self.run(|| command.output().unwrap());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}

/// Addresses of the host to the left of a link, or to its right.
pub(crate) fn left(link: u8) -> [IpAddr; 2] {
    addresses(link, 1)
}

pub(crate) fn right(link: u8) -> [IpAddr; 2] {
    addresses(link, 2)
}

fn addresses(link: u8, host: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd77, 0, 0, u16::from(link), 0, 0, 0, u16::from(host));
    [Ipv4Addr::new(10, 77, link, host).into(), v6.into()]
}

/// So many hosts in a row: link 0 joins the first two. Those between forward, and everybody finds everybody.
pub(crate) fn row(count: u8) -> Vec<Host> {
    let hosts: Vec<Host> = (0..count).map(|_| Host::new()).collect();
    for (link, pair) in (0..).zip(hosts.windows(2)) {
        let there = pair[1].keeper.id();
        pair[0].command(&format!("ip link add right type veth peer name left netns {there}"));
        for (host, device, addresses) in [(&pair[0], "right", left(link)), (&pair[1], "left", right(link))] {
            for address in addresses {
                // Without duplicate address detection an IPv6 address serves at once.
                let prefix = if address.is_ipv4() { "24" } else { "64 nodad" };
                host.command(&format!("ip addr add dev {device} {address}/{prefix}"));
            }
            host.command(&format!("ip link set {device} up"));
        }
    }
    for (at, host) in (0..count).zip(&hosts) {
        host.command("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for link in 0..count - 1 {
            let next = match link {
                link if link + 1 < at => left(at - 1),
                link if link > at => right(at),
                _ => continue,
            };
            let [v4, v6] = next;
            host.command(&format!("ip route add 10.77.{link}.0/24 via {v4}"));
            host.command(&format!("ip route add fd77:0:0:{link:x}::/64 via {v6}"));
        }
    }
    hosts
}
