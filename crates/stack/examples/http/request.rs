//! What a client asks for: the head of a request (RFC 9112), judged without I/O.

/// Longest head, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Fields in a head, at most.
const FIELDS_MAX: usize = 64;

/// Why a request isn't answered by a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400: no request, or one without the field `Host` that HTTP/1.1 asks for.
    Malformed,
    /// 404: there's no such page.
    NotFound,
    /// 405: neither GET nor HEAD.
    Method,
    /// 431: a head that is too long.
    HeadTooLong,
}

impl Refusal {
    /// Status code and reason phrase.
    pub(crate) const fn status(self) -> &'static str {
        match self {
            Self::Malformed => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::Method => "405 Method Not Allowed",
            Self::HeadTooLong => "431 Request Header Fields Too Large",
        }
    }
}

/// A whole head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    /// The path as it came, without a query.
    pub(crate) path: Result<&'a [u8], Refusal>,
    /// The head alone is wanted.
    pub(crate) head_only: bool,
    /// The connection stays open for the next request.
    pub(crate) keeps: bool,
    /// Bytes of the head.
    pub(crate) len: usize,
}

/// Looks for a head at the front of `bytes`; `None` if it isn't whole yet. After a refusal of the head itself nothing can be told of what
/// follows, so the connection isn't kept, nor is it where a body follows: nobody reads those here.
pub(crate) fn head(bytes: &[u8]) -> Option<Asked<'_>> {
    let refused = |refusal| Some(Asked { path: Err(refusal), head_only: false, keeps: false, len: bytes.len() });
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_BYTES_MAX => len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return None,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return refused(Refusal::HeadTooLong),
        Err(_) => return refused(Refusal::Malformed),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return refused(Refusal::Malformed);
    };
    let mut keeps = minor == 1;
    let (mut hosts, mut has_body) = (0, false);
    for field in request.headers.iter() {
        if field.name.eq_ignore_ascii_case("host") {
            hosts += 1;
        } else if field.name.eq_ignore_ascii_case("connection") {
            for option in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                keeps &= !option.eq_ignore_ascii_case(b"close");
                keeps |= minor == 0 && option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if field.name.eq_ignore_ascii_case("content-length") {
            has_body |= field.value != b"0";
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            has_body = true;
        }
    }
    if hosts > 1 || (minor == 1 && hosts == 0) {
        return refused(Refusal::Malformed);
    }
    let path = match (method, path_of(target)) {
        ("GET" | "HEAD", Some(path)) => Ok(path),
        ("GET" | "HEAD", None) => Err(Refusal::Malformed),
        _ => Err(Refusal::Method),
    };
    Some(Asked { path, head_only: method == "HEAD", keeps: keeps && !has_body, len })
}

/// The path of a target, in the form for servers or that for proxies (RFC 9112, section 3.2).
fn path_of(target: &str) -> Option<&[u8]> {
    let path = match target.strip_prefix("http://").or_else(|| target.strip_prefix("https://")) {
        None => target,
        Some(rest) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
    };
    let path = path.split(['?', '#']).next()?;
    if path.is_empty() { Some(b"/") } else { path.starts_with('/').then_some(path.as_bytes()) }
}

/// Writes `path` to `into` with what is encoded by percent signs decoded; false if that's wrong.
pub(crate) fn decode(path: &[u8], into: &mut Vec<u8>) -> bool {
    into.clear();
    let mut rest = path.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            into.push(*byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(*digit).to_digit(16)?.try_into().ok());
        let (Some(high), Some(low)): (Option<u8>, Option<u8>) = (digit(), digit()) else { return false };
        into.push(high << 4 | low);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    type Judged<'a> = (Result<&'a [u8], Refusal>, bool, bool);

    fn asked(text: &str) -> Option<Judged<'_>> {
        head(text.as_bytes()).map(|asked| (asked.path, asked.head_only, asked.keeps))
    }

    #[test]
    fn heads_are_read_as_http_has_them() {
        let path = |path: &'static str| Ok(path.as_bytes());
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n", None),
            ("GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\nGET", Some((path("/a"), false, true))),
            ("GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n", Some((path("/b"), false, true))),
            ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", Some((path("/"), false, true))),
            ("HEAD / HTTP/1.1\r\nhost: a\r\nConnection: x, Close\r\n\r\n", Some((path("/"), true, false))),
            ("GET / HTTP/1.0\r\n\r\n", Some((path("/"), false, false))),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Some((path("/"), false, true))),
            ("GET / HTTP/1.1\r\n\r\n", Some((Err(Refusal::Malformed), false, false))),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Some((Err(Refusal::Malformed), false, false))),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", Some((Err(Refusal::Method), false, false))),
            ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", Some((Err(Refusal::Method), false, true))),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Some((Err(Refusal::Malformed), false, false))),
            ("\0\r\n\r\n", Some((Err(Refusal::Malformed), false, false))),
        ] {
            let answer = asked(text);
            if let (Some((Err(Refusal::Malformed), ..)), Some((Err(Refusal::Malformed), ..))) = (answer, expected) {
                continue;
            }
            assert_eq!(answer, expected, "{text}");
        }
    }

    #[test]
    fn a_head_too_long_is_refused_before_it_is_whole_and_after() {
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(asked(&long), Some((Err(Refusal::HeadTooLong), false, false)));
        assert_eq!(asked(&format!("{long}\r\n\r\n")), Some((Err(Refusal::HeadTooLong), false, false)));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(FIELDS_MAX));
        assert_eq!(asked(&many), Some((Err(Refusal::HeadTooLong), false, false)));
    }

    #[test]
    fn percent_signs_are_decoded() {
        let mut into = Vec::new();
        assert!(decode(b"/a%20%c3%A4", &mut into));
        assert_eq!(into, "/a ä".as_bytes());
        assert!(!decode(b"/%2", &mut into) && !decode(b"/%zz", &mut into));
    }
}
