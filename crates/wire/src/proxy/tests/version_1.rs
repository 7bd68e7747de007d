//! Version 1: a line (§2.1).

use super::*;

fn line(rest: &str) -> Result<Option<Decoded>, DecodeError> {
    decode(format!("PROXY {rest}\r\n").as_bytes(), Accept::ANY)
}

#[test]
fn example_of_the_specification() {
    let request = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n";
    assert_eq!(accepted(request), Decoded { header: example(), version: Version::V1, len: 47 });
    assert_eq!(encode(Version::V1, &example()).as_bytes(), &request[..47]);
}

#[test]
fn longest_lines_of_the_specification() {
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let tcp4 = "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
    let tcp6 = format!("PROXY TCP6 {full} {full} 65535 65535\r\n");
    let unknown = format!("PROXY UNKNOWN {full} {full} 65535 65535\r\n");
    assert_eq!((tcp4.len(), tcp6.len(), unknown.len()), (56, 104, 107));

    assert_eq!(accepted(tcp4.as_bytes()).header, inet("255.255.255.255:65535", "255.255.255.255:65535"));
    let full = format!("[{full}]:65535");
    assert_eq!(accepted(tcp6.as_bytes()).header, inet(&full, &full));
    assert_eq!(accepted(unknown.as_bytes()), Decoded { header: Header::Local, version: Version::V1, len: 107 });
    assert_eq!(encode(Version::V1, &accepted(tcp4.as_bytes()).header).as_bytes(), tcp4.as_bytes());
    assert_eq!(encode(Version::V1, &accepted(tcp6.as_bytes()).header).as_bytes(), tcp6.as_bytes());
}

#[test]
fn unknown_ignores_the_rest_of_the_line() {
    for rest in ["UNKNOWN", "UNKNOWN ", "UNKNOWN \u{e9}\0 TCP4 1.2.3.4"] {
        let header = line(rest).unwrap().unwrap();
        assert_eq!((header.header, header.len), (Header::Local, rest.len() + 8), "{rest:?}");
    }
    for rest in ["UNKNOWNS", "UNKNOWN a\rb", "UNKNOWN a\nb", "UNKNOWN a\r\rb", "UNKNOW", "unknown"] {
        assert_eq!(line(rest), Err(DecodeError::LineMalformed), "{rest:?}");
    }
}

#[test]
fn unknown_is_too_long_once_its_end_cannot_come_within_107_bytes() {
    let line = |len: usize| format!("{:x<len$}", "PROXY UNKNOWN ");
    assert_eq!(decode(line(105).as_bytes(), Accept::ANY), Ok(None));
    assert_eq!(accepted(format!("{}\r\n", line(105)).as_bytes()).len, 107);
    assert_eq!(refused(line(106).as_bytes()), DecodeError::TooLong);
    assert_eq!(refused(format!("{}\r\n", line(106)).as_bytes()), DecodeError::TooLong);
}

#[test]
fn accepts_the_ways_to_write_an_address() {
    for (rest, header) in [
        ("TCP4 0.0.0.0 10.0.0.255 0 65535", inet("0.0.0.0:0", "10.0.0.255:65535")),
        ("TCP6 :: ::1 1 2", inet("[::]:1", "[::1]:2")),
        ("TCP6 2001:DB8::A 2001:0db8:0000::000b 1 2", inet("[2001:db8::a]:1", "[2001:db8::b]:2")),
        // What inet_ntop makes of mapped addresses; IPv4 to us, as both are.
        ("TCP6 ::ffff:1.2.3.4 ::ffff:102:305 1 2", inet("1.2.3.4:1", "1.2.3.5:2")),
        ("TCP6 ::ffff:1.2.3.4 2001:db8::1 1 2", inet("[::ffff:1.2.3.4]:1", "[2001:db8::1]:2")),
    ] {
        assert_eq!(line(rest).unwrap().unwrap().header, header, "{rest}");
    }
}

#[test]
fn refuses_what_departs_from_the_form() {
    for rest in [
        // Protocol and spaces.
        "",
        "TCP",
        "TCP5 1.2.3.4 1.2.3.4 1 2",
        "tcp4 1.2.3.4 1.2.3.4 1 2",
        "UDP4 1.2.3.4 1.2.3.4 1 2",
        " TCP4 1.2.3.4 1.2.3.4 1 2",
        "TCP4  1.2.3.4 1.2.3.4 1 2",
        "TCP4 1.2.3.4  1.2.3.4 1 2",
        "TCP4 1.2.3.4 1.2.3.4  1 2",
        "TCP4 1.2.3.4 1.2.3.4 1  2",
        "TCP4 1.2.3.4 1.2.3.4 1 2 ",
        "TCP4\t1.2.3.4 1.2.3.4 1 2",
        "TCP4 1.2.3.4 1.2.3.4 1",
        "TCP4 1.2.3.4 1.2.3.4 1 2 3",
        // IPv4 addresses.
        "TCP4 1.2.3 1.2.3.4 1 2",
        "TCP4 1.2.3.4.5 1.2.3.4 1 2",
        "TCP4 1.2.3.256 1.2.3.4 1 2",
        "TCP4 01.2.3.4 1.2.3.4 1 2",
        "TCP4 1.2.3.4 1.2.3.00 1 2",
        "TCP4 0x1.2.3.4 1.2.3.4 1 2",
        "TCP4 ::1 ::1 1 2",
        // IPv6 addresses.
        "TCP6 1.2.3.4 1.2.3.4 1 2",
        "TCP6 ::1 1.2.3.4 1 2",
        "TCP6 :::1 ::1 1 2",
        "TCP6 1::2::3 ::1 1 2",
        "TCP6 1:2:3:4:5:6:7 ::1 1 2",
        "TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2",
        "TCP6 ::00001 ::1 1 2",
        "TCP6 fe80::1%eth0 ::1 1 2",
        "TCP6 [::1] ::1 1 2",
        "TCP6 ::g ::1 1 2",
        "TCP6 0000:0000:0000:0000:0000:ffff:255.255.255.255 ::1 1 2",
        // Ports.
        "TCP4 1.2.3.4 1.2.3.4 65536 2",
        "TCP4 1.2.3.4 1.2.3.4 1 99999",
        "TCP4 1.2.3.4 1.2.3.4 100000 2",
        "TCP4 1.2.3.4 1.2.3.4 01 2",
        "TCP4 1.2.3.4 1.2.3.4 1 00",
        "TCP4 1.2.3.4 1.2.3.4 -1 2",
        "TCP4 1.2.3.4 1.2.3.4 +1 2",
        "TCP4 1.2.3.4 1.2.3.4 1 ",
        // Line ends.
        "TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "TCP4 1.2.3.4 1.2.3.4 1 2\r",
    ] {
        assert_eq!(line(rest), Err(DecodeError::LineMalformed), "{rest:?}");
    }
}

#[test]
fn says_unknown_of_what_it_cannot_say() {
    let path = UnixPath::new(b"/run/socket").unwrap();
    for header in [Header::Local, Header::Unix { source: path, destination: path }] {
        assert_eq!(encode(Version::V1, &header).as_bytes(), b"PROXY UNKNOWN\r\n");
    }
}

#[test]
fn writes_mapped_addresses_without_a_dot() {
    let header = Header::inet("1.2.3.4:5".parse().unwrap(), "[2001:db8::1]:6".parse().unwrap());
    let encoded = encode(Version::V1, &header);
    assert_eq!(encoded.as_bytes(), b"PROXY TCP6 ::ffff:102:304 2001:db8::1 5 6\r\n");
}
