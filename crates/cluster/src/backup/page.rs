//! The page of a backup, drawn:
//!
//! ```text
//! kvorum backup 1
//! store 7f3a…                                   32 hexadecimal digits: the store that it was taken of
//! epoch 5                                       the epoch that it ran in
//! sequence 81234                                all writes up to here are in it
//! taken 1790000000000                           Unix milliseconds
//! program 0.1.0                                 what took it
//! file 1048576 0123…cdef tables/000000000007.sst       length, XXH3 (128 bits), name; sorted by name
//! …
//! end 12 73400320 89ab…4567                     files, bytes of all, XXH3 (128 bits) of all lines above
//! ```
//!
//! The last line makes the page as safe as the files that it names, so one page holds the hash of the whole.

use super::files::Hasher;
use std::io::{self, BufRead, Read as _};

/// Longest page, in bytes: that of half a million files.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// Longest line of a page, in bytes.
const LINE_BYTES_MAX: u64 = 512;

const FIRST_LINE: &str = "kvorum backup 1";

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The id of the store that it was taken of: 32 hexadecimal digits.
    pub store_id: String,
    /// The epoch that the store was in.
    pub epoch: u64,
    /// All writes up to this sequence of the store are in it.
    pub sequence: u64,
    /// When it was taken, by the node's time: Unix milliseconds.
    pub taken_ms: u64,
    /// The version of the program that took it.
    pub program: String,
    /// The store's files, sorted by name.
    pub files: Vec<BackupFile>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFile {
    /// Its name below the store's folder, slashes between the parts.
    pub name: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// XXH3 of its bytes, 128 bits.
    pub hash: u128,
}

impl Page {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The page as it is written and sent.
    pub fn text(&self) -> String {
        let Page { store_id, epoch, sequence, taken_ms, program, files } = self;
        let mut text = format!(
            "{FIRST_LINE}\nstore {store_id}\nepoch {epoch}\nsequence {sequence}\ntaken {taken_ms}\nprogram {program}\n"
        );
        for file in files {
            text.push_str(&format!("file {} {:032x} {}\n", file.bytes, file.hash, file.name));
        }
        let mut hasher = Hasher::new();
        hasher.update(text.as_bytes());
        text.push_str(&format!("end {} {} {:032x}\n", files.len(), self.bytes(), hasher.finish()));
        text
    }

    /// Reads a page up to its last line, and no further.
    ///
    /// # Errors
    /// What is wrong with it: `InvalidData`, `UnexpectedEof`; or the error of the input.
    pub fn read(input: &mut dyn BufRead) -> io::Result<Page> {
        let mut lines = Lines { input, hasher: Hasher::new(), bytes: 0 };
        if lines.next()? != FIRST_LINE {
            return Err(wrong(format!(
                "it does not begin with {FIRST_LINE:?}: no backup, or of a newer program"
            )));
        }
        let store_id = lines.field("store")?;
        if store_id.len() != 32 || !store_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong(format!("the store's id is {store_id:?}")));
        }
        let mut page = Page {
            store_id,
            epoch: number(&lines.field("epoch")?)?,
            sequence: number(&lines.field("sequence")?)?,
            taken_ms: number(&lines.field("taken")?)?,
            program: lines.field("program")?,
            files: Vec::new(),
        };
        let mut sum: u64 = 0;
        loop {
            let hash = lines.hasher.finish();
            let line = lines.next()?;
            match line.split_once(' ') {
                Some(("file", rest)) => {
                    let file = parse_file(rest)?;
                    let too_long = || wrong(format!("{:?} is too long", file.name));
                    sum = sum.checked_add(file.bytes).ok_or_else(too_long)?;
                    page.add(file)?;
                }
                Some(("end", rest)) => {
                    let wanted = format!("{} {sum} {hash:032x}", page.files.len());
                    if rest != wanted {
                        return Err(wrong(format!("its last line says {rest:?}, its lines give {wanted:?}")));
                    }
                    return Ok(page);
                }
                _ => return Err(wrong(format!("an unknown line: {line:?}"))),
            }
        }
    }

    fn add(&mut self, file: BackupFile) -> io::Result<()> {
        if self.files.last().is_some_and(|last| last.name >= file.name) {
            return Err(wrong(format!("{:?} is out of order", file.name)));
        }
        self.files.push(file);
        Ok(())
    }
}

