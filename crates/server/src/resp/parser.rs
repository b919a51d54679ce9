//! The parser of requests: multibulk and inline, pipelined, resumable at every byte.
//!
//! Nothing is copied: a command is a run of [`Span`]s into the connection's input. A command that has not arrived whole is kept as spans
//! too, so that its bytes are looked at once however many reads bring them. Follows `networking.c` of Redis 7.2 in what it takes, in what
//! it refuses, and in the texts.

use super::inline;
use memchr::memchr;
use std::fmt;

/// Longest line: an inline request, or the count in front of a multibulk or a bulk. Redis' `PROTO_INLINE_MAX_SIZE`.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Words of one command at most.
pub(crate) const WORDS_MAX: i64 = 1024 * 1024;

/// What a client that has not given the password may send: Redis' limits against filling memory unauthenticated.
const UNAUTHENTICATED_WORDS_MAX: i64 = 10;
const UNAUTHENTICATED_BULK_BYTES_MAX: i64 = 16 * 1024;

/// Commands that one call of [`Parser::parse`] splits off at most, so that what it needs of memory is bounded.
const COMMANDS_MAX: usize = 4096;

/// A word's place in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What the input may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Longest bulk, bytes (`proto-max-bulk-len`).
    pub(crate) bulk_bytes_max: u64,
    /// Whether the password has been given, if there is one.
    pub(crate) authenticated: bool,
}

/// The input is not the Redis protocol; the connection can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProtocolError(String);

impl ProtocolError {
    fn new(text: impl Into<String>) -> ProtocolError {
        ProtocolError(text.into())
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERR Protocol error: {}", self.0)
    }
}

/// The commands of one input, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    spans: Vec<Span>,
    /// For each command the end of its words in `spans`.
    ends: Vec<usize>,
}

impl Batch {
    /// Forgets all commands; keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.spans.clear();
        self.ends.clear();
    }

    /// Number of commands.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The words of all commands, one after the other.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// For each command the end of its words among [`spans`](Batch::spans).
    pub(crate) fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// Lets go of memory that an unusual input took.
    pub(crate) fn shrink(&mut self) {
        self.spans.shrink_to(256);
        self.ends.shrink_to(64);
    }

    fn open_words(&self) -> usize {
        self.spans.len() - self.ends.last().copied().unwrap_or(0)
    }

    fn finish_command(&mut self) {
        // A multibulk of no words and an empty line are no commands.
        if self.open_words() > 0 {
            self.ends.push(self.spans.len());
        }
    }
}

/// Where parsing of an incomplete command stands. Offsets count from the first byte of that command.
#[derive(Debug, Default)]
struct Partial {
    words: Vec<Span>,
    /// Words still to come; `None` before the multibulk's count is known.
    missing: Option<usize>,
    /// The length of the bulk at `at`, once its count is known.
    bulk: Option<usize>,
    /// The first byte that has not been understood.
    at: usize,
}

/// What came of one attempt at a command.
enum Step {
    Complete(usize),
    Incomplete,
}

/// The parser of one connection.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    partial: Partial,
}

/// What [`Parser::parse`] made of an input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// Bytes of whole commands: they may be dropped once the commands have been executed. The next input starts right behind them.
    pub(crate) consumed: usize,
    /// Whether more whole commands may be waiting in this very input.
    pub(crate) more: bool,
    /// Set if the connection must be closed after the commands that came before it.
    pub(crate) error: Option<ProtocolError>,
}

impl Parser {
    /// Adds the whole commands of `input` to `batch`. `input` begins where the last call's `consumed` ended. Escapes in quoted inline words are
    /// resolved in place, hence the `&mut`.
    pub(crate) fn parse(&mut self, input: &mut [u8], limits: Limits, batch: &mut Batch) -> Parsed {
        let mut consumed = 0;
        let failed = |consumed, error| Parsed { consumed, more: false, error: Some(error) };
        while consumed < input.len() {
            if batch.len() >= COMMANDS_MAX {
                return Parsed { consumed, more: true, error: None };
            }
            let step = if self.partial.missing.is_some() || input.get(consumed) == Some(&b'*') {
                self.multibulk(input, consumed, limits, batch)
            } else {
                inline_command(input, consumed, batch)
            };
            match step {
                Ok(Step::Complete(end)) => consumed = end,
                Ok(Step::Incomplete) => break,
                Err(error) => {
                    batch.spans.truncate(batch.ends.last().copied().unwrap_or(0));
                    return failed(consumed, error);
                }
            }
        }
        Parsed { consumed, more: false, error: None }
    }

