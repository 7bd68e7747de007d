//! nginx's stream module, one worker.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Peer, Wiring, command, first_line, skips_nothing};

/// Where distributions put the module, unless it's built in.
const MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_stream_module.so", "/usr/lib64/nginx/modules/ngx_stream_module.so"];

pub(super) const NGINX: Peer =
    Peer { name: "nginx", version: |_| first_line("nginx", "-v"), command: configured, skips: skips_nothing };

fn configured(wiring: &Wiring<'_>) -> Result<Option<Vec<OsString>>> {
    let Wiring { listen, to, dir, .. } = wiring;
    let files = wiring.host.open_files;
    let connections = files.saturating_sub(500).min(60_000);
    let module = MODULES.iter().find(|path| Path::new(path).exists());
    let load = module.map(|path| format!("load_module {path};")).unwrap_or_default();
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
