//! What each framer should say of a whole stream, by the plainest means: the stream is taken apart byte by byte, from front to back,
//! with all of it at hand.

use std::iter::from_fn;

use super::*;

/// Why a message couldn't be taken off a stream.
#[derive(Debug)]
enum Stop {
    /// The stream ends first.
    More,
    Bad,
}

/// The lengths of a stream's messages, and whether something behind them is none.
pub(super) fn tell(framing: &Framing, stream: &[u8]) -> (Vec<usize>, Result<(), ()>) {
    let (mut rest, mut lens) = (stream, Vec::new());
    loop {
        let len_max = framing.len_max();
        let mut input = Input { bytes: rest, at: 0, len_max };
        match message(framing, &mut input) {
            Ok(()) => {
                lens.push(input.at);
                rest = &rest[input.at..];
            }
            Err(Stop::More) => return (lens, Ok(())),
            Err(Stop::Bad) => return (lens, Err(())),
        }
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
    len_max: usize,
}

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, Stop> {
        if self.at >= self.len_max {
            return Err(Stop::Bad);
        }
        let byte = *self.bytes.get(self.at).ok_or(Stop::More)?;
        self.at += 1;
        // Who has as many bytes as are allowed and still no end is told at once.
        Ok(byte)
    }

    fn skip(&mut self, bytes: u128) -> Result<(), Stop> {
        if bytes > (self.len_max - self.at) as u128 {
            return Err(Stop::Bad);
        }
        if bytes > (self.bytes.len() - self.at) as u128 {
            return Err(Stop::More);
        }
        self.at += usize::try_from(bytes).unwrap();
        Ok(())
    }

    /// Up to a line feed, which is left out.
    fn line(&mut self) -> Result<Vec<u8>, Stop> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                byte => line.push(byte),
            }
        }
    }

    fn expect(&mut self, text: &[u8]) -> Result<(), Stop> {
        text.iter().try_for_each(|&wanted| if self.byte()? == wanted { Ok(()) } else { Err(Stop::Bad) })
    }
}

fn message(framing: &Framing, input: &mut Input) -> Result<(), Stop> {
    match framing {
        Framing::Dns => length(&LengthPrefix::DNS, input),
        Framing::Length(prefix) => length(prefix, input),
        Framing::Varint(prefix) => varint(prefix.offset, input),
        Framing::Line(_) => input.full(|input| input.line().map(drop)),
        Framing::Resp(Resp { side: Side::Answers, .. }) => input.full(answer),
        Framing::Resp(Resp { side: Side::Commands, .. }) => input.full(command),
        Framing::Program(known) => {
            let is = |file| **known == Program::parse(file, known.len_max()).unwrap();
            input.full(|input| match () {
                () if is(MQTT_PROGRAM) => varint(1, input),
                () if is(HTTP2_PROGRAM) => http2(input),
                () => dns(input),
            })
        }
    }
}

impl Input<'_> {
    /// Takes a message whose framer doesn't wait for more once as many bytes have come as it may have.
    fn full(&mut self, message: impl FnOnce(&mut Self) -> Result<(), Stop>) -> Result<(), Stop> {
        match message(self) {
            Err(Stop::More) if self.bytes.len() >= self.len_max => Err(Stop::Bad),
            other => other,
        }
    }
}

fn length(prefix: &LengthPrefix, input: &mut Input) -> Result<(), Stop> {
    // A length field that lies beyond the limit is still waited for.
    let head = prefix.offset as u128 + prefix.width.bytes() as u128;
    if head > input.bytes.len() as u128 {
        return Err(Stop::More);
    }
    let mut field = input.bytes[prefix.offset..][..prefix.width.bytes()].to_vec();
    if prefix.order == Order::Big {
        field.reverse();
    }
    field.resize(16, 0);
    let value = i128::from_le_bytes(field.try_into().unwrap());
    let rest = u128::try_from(value + i128::from(prefix.adjust)).map_err(|_| Stop::Bad)?;
    input.skip(head + rest)
}

