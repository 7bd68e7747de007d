//! Programs as they are: Redis and redis-benchmark, nginx and wrk; the server on one CPU and its client on the other.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{Running, usage};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(10);
/// Redis' requests in a measurement, for one client and for many: about a second.
const GETS: [u32; 2] = [30_000, 100_000];
/// What nginx answers, after its header.
const ANSWER: &str = "sixty-four bytes: what a small answer of a service may look like";

/// What asks what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    /// `redis-benchmark -t get` with so many clients.
    Redis { clients: u32 },
    /// wrk with so many connections that it keeps.
    Nginx { kept: u32 },
    /// wrk with a connection for each request.
    NginxVisits,
}

impl Program {
    /// The row's name.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Redis { clients: 1 } => "redis-benchmark GET, 1 client, requests/s".to_owned(),
            Self::Redis { clients } => format!("redis-benchmark GET, {clients} clients, requests/s"),
            Self::Nginx { kept: 1 } => "nginx and wrk, 1 connection kept, requests/s".to_owned(),
            Self::Nginx { kept } => format!("nginx and wrk, {kept} connections kept, requests/s"),
            Self::NginxVisits => "nginx and wrk, a connection each, requests/s".to_owned(),
        }
    }

    /// The programs that it takes.
    fn commands(self) -> [&'static str; 2] {
        match self {
            Self::Redis { .. } => ["redis-server", "redis-benchmark"],
            Self::Nginx { .. } | Self::NginxVisits => ["nginx", "wrk"],
        }
    }

    /// The one of them that isn't installed.
    pub(crate) fn lacks(self) -> Option<&'static str> {
        let runs = |name: &str| {
            let mut command = Command::new(name);
            command.arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        };
        self.commands().into_iter().find(|name| !runs(name))
    }

    /// What the programs say and take, with a server at `addr`, asked at `asked`. `through` makes a command go its way, pinned to the server's or the
    /// client's CPU; `directory` is for files.
    pub(crate) fn measure(
        self,
        directory: &Path,
        addr: SocketAddrV4,
        asked: SocketAddrV4,
        through: impl Fn(&[String], Side) -> Command,
    ) -> Result<Measured> {
        fs::create_dir_all(directory)?;
        let mut server = through(&self.server(directory, addr)?, Side::Server);
        let mut server =
            Running(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("can't start the server")?);
        wait_for(&mut server, addr)?;
        let before = [usage::on_cpu(server.0.id())?, usage::of_children()?];
        let output = through(&self.client(asked), Side::Client).output().context("can't start the client")?;
        let after = [usage::on_cpu(server.0.id())?, usage::of_children()?];
        ensure!(output.status.success(), "{} ended with {}", self.commands()[1], output.status);
        let said = String::from_utf8_lossy(&output.stdout);
        let rate = match self {
            Self::Redis { .. } => said.lines().find_map(|line| line.strip_prefix("\"GET\",\"")?.split('"').next()),
            _ => said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")),
        };
        let rate = rate.with_context(|| format!("{} says no rate: {said}", self.commands()[1]))?;
        let requests = match self {
            Self::Redis { clients } => f64::from(GETS[usize::from(clients > 1)]),
            _ => {
                let count = said.lines().find_map(|line| line.trim().split_once(" requests in")?.0.parse().ok());
                count.with_context(|| format!("{} says no count: {said}", self.commands()[1]))?
            }
        };
        let cpu = (after[0] - before[0] + (after[1] - before[1])).as_secs_f64() * 1e6 / requests;
        Ok(Measured { rate: rate.trim().parse()?, cpu_us: cpu })
    }

    fn server(self, directory: &Path, addr: SocketAddrV4) -> Result<Vec<String>> {
        let (port, place) = (addr.port().to_string(), directory.to_string_lossy().into_owned());
        let host = addr.ip().to_string();
        let args = match self {
            Self::Redis { .. } => {
                vec![
                    "redis-server",
                    "--bind",
                    &host,
                    "--port",
                    &port,
                    "--save",
                    "",
                    "--dir",
                    &place,
                    "--protected-mode",
                    "no",
                ]
            }
            Self::Nginx { .. } | Self::NginxVisits => {
                let file = directory.join("nginx.conf");
                // One process, so that none outlives it; as the user who runs it, since friends are of one user.
                let text = format!(
                    "daemon off; master_process off; user root; pid {place}/nginx.pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000000;
    server {{ listen {addr}; location / {{ return 200 \"{ANSWER}\"; }} }}
}}
"
                );
                fs::write(&file, text)?;
                vec!["nginx", "-p", &place, "-c", "nginx.conf", "-e", "stderr"]
            }
        };
        Ok(args.into_iter().map(str::to_owned).collect())
    }

    fn client(self, addr: SocketAddrV4) -> Vec<String> {
        let url = format!("http://{addr}/");
        let words = match self {
            Self::Redis { clients } => {
                let count = GETS[usize::from(clients > 1)];
                format!("redis-benchmark -h {} -p {} -t get -c {clients} -n {count} --csv", addr.ip(), addr.port())
            }
            Self::Nginx { kept } => format!("wrk -t 1 -c {kept} -d 1 {url}"),
            Self::NginxVisits => format!("wrk -t 1 -c 10 -d 1 {url}"),
        };
        let mut words: Vec<_> = words.split(' ').map(str::to_owned).collect();
        if self == Self::NginxVisits {
            words.extend(["-H", "Connection: close"].map(str::to_owned));
        }
        words
    }
}

/// What a measurement came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Requests a second.
    pub(crate) rate: f64,
    /// CPU time of both processes for a request, in the kernel and without, in microseconds.
    pub(crate) cpu_us: f64,
}

/// Which of the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// A port that was free just now.
pub(crate) fn free_addr() -> Result<SocketAddrV4> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

/// Waits until the server accepts.
fn wait_for(server: &mut Running, addr: SocketAddrV4) -> Result<()> {
    let began = Instant::now();
    while TcpStream::connect(addr).is_err() {
        if let Some(status) = server.0.try_wait()? {
            bail!("the server ended with {status}");
        }
        ensure!(began.elapsed() < START, "the server doesn't accept at {addr}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
