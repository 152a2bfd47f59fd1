//! The 64-byte windows and the scalar scan against each other and against the regex engine; the Python tests hold all of
//! it equal to the `regex` package.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::odd_text::{cases, texts};

const DIGITS: usize = 4; // widths of a number to try

/// The patterns of all widths, without and with a branch for white space at the end, for the regex engine.
fn by_engine() -> &'static Vec<Regex> {
    static ENGINES: OnceLock<Vec<Regex>> = OnceLock::new();
    ENGINES.get_or_init(|| {
        let width = |digits: usize| DEFAULT_PATTERN.replace("{1,2}", &format!("{{1,{digits}}}"));
        let tail = |pattern: &String| pattern.replace(r"|\s*[\r\n]", r"|\s++$|\s*[\r\n]");
        let patterns: Vec<String> = (1..=DIGITS).map(width).collect();
        patterns.iter().cloned().chain(patterns.iter().map(tail)).map(|p| Regex::new(&p).unwrap()).collect()
    })
}

/// Where the chunks of the text start and end, by the scalar scan.
fn scalar(scan: &Scan) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    scan.run(|start, end| found.push((start, end)));
    found
}

fn windows(cut: impl FnOnce(&mut dyn FnMut(usize, usize))) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    cut(&mut |start, end| found.push((start, end)));
    found
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn windows_and_scalar_scan_cut_alike(text in texts(), digits in 1..=DIGITS, whole_tail: bool) {
        let scan = Scan { text: &text, classes: Classes::get(), digits, whole_tail };
        let expected = scalar(&scan);
        prop_assert_eq!(&windows(|take| window::cut(&scan, plain, take)), &expected, "plain masks");
        #[cfg(target_arch = "x86_64")]
        {
            // SAFETY: each only on a machine that has just been found to have its features.
            if window::x86::has_avx2() {
                prop_assert_eq!(&windows(|take| unsafe { window::x86::avx2(&scan, take) }), &expected, "AVX2");
            }
            if window::x86::has_avx512() {
                prop_assert_eq!(&windows(|take| unsafe { window::x86::avx512(&scan, take) }), &expected, "AVX-512");
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(2))]

    #[test]
    fn the_scan_cuts_as_the_regex_engine_does(text in texts(), digits in 1..=DIGITS, whole_tail: bool) {
        let engine = &by_engine()[digits - 1 + if whole_tail { DIGITS } else { 0 }];
        let expected: Vec<_> = engine.find_iter(&text).map(|found| found.unwrap().range()).collect();
        let found = scalar(&Scan { text: &text, classes: Classes::get(), digits, whole_tail });
        prop_assert_eq!(found.iter().map(|&(start, end)| start..end).collect::<Vec<_>>(), expected);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn wide_instructions_see_each_byte_at_each_place() {
    // SAFETY: each only on a machine that has just been found to have its features.
    if window::x86::has_avx2() {
        each_byte(|bytes| unsafe { window::x86::masks2(bytes) });
    }
    if window::x86::has_avx512() {
        each_byte(|bytes| unsafe { window::x86::masks512(bytes) });
    }
}

/// Every byte at every place has the class that it has one by one.
fn each_byte(masks: impl Fn(&[u8; window::WIDTH]) -> window::Masks) {
    for byte in 0..=255 {
        for place in 0..window::WIDTH {
            let mut bytes = [b'~'; window::WIDTH];
            bytes[place] = byte;
            assert_eq!(masks(&bytes), plain(&bytes), "byte {byte} at {place}");
        }
    }
}

fn plain(bytes: &[u8; window::WIDTH]) -> window::Masks {
    let mask =
        |is: &dyn Fn(u8) -> bool| bytes.iter().enumerate().fold(0, |mask, (i, &byte)| mask | u64::from(is(byte)) << i);
    window::Masks {
        letters: mask(&|b| b.is_ascii_alphabetic()),
        digits: mask(&|b| b.is_ascii_digit()),
        newlines: mask(&|b| b == b'\n' || b == b'\r'),
        blanks: mask(&|b| b == b' '),
        spaces: mask(&|b| b == b'\t' || b == 0x0b || b == 0x0c),
        apostrophes: mask(&|b| b == b'\''),
        beyond: mask(&|b| !b.is_ascii()),
    }
}