fn parse_file(rest: &str) -> io::Result<BackupFile> {
    let mut words = rest.splitn(3, ' ');
    let (Some(bytes), Some(hash), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err(wrong(format!("not a file's line: {rest:?}")));
    };
    let hash = u128::from_str_radix(hash, 16).ok().filter(|_| hash.len() == 32);
    let hash = hash.ok_or_else(|| wrong(format!("not a file's hash: {rest:?}")))?;
    if !is_safe(name) {
        return Err(wrong(format!("not a name of a store's file: {name:?}")));
    }
    Ok(BackupFile { name: name.to_owned(), bytes: number(bytes)?, hash })
}

/// Whether a name from a page stays within the folder it is written to.
fn is_safe(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let part_fits = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    name.split('/').count() <= 2 && name.split('/').all(part_fits)
}

fn number(text: &str) -> io::Result<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = text.parse().ok().filter(|_| digits);
    parsed.ok_or_else(|| wrong(format!("{text:?} is no number")))
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Lines of a page, hashed as they are read.
struct Lines<'i> {
    input: &'i mut dyn BufRead,
    hasher: Hasher,
    bytes: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut *self.input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        self.hasher.update(&line);
        self.bytes += line.len() as u64;
        if line.pop() != Some(b'\n') {
            let long = line.len() as u64 >= LINE_BYTES_MAX - 1;
            let kind = if long { io::ErrorKind::InvalidData } else { io::ErrorKind::UnexpectedEof };
            return Err(io::Error::new(kind, "it ends in the middle"));
        }
        if self.bytes > PAGE_BYTES_MAX {
            return Err(wrong(format!("it is longer than {PAGE_BYTES_MAX} bytes")));
        }
        String::from_utf8(line).map_err(|_| wrong("it is no text".to_owned()))
    }

    fn field(&mut self, name: &str) -> io::Result<String> {
        let line = self.next()?;
        match line.split_once(' ') {
            Some((found, value)) if found == name => Ok(value.to_owned()),
            _ => Err(wrong(format!("{line:?} stands where {name} should"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let file = |name: &str, bytes| BackupFile { name: name.to_owned(), bytes, hash: 7 };
        Page {
            store_id: "0123456789abcdef0123456789abcdef".to_owned(),
            epoch: 5,
            sequence: 812,
            taken_ms: 1_790_000_000_000,
            program: "0.1.0".to_owned(),
            files: vec![file("CURRENT", 3), file("tables/000000000007.sst", 1 << 40)],
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_behind_it() {
        let mut stream = page().text().into_bytes();
        stream.extend_from_slice(b"bytes of the first file");
        let mut input = &stream[..];
        assert_eq!(Page::read(&mut input).unwrap(), page());
        assert_eq!(input, b"bytes of the first file");
    }

    #[test]
    fn any_flipped_bit_and_any_missing_byte_is_found() {
        let text = page().text().into_bytes();
        for at in 0..text.len() {
            assert!(Page::read(&mut &text[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                assert!(Page::read(&mut &flipped[..]).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn names_stay_within_the_folder() {
        for name in ["FORMAT", "MANIFEST-000001", "tables/000000000007.sst"] {
            assert!(is_safe(name), "{name}");
        }
        for name in
            ["", "/etc/passwd", "../x", "tables/../x", "tables//x", "a/b/c", "tables/", ".x", "a b", "a\\b"]
        {
            assert!(!is_safe(name), "{name}");
        }
    }

    #[test]
    fn lines_and_sums_have_limits() {
        let endless = vec![b'x'; 1 << 20];
        assert!(Page::read(&mut &endless[..]).is_err());
        let mut huge = page();
        huge.files[0].bytes = u64::MAX - 1;
        huge.files[1].bytes = 1;
        assert!(Page::read(&mut huge.text().as_bytes()).is_ok());
        let line = |name: &str| format!("file {} {:032x} {name}\n", u64::MAX, 1);
        let head = page().text().lines().take(6).map(|line| format!("{line}\n")).collect::<String>();
        let error = Page::read(&mut format!("{head}{}{}", line("a"), line("b")).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
