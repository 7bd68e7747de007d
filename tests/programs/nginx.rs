//! nginx: one process in the foreground, in a directory of its own. Files are in `data`; `PUT /put/…` stores one.

use std::net::SocketAddr;
use std::process::Command;

use super::{Server, server};
use crate::process::Scratch;

/// What nginx is to serve, beside files.
#[derive(Clone, Copy, Default)]
pub(crate) struct Site<'a> {
    /// Parameters of `listen`, such as `proxy_protocol`.
    pub(crate) listen: &'a str,
    /// More directives of the server.
    pub(crate) directives: &'a str,
}

fn command(scratch: &Scratch, listen: &str, site: Site) -> Command {
    for dir in ["data", "put"] {
        std::fs::create_dir_all(scratch.path(dir)).unwrap();
    }
    let root = scratch.path("");
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {root}tmp_{kind};\n"));
    let config = format!(
        "daemon off; master_process off; pid {root}nginx.pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; sendfile on; {}\n\
         server {{ listen {listen} {}; root {root}data; client_max_body_size 0; {}\n\
         location /put/ {{ root {root}; dav_methods PUT; }} }} }}\n",
        temp.concat(),
        site.listen,
        site.directives,
    );
    let file = scratch.write("nginx.conf", &config);
    let mut command = server("nginx");
    command.args(["-e", "stderr", "-p", &root, "-c", &file]);
    command
}

/// Starts it on an address of its own.
pub(crate) fn start(scratch: &Scratch, site: Site) -> (Server, SocketAddr) {
    start_by(scratch, site, |command| command)
}

/// As [`start`], by the command that `through` makes of its.
pub(crate) fn start_by(scratch: &Scratch, site: Site, through: impl Fn(Command) -> Command) -> (Server, SocketAddr) {
    Server::start(scratch, "nginx.log", |addr| through(command(scratch, &addr.to_string(), site)))
}

/// Starts it on an IPv6 address that was reserved.
pub(crate) fn start_at(scratch: &Scratch, addr: SocketAddr, site: Site) -> Server {
    let mut server = Server::spawn(command(scratch, &addr.to_string(), site), scratch.path("nginx.log"));
    assert!(server.comes_up(|| super::is_listening(addr)), "nginx doesn't start:\n{}", server.said());
    server
}

/// Starts it on the Unix socket `path`.
pub(crate) fn start_unix(scratch: &Scratch, path: &str, site: Site) -> Server {
    Server::start_unix(scratch, "nginx.log", path, command(scratch, &format!("unix:{path}"), site))
}
