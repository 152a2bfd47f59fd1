//! What kind of character is this? The split patterns know five kinds, and this is the table that answers.
//!
//! `\p{L}` and `\p{N}` come from regex-syntax, so that this table and the regex engine (ours for other patterns, and
//! tiktoken's) read the same Unicode version. Pages of 256 characters that look alike are stored once: about 40 kB.

use std::collections::HashMap;
use std::sync::OnceLock;

use regex_syntax::hir::{Class as HirClass, HirKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// Neither letter, number nor white space: punctuation, symbols, marks, controls, unassigned.
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `[\r\n]`
    Newline,
    /// All other `\s`.
    Space,
}

pub struct Classes {
    page_of: Vec<u16>,
    pages: Vec<[Class; 256]>,
    ascii: [Class; 128],
}

impl Classes {
    /// The one table of this process, built at first use (about 2 ms).
    pub fn get() -> &'static Classes {
        static TABLE: OnceLock<Classes> = OnceLock::new();
        TABLE.get_or_init(Classes::build)
    }

    #[inline]
    pub fn of(&self, c: char) -> Class {
        let c = c as usize;
        self.pages[self.page_of[c >> 8] as usize][c & 255]
    }

    /// The class of a byte below 0x80, which is a character of its own.
    #[inline]
    pub fn of_ascii(&self, byte: u8) -> Class {
        self.ascii[(byte & 127) as usize]
    }

    fn build() -> Classes {
        let mut flat = vec![Class::Other; 0x110000];
        for (property, class) in [(r"\p{L}", Class::Letter), (r"\p{N}", Class::Number), (r"\s", Class::Space)] {
            for (first, last) in ranges(property) {
                flat[first as usize..=last as usize].fill(class);
            }
        }
        flat['\r' as usize] = Class::Newline;
        flat['\n' as usize] = Class::Newline;

        let (mut page_of, mut pages, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
        for chunk in flat.chunks_exact(256) {
            let page: [Class; 256] = chunk.try_into().expect("256 divides 0x110000");
            page_of.push(*seen.entry(page).or_insert_with(|| {
                pages.push(page);
                (pages.len() - 1) as u16
            }));
        }
        let ascii = flat[..128].try_into().expect("128 characters");
        Classes { page_of, pages, ascii }
    }
}

/// The character ranges of a one-class pattern such as `\p{L}`, ends included.
fn ranges(property: &str) -> Vec<(char, char)> {
    let hir = regex_syntax::parse(property).expect("a fixed, valid class");
    match hir.kind() {
        HirKind::Class(HirClass::Unicode(class)) => class.iter().map(|range| (range.start(), range.end())).collect(),
        _ => unreachable!("{property} is a Unicode class"),
    }
}
