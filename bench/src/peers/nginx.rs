//! nginx's stream module, one worker.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Peer, Wiring, command, first_line, skips_nothing};

/// Where distributions put the module, unless it's built in.
const MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_stream_module.so", "/usr/lib64/nginx/modules/ngx_stream_module.so"];

pub(super) const NGINX: Peer =
    Peer { name: "nginx", version: |_| version(), command: configured, skips: skips_nothing };

/// Its version, if it's installed with what relays.
fn version() -> Option<String> {
    let version = first_line("nginx", "-v")?;
    let built_in = || {
        let said = Command::new("nginx").arg("-V").output().map(|output| output.stderr).unwrap_or_default();
        String::from_utf8_lossy(&said).split_whitespace().any(|option| option == "--with-stream")
    };
    if module().is_none() && !built_in() {
        eprintln!("nginx is installed without its stream module (Debian has it as libnginx-mod-stream)");
        return None;
    }
    Some(version)
}

fn module() -> Option<&'static str> {
    MODULES.into_iter().find(|path| Path::new(path).exists())
}

fn configured(wiring: &Wiring<'_>) -> Result<Option<Vec<OsString>>> {
    let Wiring { listen, to, dir, .. } = wiring;
    let files = wiring.host.open_files;
    let connections = files.saturating_sub(500).min(60_000);
    let load = module().map(|path| format!("load_module {path};")).unwrap_or_default();
    let path = dir.join("nginx.conf");
    let pid = dir.join("nginx.pid");
    let config = format!(
        "{load}
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile {files};
error_log stderr error;
pid {};
events {{ worker_connections {connections}; multi_accept on; }}
stream {{
  access_log off;
  server {{
    listen {listen} backlog=4096;
    proxy_pass {to};
    proxy_buffer_size 64k;
    proxy_connect_timeout 10s;
    proxy_timeout 1h;
    tcp_nodelay on;
  }}
}}
",
        pid.display()
    );
    fs::write(&path, config).context("write nginx's configuration")?;
    Ok(Some(command!["nginx", "-p", *dir, "-e", "stderr", "-c", path]))
}
