//! What a header can say, whatever the format.

use super::*;

#[test]
fn inet_is_in_normal_form() {
    for (source, destination, expected) in [
        ("1.2.3.4:5", "6.7.8.9:10", inet("1.2.3.4:5", "6.7.8.9:10")),
        ("[::ffff:1.2.3.4]:5", "6.7.8.9:10", inet("1.2.3.4:5", "6.7.8.9:10")),
        ("1.2.3.4:5", "[::ffff:6.7.8.9]:10", inet("1.2.3.4:5", "6.7.8.9:10")),
        ("[::ffff:1.2.3.4]:5", "[::ffff:6.7.8.9]:10", inet("1.2.3.4:5", "6.7.8.9:10")),
        ("1.2.3.4:5", "[2001:db8::1]:10", inet("[::ffff:1.2.3.4]:5", "[2001:db8::1]:10")),
        ("[2001:db8::1]:5", "6.7.8.9:10", inet("[2001:db8::1]:5", "[::ffff:6.7.8.9]:10")),
        ("[fe80::1%3]:5", "[fe80::2%3]:10", inet("[fe80::1]:5", "[fe80::2]:10")),
        // IPv4-compatible addresses (RFC 4291, 2.5.5.1) are IPv6.
        ("[::1.2.3.4]:5", "6.7.8.9:10", inet("[::1.2.3.4]:5", "[::ffff:6.7.8.9]:10")),
    ] {
        assert_eq!(Header::inet(source.parse().unwrap(), destination.parse().unwrap()), expected);
    }
}

#[test]
fn mixed_families_that_bypassed_the_constructor_are_sent_as_ipv6() {
    let header = inet("1.2.3.4:5", "[2001:db8::1]:6");
    for version in [Version::V1, Version::V2] {
        let decoded = accepted(encode(version, &header).as_bytes());
        assert_eq!(decoded.header, inet("[::ffff:1.2.3.4]:5", "[2001:db8::1]:6"));
    }
}

#[test]
fn unix_path_names() {
    let full = [b'x'; 108];
    for name in [&b""[..], b"/run/socket", b"\0abstract", b"\0a\0b", &full] {
        assert_eq!(UnixPath::new(name).unwrap().name(), name);
    }
    assert_eq!(UnixPath::new(&[b'x'; 109]), None);
    assert_eq!(UnixPath::new(b"/run\0junk").unwrap().name(), b"/run");
    assert_eq!(UnixPath::UNNAMED.name(), b"");
}