fn varint(offset: usize, input: &mut Input) -> Result<(), Stop> {
    let len_max = std::mem::replace(&mut input.len_max, usize::MAX);
    input.skip(offset as u128)?;
    let mut digits = Vec::new();
    loop {
        let byte = input.byte()?;
        digits.push(u128::from(byte % 128));
        if byte < 128 {
            break;
        }
        if digits.len() == 4 {
            return Err(Stop::Bad);
        }
    }
    input.len_max = len_max;
    let value = digits.iter().rev().fold(0, |value, digit| value * 128 + digit);
    let head = std::mem::take(&mut input.at) as u128;
    input.skip(head + value)
}

fn http2(input: &mut Input) -> Result<(), Stop> {
    let head: Vec<u8> = from_fn(|| input.byte().ok()).take(3).collect();
    let [a, b, c] = head[..] else { return Err(Stop::More) };
    let len = u32::from_be_bytes([0, a, b, c]);
    if len > 16_384 {
        return Err(Stop::Bad);
    }
    input.at = 0;
    input.skip(9 + u128::from(len))
}

fn dns(input: &mut Input) -> Result<(), Stop> {
    let len = u16::from_be_bytes([input.byte()?, input.byte()?]);
    input.skip(len.into())
}

fn answer(input: &mut Input) -> Result<(), Stop> {
    match input.byte()? {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => match input.line()?.split_last() {
            Some((b'\r', body)) if !body.contains(&b'\r') => Ok(()),
            _ => Err(Stop::Bad),
        },
        kind @ (b'$' | b'!' | b'=') => match number(input, kind == b'$')? {
            Some(bytes) => text(input, bytes),
            None => Ok(()),
        },
        kind @ (b'*' | b'~' | b'>') => {
            let entries = number(input, kind == b'*')?.unwrap_or(0);
            answers(input, entries)
        }
        b'%' => {
            let entries = number(input, false)?.unwrap_or(0);
            answers(input, entries.saturating_mul(2))
        }
        b'|' => {
            let entries = number(input, false)?.unwrap_or(0);
            answers(input, entries.saturating_mul(2))?;
            answer(input)
        }
        _ => Err(Stop::Bad),
    }
}

fn answers(input: &mut Input, count: u128) -> Result<(), Stop> {
    (0..count).try_for_each(|_| answer(input))
}

fn text(input: &mut Input, bytes: u128) -> Result<(), Stop> {
    input.skip(bytes)?;
    input.expect(b"\r\n")
}

fn number(input: &mut Input, nullable: bool) -> Result<Option<u128>, Stop> {
    let mut digits = Vec::new();
    loop {
        match input.byte()? {
            b'-' if nullable && digits.is_empty() => return input.expect(b"1\r\n").map(|()| None),
            b'\r' if !digits.is_empty() => break,
            digit if digit.is_ascii_digit() && digits != [0] => digits.push(digit - b'0'),
            _ => return Err(Stop::Bad),
        }
    }
    input.expect(b"\n")?;
    Ok(Some(digits.iter().fold(0, |number: u128, &digit| number.saturating_mul(10).saturating_add(digit.into()))))
}

fn command(input: &mut Input) -> Result<(), Stop> {
    loop {
        if input.byte()? == b'*' {
            let strings = number(input, true)?.unwrap_or(0);
            for _ in 0..strings {
                input.expect(b"$")?;
                let bytes = number(input, false)?.unwrap_or(0);
                text(input, bytes)?;
            }
            if strings > 0 {
                return Ok(());
            }
        } else {
            input.at -= 1;
            let line = input.line()?;
            if line.contains(&0) {
                return Err(Stop::Bad);
            }
            if line.iter().any(|byte| !b" \t\r\x0b\x0c".contains(byte)) {
                return Ok(());
            }
        }
    }
}