    fn multibulk(
        &mut self,
        input: &[u8],
        base: usize,
        limits: Limits,
        batch: &mut Batch,
    ) -> Result<Step, ProtocolError> {
        let mut at = base + self.partial.at;
        let mut missing = match self.partial.missing {
            Some(missing) => missing,
            None => match count(input, base, LineKind::Multibulk)? {
                None => return Ok(Step::Incomplete),
                Some((words, next)) => {
                    at = next;
                    words_allowed(words, limits)?
                }
            },
        };
        let mut bulk = self.partial.bulk.take();
        batch
            .spans
            .extend(self.partial.words.drain(..).map(|w| Span { start: w.start + base, end: w.end + base }));
        while missing > 0 {
            let length = match bulk.take() {
                Some(length) => length,
                None => match bulk_count(input, at, limits)? {
                    Some((length, next)) => {
                        at = next;
                        length
                    }
                    None => return Ok(self.suspend(batch, base, at, missing, None)),
                },
            };
            if input.len() - at < length + 2 {
                return Ok(self.suspend(batch, base, at, missing, Some(length)));
            }
            batch.spans.push(Span { start: at, end: at + length });
            at += length + 2;
            missing -= 1;
        }
        self.partial = Partial { words: std::mem::take(&mut self.partial.words), ..Partial::default() };
        batch.finish_command();
        Ok(Step::Complete(at))
    }

    /// Keeps the words of the incomplete command for the next input.
    fn suspend(
        &mut self,
        batch: &mut Batch,
        base: usize,
        at: usize,
        missing: usize,
        bulk: Option<usize>,
    ) -> Step {
        let whole = batch.ends.last().copied().unwrap_or(0);
        let words = batch.spans.drain(whole..).map(|w| Span { start: w.start - base, end: w.end - base });
        self.partial.words.extend(words);
        self.partial.at = at - base;
        self.partial.missing = Some(missing);
        self.partial.bulk = bulk;
        Step::Incomplete
    }
}

/// Which count stands on a line.
#[derive(Clone, Copy)]
enum LineKind {
    Multibulk,
    Bulk,
}

/// The count behind the type byte at `at`, and the first byte behind its line; `None` while the line is incomplete. Errors are those of a
/// count that is none.
fn count(input: &[u8], at: usize, kind: LineKind) -> Result<Option<(i64, usize)>, ProtocolError> {
    let rest = input.get(at + 1..).unwrap_or_default();
    let Some(length) = memchr(b'\r', rest.get(..LINE_BYTES_MAX).unwrap_or(rest)) else {
        if rest.len() >= LINE_BYTES_MAX {
            return Err(ProtocolError::new(match kind {
                LineKind::Multibulk => "too big mbulk count string",
                LineKind::Bulk => "too big bulk count string",
            }));
        }
        return Ok(None);
    };
    // The line feed must be there too, whatever it is.
    if rest.len() < length + 2 {
        return Ok(None);
    }
    let number = rest.get(..length).and_then(integer).ok_or_else(|| {
        ProtocolError::new(match kind {
            LineKind::Multibulk => "invalid multibulk length",
            LineKind::Bulk => "invalid bulk length",
        })
    })?;
    Ok(Some((number, at + 1 + length + 2)))
}

fn words_allowed(words: i64, limits: Limits) -> Result<usize, ProtocolError> {
    if words > WORDS_MAX {
        return Err(ProtocolError::new("invalid multibulk length"));
    }
    if words > UNAUTHENTICATED_WORDS_MAX && !limits.authenticated {
        return Err(ProtocolError::new("unauthenticated multibulk length"));
    }
    Ok(usize::try_from(words).unwrap_or(0))
}

fn bulk_count(input: &[u8], at: usize, limits: Limits) -> Result<Option<(usize, usize)>, ProtocolError> {
    match input.get(at) {
        None => return Ok(None),
        Some(b'$') => {}
        Some(other) => {
            let shown = char::from(if other.is_ascii_graphic() { *other } else { b'?' });
            return Err(ProtocolError::new(format!("expected '$', got '{shown}'")));
        }
    }
    let Some((length, next)) = count(input, at, LineKind::Bulk)? else { return Ok(None) };
    let bytes = usize::try_from(length).ok().filter(|_| length.unsigned_abs() <= limits.bulk_bytes_max);
    let bytes = bytes.ok_or_else(|| ProtocolError::new("invalid bulk length"))?;
    if length > UNAUTHENTICATED_BULK_BYTES_MAX && !limits.authenticated {
        return Err(ProtocolError::new("unauthenticated bulk length"));
    }
    Ok(Some((bytes, next)))
}

/// A decimal integer as Redis' `string2ll` takes it: no sign but `-`, no leading zeros, no spaces, within 64 bits.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [] => return None,
        [b'0'] if !negative => return Some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let mut value: i64 = 0;
    for digit in digits {
        let digit = i64::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?);
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}

fn inline_command(input: &mut [u8], base: usize, batch: &mut Batch) -> Result<Step, ProtocolError> {
    let rest = input.get(base..).unwrap_or_default();
    let Some(length) = memchr(b'\n', rest.get(..=LINE_BYTES_MAX).unwrap_or(rest)) else {
        if rest.len() > LINE_BYTES_MAX {
            return Err(ProtocolError::new("too big inline request"));
        }
        return Ok(Step::Incomplete);
    };
    let mut line = base + length;
    if length > 0 && input.get(line - 1) == Some(&b'\r') {
        line -= 1;
    }
    let line = input.get_mut(base..line).unwrap_or_default();
    inline::split(line, |start, end| batch.spans.push(Span { start: base + start, end: base + end }))
        .map_err(|_| ProtocolError::new("unbalanced quotes in request"))?;
    batch.finish_command();
    Ok(Step::Complete(base + length + 1))
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
