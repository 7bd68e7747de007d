//! The HTTP server among the examples, on each backend, driven by curl and wrk.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

mod driven;

use std::io::{Read, Write};

use driven::{Example, Ground, Scratch, lacks, noise};

const LONG: usize = 1 << 20;

fn site() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("index.html", b"<p>hello</p>\n");
    scratch.write("below/a page.txt", b"text\n");
    scratch.write("long.bin", &noise(LONG));
    scratch.write(".hidden", b"secret");
    scratch
}

fn start(ground: &Ground, site: &Scratch) -> Example {
    ground.start("http", &[site.path().to_str().unwrap()])
}

fn curl(ground: &Ground, args: &[&str]) -> String {
    ground.said("curl", &[&["--silent", "--show-error", "--noproxy", "*"], args].concat())
}

#[test]
fn pages_are_served_and_what_is_none_is_refused() {
    if lacks(&["curl"]) {
        return;
    }
    let site = site();
    for ground in Ground::all() {
        let example = start(&ground, &site);
        let url = |path: &str| format!("http://{}{path}", example.at());
        assert_eq!(curl(&ground, &[&url("/")]), "<p>hello</p>\n");
        assert_eq!(curl(&ground, &[&url("/below/a%20page.txt?query")]), "text\n");
        let got = site.path().join(format!("got-{}", ground.backend()));
        curl(&ground, &["--output", got.to_str().unwrap(), &url("/long.bin")]);
        assert!(std::fs::read(got).unwrap() == noise(LONG), "on {}", ground.backend());
        let head = curl(&ground, &["--head", &url("/long.bin")]);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nDate: ") && head.contains(&format!("Content-Length: {LONG}\r\n")));
        let long = format!("X: {}", "x".repeat(9000));
        for (args, status) in [
            (&["/"][..], "200"),
            (&["/nothing"], "404"),
            (&["/.hidden"], "404"),
            (&["--path-as-is", "/../index.html"], "404"),
            (&["/%zz"], "400"),
            (&["-X", "DELETE", "/"], "405"),
            (&["--data", "body", "/"], "405"),
            (&["--header", &long, "/"], "431"),
            (&["--header", "Host:", "/"], "400"),
        ] {
            let (path, options) = args.split_last().unwrap();
            let url = url(path);
            let quiet = ["--output", "/dev/null", "--write-out", "%{http_code}", &url];
            assert_eq!(curl(&ground, &[options, &quiet].concat()), status, "on {}: {args:?}", ground.backend());
        }
        example.end();
    }
}

#[test]
fn a_connection_serves_many_requests() {
    if lacks(&["curl"]) {
        return;
    }
    let site = site();
    for ground in Ground::all() {
        let example = start(&ground, &site);
        let url = format!("http://{}/", example.at());
        let connects = curl(&ground, &["--write-out", "%{num_connects}\n", &url, &url, &url]);
        assert_eq!(connects, "<p>hello</p>\n1\n<p>hello</p>\n0\n<p>hello</p>\n0\n");
        // Several that come together, a long one among them, and the last of them ends the connection.
        let mut stream = ground.connect(example.at());
        let head = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        let said = [head("/", ""), head("/long.bin", ""), head("/no", ""), head("/", "Connection: close\r\n")].concat();
        stream.write_all(said.as_bytes()).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        let heard = String::from_utf8_lossy(&heard);
        let statuses: Vec<_> = heard.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(statuses, ["200", "200", "404", "200"], "on {}", ground.backend());
        assert!(heard.ends_with("<p>hello</p>\n"));
        example.end();
    }
}

#[test]
fn load_is_carried_without_an_error() {
    if lacks(&["wrk"]) {
        return;
    }
    let site = site();
    for ground in Ground::all() {
        let example = start(&ground, &site);
        for path in ["/", "/long.bin"] {
            let url = format!("http://{}{path}", example.at());
            let said = ground.said("wrk", &["--threads", "1", "--connections", "20", "--duration", "1s", &url]);
            assert!(said.contains("Requests/sec"), "on {}: {said}", ground.backend());
            assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "on {}: {said}", ground.backend());
        }
        example.end();
    }
}
