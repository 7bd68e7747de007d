//! The data path does not allocate: a counting allocator sees nothing of decode, encode and the TLVs.

use allocation_counter::measure;
use midmile_wire::proxy::{Accept, Header, UnixPath, Version, decode, encode, tlvs};

#[test]
fn proxy_decodes_and_encodes_without_allocating() {
    let path = UnixPath::new(b"/run/socket").unwrap();
    let headers = [
        Header::Local,
        Header::inet("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap()),
        Header::inet("192.0.2.1:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap()),
        Header::inet("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap()),
        Header::Unix { source: path, destination: path },
    ];
    let mut headers_seen = 0;
    let counted = measure(|| {
        for header in &headers {
            for version in [Version::V1, Version::V2] {
                let encoded = encode(version, header);
                let bytes = encoded.as_bytes();
                for end in 0..=bytes.len() {
                    headers_seen += usize::from(matches!(decode(&bytes[..end], Accept::ANY), Ok(Some(_))));
                }
                headers_seen += tlvs(bytes).count();
            }
        }
        headers_seen += usize::from(decode(b"GET / HTTP/1.1\r\n", Accept::ANY).is_ok());
    });
    assert_eq!((headers_seen, counted.count_total), (2 * headers.len(), 0));

    let control = measure(|| drop(std::hint::black_box(Box::new(0_u8))));
    assert_eq!(control.count_total, 1, "the counter counts");
}
