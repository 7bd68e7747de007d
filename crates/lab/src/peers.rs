//! Other relays in the gateways' place, with the best settings that they offer.
//!
//! Both speak TCP alone (no HTTP), in one process of one thread, like the lab's own gateways: that each kills with its host. Their
//! buffers are left to the kernel, which sizes them up to 64 MiB. Fast Open is on wherever they have it; haproxy 2.6 takes the
//! setting for dialled legs and makes no use of it in TCP mode. What they can't set is set for them: the congestion control, by the
//! gateways' routes.

use std::env;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::gateway_config::TRUNK_PORT;
use crate::memory_file::MemoryFile;
use crate::netns::Host;
use crate::process::Gateway;
use crate::scenario::Scenario;
use crate::server::PORT;
use crate::steps::Step;
use crate::topology::address;

/// Where programs for the superuser are; a user's search path may lack them.
const MORE_PLACES: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];
/// Where distributions put nginx's stream module, unless it's built in.
const NGINX_MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_stream_module.so", "/usr/lib64/nginx/modules/ngx_stream_module.so"];
/// Connections that wait with their request in the SYN.
const FAST_OPEN_QUEUE: u32 = 1024;

/// A program that relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// With splice forced both ways through large pipes.
    Haproxy,
    /// Its stream module.
    Nginx,
}

/// A running peer, and the files that it reads.
#[derive(Debug)]
pub(crate) struct RunningPeer {
    pub(crate) gateway: Gateway,
    /// Where it listens.
    pub(crate) port: u16,
    _files: [MemoryFile; 2],
}

impl Peer {
    /// What stands in for the gateways on a step, if it isn't midmile.
    pub(crate) const fn of(step: Step) -> Option<Self> {
        match step {
            Step::Haproxy => Some(Self::Haproxy),
            Step::Nginx => Some(Self::Nginx),
            _ => None,
        }
    }

    /// Where it is installed.
    ///
    /// # Errors
    /// What isn't.
    pub(crate) fn program(self) -> Result<PathBuf, String> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut places = env::split_paths(&path).chain(MORE_PLACES.map(PathBuf::from));
        let program = places.find_map(|place| Some(place.join(self.name())).filter(|program| program.is_file()));
        let program = program.ok_or_else(|| format!("{} isn't installed", self.name()))?;
        if self == Self::Nginx && nginx_module().is_none() && !has_stream_built_in(&program) {
            return Err("nginx's stream module isn't installed (Debian has it as libnginx-mod-stream)".to_owned());
        }
        Ok(program)
    }

    /// Starts it in the host of a gateway: `place` counts from the client's on.
    pub(crate) fn start(self, program: &Path, host: &Host, scenario: &Scenario, place: usize) -> Result<RunningPeer> {
        let last = place + 1 == scenario.gateways();
        let listen = if place == 0 { PORT } else { TRUNK_PORT };
        let to = (address(place + 1, 2), if last { PORT } else { TRUNK_PORT });
        // nginx writes its process id somewhere, and removes that when it ends; it can't remove this.
        let pid = MemoryFile::new(b"")?;
        let text = match self {
            Self::Haproxy => haproxy(listen, to),
            Self::Nginx => nginx(listen, to, pid.path()),
        };
        let file = MemoryFile::new(text.as_bytes())?;
        let mut command = Command::new(program);
        match self {
            Self::Haproxy => command.args(["-db", "-f", file.path()]),
            Self::Nginx => command.args(["-p", "/", "-e", "stderr", "-c", file.path()]),
        };
        let gateway = Gateway::spawn(host, command, None)?;
        Ok(RunningPeer { gateway, port: listen, _files: [file, pid] })
    }

    /// Its name as a program.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }
}

fn haproxy(listen: u16, (host, port): (Ipv4Addr, u16)) -> String {
    format!(
        "global
  nbthread 1
  maxconn 1000
  maxpipes 1000
  tune.pipesize 1048576
  tune.maxaccept 500
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  option splice-request
  option splice-response
  retry-on conn-failure empty-response response-timeout
listen relay
  bind 0.0.0.0:{listen} backlog 1024 tfo
  server target {host}:{port} tfo
"
    )
}

fn nginx_module() -> Option<&'static str> {
    NGINX_MODULES.into_iter().find(|path| Path::new(path).exists())
}

fn has_stream_built_in(nginx: &Path) -> bool {
    let said = Command::new(nginx).arg("-V").output().map(|output| output.stderr).unwrap_or_default();
    String::from_utf8_lossy(&said).split_whitespace().any(|option| option == "--with-stream")
}

fn nginx(listen: u16, (host, port): (Ipv4Addr, u16), pid: &str) -> String {
    let load = nginx_module().map(|path| format!("load_module {path};\n")).unwrap_or_default();
    // Without a master there is one process, which ends with the lab. A dialled leg has no Fast Open in nginx.
    format!(
        "{load}daemon off;
master_process off;
error_log stderr error;
pid {pid};
events {{ worker_connections 4096; multi_accept on; }}
stream {{
  access_log off;
  server {{
    listen {listen} backlog=1024 fastopen={FAST_OPEN_QUEUE};
    proxy_pass {host}:{port};
    proxy_buffer_size 64k;
    proxy_connect_timeout 10s;
    proxy_timeout 1h;
    tcp_nodelay on;
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_stand_in_on_their_steps_alone() {
        let peers: Vec<_> = Step::COMPARED.into_iter().chain(Step::ALL).filter_map(Peer::of).collect();
        assert_eq!(peers, [Peer::Haproxy, Peer::Nginx]);
        assert!(peers.iter().all(|peer| Step::named(peer.name()).and_then(Peer::of) == Some(*peer)));
    }

    #[test]
    fn they_dial_what_they_are_told() {
        let to = (Ipv4Addr::new(10, 3, 0, 2), 80);
        assert!(haproxy(7000, to).contains("bind 0.0.0.0:7000 ") && haproxy(7000, to).contains("10.3.0.2:80 tfo"));
        let config = nginx(80, to, "/pid");
        assert!(config.contains("listen 80 ") && config.contains("proxy_pass 10.3.0.2:80;"), "{config}");
    }
}
