//! Hosts that are network namespaces, joined by a veth pair.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The gateway's device and addresses.
pub(crate) const GATEWAY_DEVICE: &str = "g0";
pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 1);
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const GATEWAY: [IpAddr; 2] = [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)];
/// The client's.
pub(crate) const CLIENT_DEVICE: &str = "c0";
pub(crate) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 2);
pub(crate) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const CLIENT: [IpAddr; 2] = [IpAddr::V4(CLIENT_V4), IpAddr::V6(CLIENT_V6)];

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

    /// Does something there. Sockets that it makes stay there.
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

/// A client and a gateway, joined.
pub(crate) struct Ground {
    pub(crate) client: Host,
    pub(crate) gateway: Host,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let ground = Self { client: Host::new(), gateway: Host::new() };
        let there = ground.gateway.keeper.id();
        let (near, far) = (CLIENT_DEVICE, GATEWAY_DEVICE);
        ground.client.command(&format!("ip link add {near} type veth peer name {far} netns {there}"));
        for (host, device, addresses) in [(&ground.client, near, CLIENT), (&ground.gateway, far, GATEWAY)] {
            for address in addresses {
                // Without duplicate address detection an IPv6 address serves at once.
                let prefix = if address.is_ipv4() { "24" } else { "64 nodad" };
                host.command(&format!("ip addr add dev {device} {address}/{prefix}"));
            }
            host.command(&format!("ip link set {device} up"));
        }
        ground
    }
}
