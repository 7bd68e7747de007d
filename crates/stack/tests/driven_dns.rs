//! The DNS server among the examples, on each backend, driven by kdig and dnsperf.

mod driven;

use driven::{Example, Ground, Scratch, lacks};

const ZONE: &str = r#"
$ORIGIN example.
$TTL 1h
@     SOA ns hostmaster 1 1h 10m 1w 5m
      NS ns
ns    A 192.0.2.1
      AAAA 2001:db8::1
www   CNAME web
web   A 192.0.2.2
text  TXT "two words"
"#;

fn start(ground: &Ground, scratch: &Scratch) -> Example {
    let many: String = (0..100).map(|number| format!("many A 192.0.2.{number}\n")).collect();
    let zone = scratch.write("zone", format!("{ZONE}{many}").as_bytes());
    ground.start("dns", &[&zone])
}

fn kdig(ground: &Ground, example: &Example, args: &[&str]) -> String {
    let (at, port) = (format!("@{}", example.ip()), example.port());
    ground.said("kdig", &[&[&at, "-p", &port, "+retry=0", "+timeout=10"], args].concat())
}

#[test]
fn questions_are_answered_over_udp_and_tcp() {
    if lacks(&["kdig"]) {
        return;
    }
    let scratch = Scratch::new();
    for ground in Ground::all() {
        let example = start(&ground, &scratch);
        for over in ["+notcp", "+tcp"] {
            let ask = |args: &[&str]| kdig(&ground, &example, &[&[over], args].concat());
            assert_eq!(ask(&["+short", "WWW.example", "A"]), "web.example.\n192.0.2.2\n", "on {}", ground.backend());
            assert_eq!(ask(&["+short", "ns.example", "AAAA"]), "2001:db8::1\n");
            assert_eq!(ask(&["+short", "text.example", "TXT"]), "\"two words\"\n");
            assert_eq!(ask(&["+short", "example", "NS"]), "ns.example.\n");
            for (name, status) in [("web.example", "NOERROR"), ("no.example", "NXDOMAIN"), ("other", "REFUSED")] {
                let said = ask(&[name, "AAAA", "+edns=0"]);
                assert!(said.contains(&format!("status: {status};")), "on {}: {said}", ground.backend());
                assert!(said.contains("Version: 0; flags: ; UDP size: 1232 B"), "on {}: {said}", ground.backend());
            }
        }
        example.end();
    }
}

#[test]
fn what_does_not_fit_a_datagram_is_asked_for_over_tcp() {
    if lacks(&["kdig"]) {
        return;
    }
    let scratch = Scratch::new();
    for ground in Ground::all() {
        let example = start(&ground, &scratch);
        let cut = kdig(&ground, &example, &["+ignore", "many.example", "A"]);
        assert!(cut.contains("Flags: qr aa tc rd;") && cut.contains("ANSWER: 0;"), "on {}: {cut}", ground.backend());
        let whole = kdig(&ground, &example, &["many.example", "A"]);
        assert!(whole.contains("ANSWER: 100;") && whole.contains("(TCP)"), "on {}: {whole}", ground.backend());
        example.end();
    }
}

#[test]
fn load_is_carried_without_a_loss() {
    if lacks(&["dnsperf"]) {
        return;
    }
    let scratch = Scratch::new();
    let questions = scratch.write("questions", b"www.example A\nweb.example A\nno.example AAAA\ntext.example TXT\n");
    for ground in Ground::all() {
        let example = start(&ground, &scratch);
        for over in ["udp", "tcp"] {
            let (ip, port) = (example.ip(), example.port());
            // So many at once that none is lost for want of room.
            let args = ["-s", &ip, "-p", &port, "-m", over, "-d", &questions, "-n", "5000", "-c", "10", "-q", "100"];
            let said = ground.said("dnsperf", &args);
            for line in ["Queries completed:    20000 (100.00%)", "NXDOMAIN 5000 (25.00%)"] {
                assert!(said.contains(line), "on {}, {over}: {said}", ground.backend());
            }
        }
        example.end();
    }
}
