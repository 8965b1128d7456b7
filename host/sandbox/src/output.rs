//! Standard output and standard error of a guest, in lines; and its last words, which say why it panicked.

/// Longer lines are cut into pieces of this size.
const LINE_BYTES: usize = 4096;
/// Last words are kept up to this size.
const LAST_WORDS_BYTES: usize = 2048;

/// Where the guest writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// What the guest wrote that is not a whole line yet.
#[derive(Default)]
pub(crate) struct Output {
    out: Vec<u8>,
    err: Vec<u8>,
    last_words: String,
    /// A panic's text is being written: it spans lines.
    panicking: bool,
}

impl Output {
    /// Takes bytes off `rest` until a line is whole. Empty lines are dropped.
    pub(crate) fn next_line(&mut self, stream: Stream, rest: &mut &[u8]) -> Option<String> {
        while !rest.is_empty() {
            let buffer = match stream {
                Stream::Out => &mut self.out,
                Stream::Err => &mut self.err,
            };
            let room = LINE_BYTES.saturating_sub(buffer.len()).min(rest.len());
            let (piece, whole) = match rest[..room].iter().position(|&byte| byte == b'\n') {
                Some(end) => (end, true),
                None => (room, buffer.len() + room >= LINE_BYTES),
            };
            buffer.extend_from_slice(&rest[..piece]);
            let skip = usize::from(rest.get(piece) == Some(&b'\n'));
            *rest = &rest[piece + skip..];
            if whole && let Some(line) = self.last_line(stream) {
                return Some(line);
            }
        }
        None
    }

    /// What is left of a line without an end.
    pub(crate) fn last_line(&mut self, stream: Stream) -> Option<String> {
        let bytes = match stream {
            Stream::Out => std::mem::take(&mut self.out),
            Stream::Err => std::mem::take(&mut self.err),
        };
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        if line.is_empty() {
            return None;
        }
        if stream == Stream::Err {
            self.said_on_stderr(&line);
        }
        Some(line)
    }

    /// Remembers an error message: it is the last word if nothing follows.
    pub(crate) fn said(&mut self, message: &str) {
        self.panicking = false;
        self.last_words.clear();
        self.add_words(message);
    }

    /// What the guest said last before it ended.
    pub(crate) fn last_words(&self) -> Option<&str> {
        Some(self.last_words.as_str()).filter(|words| !words.is_empty())
    }

    fn said_on_stderr(&mut self, line: &str) {
        if line.starts_with("note: run with `RUST_BACKTRACE") {
            return;
        }
        // A panic's first line tells the thread, the place, and nothing else; its text follows.
        if let Some(place) = line.find("panicked at ") {
            self.panicking = true;
            self.last_words.clear();
            self.add_words(&line[place..]);
        } else if self.panicking {
            self.add_words(" ");
            self.add_words(line);
        } else {
            self.last_words.clear();
            self.add_words(line);
        }
    }

    fn add_words(&mut self, words: &str) {
        let room = LAST_WORDS_BYTES.saturating_sub(self.last_words.len());
        self.last_words.push_str(&words[..words.floor_char_boundary(room)]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn lines(output: &mut Output, stream: Stream, bytes: &[u8]) -> Vec<String> {
        let mut rest = bytes;
        std::iter::from_fn(|| output.next_line(stream, &mut rest)).collect()
    }

    #[test]
    fn bytes_become_lines_whatever_their_pieces() {
        let mut output = Output::default();
        assert_eq!(lines(&mut output, Stream::Out, b"one\n\ntw"), ["one"]);
        assert_eq!(lines(&mut output, Stream::Err, b"other\n"), ["other"]);
        assert_eq!(lines(&mut output, Stream::Out, b"o\r\nthree"), ["two"]);
        assert_eq!(output.last_line(Stream::Out).as_deref(), Some("three"));
        assert_eq!(output.last_line(Stream::Out), None);
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let mut output = Output::default();
        let flood = vec![b'x'; 3 * LINE_BYTES + 5];
        let got = lines(&mut output, Stream::Out, &flood);
        assert_eq!(got.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES; 3]);
        assert_eq!(lines(&mut output, Stream::Out, b"\n"), ["xxxxx"]);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_one_line() {
        let mut output = Output::default();
        let mut bytes = vec![b'x'; LINE_BYTES];
        bytes.extend_from_slice(b"\nnext\n");
        let got = lines(&mut output, Stream::Out, &bytes);
        assert_eq!(got.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES, 4]);
    }

    #[test]
    fn the_panic_is_the_last_word() {
        let mut output = Output::default();
        lines(&mut output, Stream::Err, b"warning: something\n\nthread 'main' panicked at src/lib.rs:1:2:\nboom\n");
        lines(&mut output, Stream::Err, b"over two lines\nnote: run with `RUST_BACKTRACE=1` environment variable\n");
        assert_eq!(output.last_words(), Some("panicked at src/lib.rs:1:2: boom over two lines"));
    }

    #[test]
    fn last_words_are_short_and_never_torn() {
        let mut output = Output::default();
        output.said(&"ä".repeat(LAST_WORDS_BYTES));
        assert_eq!(output.last_words().unwrap().len(), LAST_WORDS_BYTES);
    }
}
