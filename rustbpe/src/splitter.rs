//! Text to chunks. A chunk never merges with its neighbour, so the split decides what a token can be.
//!
//! The GPT-4 family of patterns (cl100k's and nanochat's, which differ in the width of a number and in how white space
//! ends a text) is scanned by hand, one character ahead, in linear time; where the machine has the instructions for it,
//! 64 ASCII bytes at a time (`window`). Any other pattern goes to a regex engine.

mod window;

use fancy_regex::Regex;

use crate::unicode::{Class, Classes};

/// nanochat's pattern: GPT-4's, with numbers cut into at most two digits.
pub const DEFAULT_PATTERN: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|",
    r"\s*[\r\n]|\s+(?!\S)|\s+"
);

/// cl100k_base as tiktoken writes it. Beside nanochat's it has a branch for white space at the end of the text.
const CL100K_PATTERN: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|",
    r"\s++$|\s*[\r\n]|\s+(?!\S)|\s"
);

pub struct Splitter {
    pattern: String,
    kind: Kind,
}

enum Kind {
    /// `digits`: how many a chunk may hold. `whole_tail`: the `\s++$` branch, trailing white space is one chunk.
    Gpt4 {
        digits: usize,
        whole_tail: bool,
    },
    Regex(Box<Regex>),
}

impl Splitter {
    pub fn new(pattern: &str) -> Result<Splitter, String> {
        let width = |digits: usize| DEFAULT_PATTERN.replace("{1,2}", &format!("{{1,{digits}}}"));
        let kind = if pattern == CL100K_PATTERN {
            Kind::Gpt4 { digits: 3, whole_tail: true }
        } else if let Some(digits) = (1..10).find(|&digits| pattern == width(digits)) {
            Kind::Gpt4 { digits, whole_tail: false }
        } else {
            Kind::Regex(Box::new(Regex::new(pattern).map_err(|e| format!("bad split pattern: {e}"))?))
        };
        Ok(Splitter { pattern: pattern.to_string(), kind })
    }

    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Is this a pattern of the GPT-4 family? All others are cut by a regex engine.
    pub fn by_hand(&self) -> bool {
        matches!(self.kind, Kind::Gpt4 { .. })
    }

    /// Calls `take` with each chunk of `text`, left to right. As `findall` does, skips what no branch matches
    /// (nothing, for the GPT-4 family). Fails only where the regex engine gives up.
    pub fn split<'t>(&self, text: &'t str, mut take: impl FnMut(&'t str)) -> Result<(), String> {
        self.spans(text, |start, end| take(&text[start..end]))
    }

    /// The same as byte offsets: where each chunk starts and ends.
    pub fn spans(&self, text: &str, mut take: impl FnMut(usize, usize)) -> Result<(), String> {
        match &self.kind {
            Kind::Gpt4 { digits, whole_tail } => {
                let scan = Scan { text, classes: Classes::get(), digits: *digits, whole_tail: *whole_tail };
                if !window::run(&scan, &mut take) {
                    scan.run(take);
                }
            }
            Kind::Regex(regex) => {
                for found in regex.find_iter(text) {
                    let found = found.map_err(|e| format!("the split pattern failed on this text: {e}"))?;
                    if !found.as_str().is_empty() {
                        take(found.start(), found.end());
                    }
                }
            }
        }
        Ok(())
    }
}

/// The hand-written twin of the GPT-4 pattern. Each method is one piece of it; `i`, `j` are byte offsets.
struct Scan<'t> {
    text: &'t str,
    classes: &'static Classes,
    digits: usize,
    whole_tail: bool,
}

impl Scan<'_> {
    /// Cuts the whole text.
    fn run(&self, mut take: impl FnMut(usize, usize)) {
        let mut start = 0;
        while start < self.text.len() {
            let end = self.chunk_end(start);
            take(start, end);
            start = end;
        }
    }

    /// Where the chunk that starts at `i` ends. The branches stand in the pattern's order.
    fn chunk_end(&self, i: usize) -> usize {
        let first = self.text.as_bytes()[i];
        if first == b'\'' {
            if let Some(end) = self.contraction(i) {
                return end;
            }
        }
        let (class, next) = self.at(i).expect("i is inside the text");
        match class {
            Class::Letter => return self.skip(next, Class::Letter),
            Class::Number => return self.number(next),
            _ => {}
        }
        let after = self.at(next);
        match after {
            // [^\r\n\p{L}\p{N}]?+\p{L}+ : a word may take one character in front of it
            Some((Class::Letter, j)) if class != Class::Newline => self.skip(j, Class::Letter),
            _ if class == Class::Other => self.punctuation(next),
            Some((Class::Other, j)) if first == b' ' => self.punctuation(j),
            _ => self.white_space(i),
        }
    }

    /// The class of the character at `i` and the offset after it; None at the end of the text.
    #[inline]
    fn at(&self, i: usize) -> Option<(Class, usize)> {
        let byte = *self.text.as_bytes().get(i)?;
        if byte < 0x80 {
            return Some((self.classes.of_ascii(byte), i + 1));
        }
        let c = self.text[i..].chars().next()?;
        Some((self.classes.of(c), i + c.len_utf8()))
    }

    #[inline]
    fn skip(&self, mut i: usize, class: Class) -> usize {
        while let Some((found, next)) = self.at(i) {
            if found != class {
                break;
            }
            i = next;
        }
        i
    }

    /// '(?i:[sdmt]|ll|ve|re) ; ignoring case, s is also U+017F, the long s (bytes C5 BF).
    fn contraction(&self, i: usize) -> Option<usize> {
        let rest = &self.text.as_bytes()[i + 1..];
        let lower = |k: usize| rest.get(k).map(|b| b.to_ascii_lowercase());
        match (lower(0)?, lower(1)) {
            (b's' | b'd' | b'm' | b't', _) => Some(i + 2),
            (b'l', Some(b'l')) | (b'v' | b'r', Some(b'e')) => Some(i + 3),
            (0xC5, Some(0xBF)) => Some(i + 3),
            _ => None,
        }
    }

    /// \p{N}{1,digits}, its first digit already read.
    fn number(&self, mut i: usize) -> usize {
        for _ in 1..self.digits {
            match self.at(i) {
                Some((Class::Number, next)) => i = next,
                _ => break,
            }
        }
        i
    }

    /// ?[^\s\p{L}\p{N}]++[\r\n]* with a blank in front, its first mark already read.
    fn punctuation(&self, i: usize) -> usize {
        let marks = self.skip(i, Class::Other);
        self.skip(marks, Class::Newline)
    }

    /// \s++$ (if the pattern has it), \s*[\r\n], \s+(?!\S), \s+ : through the last newline of the run; without one, the
    /// run less its last character, which is left to lead the next chunk, unless the text or the run ends there.
    fn white_space(&self, i: usize) -> usize {
        let (mut end, mut last, mut after_newline) = (i, i, None);
        while let Some((class @ (Class::Space | Class::Newline), next)) = self.at(end) {
            if class == Class::Newline {
                after_newline = Some(next);
            }
            (last, end) = (end, next);
        }
        let at_end = end == self.text.len();
        match after_newline {
            _ if at_end && self.whole_tail => end,
            Some(newline) => newline,
            None if at_end || last == i => end,
            None => last,
        }
    }
}

#[cfg(test)]
mod tests;
