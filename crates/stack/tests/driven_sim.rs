//! The examples in the simulation: what they answer is the same in any world of faults.

mod driven;

use driven::{Scratch, noise, simulated};

const SEEDS: std::ops::Range<u64> = 1..17;

#[test]
fn what_is_sent_comes_back() {
    let bytes = noise(20_000);
    for seed in SEEDS {
        assert!(simulated("echo", &[], seed, &bytes) == bytes, "seed {seed}");
    }
}

#[test]
fn commands_are_answered_in_order() {
    let asked = b"SET name value\r\nGET name\r\nINCR count\r\nINCR count\r\nGET none\r\nDEL name count\r\n";
    for seed in SEEDS {
        let heard = simulated("cache", &["--memory", "1"], seed, asked);
        assert_eq!(String::from_utf8_lossy(&heard), "+OK\r\n$5\r\nvalue\r\n:1\r\n:2\r\n$-1\r\n:2\r\n", "seed {seed}");
    }
}

#[test]
fn pages_are_served() {
    let site = Scratch::new();
    site.write("index.html", b"<p>hello</p>\n");
    let asked = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n";
    for seed in SEEDS {
        let heard = simulated("http", &[site.path().to_str().unwrap()], seed, asked);
        let heard = String::from_utf8(heard).unwrap();
        let (page, none) = heard.split_once("<p>hello</p>\n").unwrap();
        assert!(page.starts_with("HTTP/1.1 200 ") && none.starts_with("HTTP/1.1 404 "), "seed {seed}: {heard}");
    }
}

#[test]
fn questions_are_answered() {
    let scratch = Scratch::new();
    let zone = scratch
        .write("zone", b"$ORIGIN example.\n$TTL 1h\n@ SOA ns hostmaster 1 1h 10m 1w 5m\n  NS ns\nns A 192.0.2.1\n");
    // Two questions for ns.example's address, as TCP has them: a length, a header, the name, the type, the class.
    let question =
        |id| [&[0, 28, id, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x02ns\x07example\0\0\x01\0\x01"].concat();
    for seed in SEEDS {
        let heard = simulated("dns", &[&zone], seed, &[question(7), question(9)].concat());
        let (first, second) = heard.split_at(2 + usize::from(u16::from_be_bytes([heard[0], heard[1]])));
        for (answer, id) in [(first, 7), (second, 9)] {
            assert_eq!(answer[2..4], [id, id], "seed {seed}");
            assert!(answer.ends_with(&[0, 4, 192, 0, 2, 1]), "seed {seed}: {answer:?}");
        }
    }
}
