//! Domain names as they stand in messages (RFC 1035, section 3.1): labels with their lengths in front, the root's at the end. All are in
//! lower case here, for names are compared without regard to it (RFC 4343).

/// Longest name, in bytes, with all lengths.
pub(crate) const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;

/// A name taken from a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    len: usize,
}

impl Name {
    /// The name at the front of `bytes`, if it's whole and not compressed.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut at = 0;
        loop {
            let label = usize::from(*bytes.get(at)?);
            if label > LABEL_BYTES_MAX {
                return None;
            }
            at += 1 + label;
            if label == 0 {
                break;
            }
        }
        let mut name = Self { bytes: [0; NAME_BYTES_MAX], len: at };
        name.bytes.get_mut(..at)?.copy_from_slice(&bytes[..at]);
        // Lengths are below the letters.
        name.bytes[..at].make_ascii_lowercase();
        Some(name)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The name without its first label; `None` of the root.
pub(crate) fn parent(name: &[u8]) -> Option<&[u8]> {
    let label = usize::from(*name.first()?);
    if label == 0 { None } else { name.get(1 + label..) }
}

/// Whether `name` is `origin` or below it.
pub(crate) fn is_within(name: &[u8], origin: &[u8]) -> bool {
    let mut rest = Some(name);
    while let Some(name) = rest {
        if name == origin {
            return true;
        }
        rest = parent(name);
    }
    false
}

/// The name that `text` says in a master file (RFC 1035, section 5.1), below `origin` where it has no dot at its end.
pub(crate) fn parse(text: &str, origin: &[u8]) -> Result<Vec<u8>, &'static str> {
    if text == "@" {
        return Ok(origin.to_vec());
    }
    if text == "." {
        return Ok(vec![0]);
    }
    let (mut name, mut label) = (Vec::new(), Vec::new());
    let mut is_whole = false;
    let mut chars = text.bytes();
    while let Some(byte) = chars.next() {
        is_whole = byte == b'.';
        match byte {
            b'.' => end_label(&mut name, &mut label)?,
            b'\\' => label.push(escaped(&mut chars)?),
            byte => label.push(byte.to_ascii_lowercase()),
        }
    }
    if is_whole {
        name.push(0);
    } else {
        end_label(&mut name, &mut label)?;
        name.extend_from_slice(origin);
    }
    if name.len() > NAME_BYTES_MAX { Err("a name is longer than 255 bytes") } else { Ok(name) }
}

fn end_label(name: &mut Vec<u8>, label: &mut Vec<u8>) -> Result<(), &'static str> {
    match u8::try_from(label.len()) {
        Ok(len @ 1..=63) => {
            name.push(len);
            name.append(label);
            Ok(())
        }
        _ => Err("a label has no bytes, or more than 63"),
    }
}

/// What stands behind a backslash: three digits, or the byte itself.
fn escaped(rest: &mut impl Iterator<Item = u8>) -> Result<u8, &'static str> {
    const WRONG: &str = "a backslash isn't followed by a byte or by three digits below 256";
    let first = rest.next().ok_or(WRONG)?;
    if !first.is_ascii_digit() {
        return Ok(first.to_ascii_lowercase());
    }
    let mut number = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = rest.next().filter(u8::is_ascii_digit).ok_or(WRONG)?;
        number = 10 * number + u16::from(digit - b'0');
    }
    u8::try_from(number).map(|byte| byte.to_ascii_lowercase()).map_err(|_| WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_lower_case_and_only_whole() {
        let wire = b"\x03WwW\x07example\0rest";
        assert_eq!(Name::read(wire).unwrap().as_bytes(), b"\x03www\x07example\0");
        for len in 0..13 {
            assert!(Name::read(&wire[..len]).is_none());
        }
        assert!(Name::read(b"\xC0\x0C").is_none());
        let long = [&[63_u8][..], &[b'a'; 63]].concat().repeat(4);
        assert!(Name::read(&[&long[..], &[0]].concat()).is_none());
    }

    #[test]
    fn names_of_a_file_end_with_the_origin_or_a_dot() {
        let origin = b"\x07example\0";
        assert_eq!(parse("www", origin).unwrap(), b"\x03www\x07example\0");
        assert_eq!(parse("WWW.other.", origin).unwrap(), b"\x03www\x05other\0");
        assert_eq!(parse("@", origin).unwrap(), origin);
        assert_eq!(parse(r"a\.b\065", origin).unwrap(), b"\x04a.ba\x07example\0");
        for wrong in ["", "a..b", r"a\", r"a\2", r"a\999", &"a".repeat(64)] {
            assert!(parse(wrong, origin).is_err(), "{wrong}");
        }
        assert!(is_within(b"\x03www\x07example\0", origin) && is_within(origin, origin));
        assert!(!is_within(b"\x08xexample\0", origin) && !is_within(b"\0", origin));
    }
}
