//! The GPT-4 pattern, 64 bytes at a time: from bit masks of the character classes to a bit mask of chunk starts.
//!
//! A window always begins where a chunk begins, and the pattern never looks behind, so nothing is carried from window
//! to window. Every start that is marked is a true one, and all are marked up to the last; only what lies behind the
//! last one is open, so the next window begins there. A window ends early at the first byte that is not ASCII. Where
//! a window finds no second start (a long chunk, a letter beyond ASCII) the scalar `Scan` cuts one chunk.

use super::Scan;

pub const WIDTH: usize = 64;

/// Which of 64 bytes are of which class; bit i is byte i. Bytes of no class here end the window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Masks {
    pub letters: u64,
    pub digits: u64,
    pub newlines: u64,
    pub blanks: u64, // the space character
    pub spaces: u64, // other white space: tab, vertical tab, form feed
    pub apostrophes: u64,
    pub beyond: u64, // not ASCII
}

/// The starts of chunks after the first, which starts at bit 0. `digits`: how many a number may have.
#[inline(always)]
pub fn starts(masks: &Masks, bytes: &[u8; WIDTH], digits: usize) -> u64 {
    let valid = match masks.beyond.trailing_zeros() {
        64 => !0,
        end => (1u64 << end) - 1,
    };
    let (letter, number) = (masks.letters & valid, masks.digits & valid);
    let (newline, blank) = (masks.newlines & valid, masks.blanks & valid);
    let space = (masks.blanks | masks.spaces) & valid;
    let mark = valid & !(letter | number | newline | space);

    // ?[^\s\p{L}\p{N}]++[\r\n]* : a blank in front and the newlines behind belong to the marks. Adding the first
    // newline of a run to the mask carries through the run and clears it.
    let marks = mark & !(mark << 1) & !(blank << 1);
    let taken = newline & !newline.wrapping_add(newline & (mark << 1));

    // [^\r\n\p{L}\p{N}]?+\p{L}+ : a word takes white space in front of it, or a mark that begins a chunk.
    let words = letter & !((letter | space | marks) << 1);

    // \p{N}{1,digits} : the run's first digit, and every `digits`-th after it.
    let mut numbers = number & !(number << 1);
    if number & (number << 1) != 0 {
        let within = (1..=digits).fold(number, |run, i| run & (number << i));
        let mut next = (numbers << digits) & within;
        while next != 0 {
            numbers |= next;
            next = (next << digits) & within;
        }
    }

    // \s*[\r\n]|\s+(?!\S)|\s+ : a run starts where it starts; after its last newline, if more follows; and at its last
    // character, unless that is a newline. The last two only where the run is seen to end.
    let white = (newline | space) & !taken;
    let runs = white & !(white << 1);
    let last = space & ((letter | number | mark) >> 1);
    let mut after_newline = space & (newline << 1);
    let mut candidates = after_newline;
    while candidates != 0 {
        let at = candidates.trailing_zeros();
        candidates &= candidates - 1;
        let end = at + (space >> at).trailing_ones();
        if end == 64 || (letter | number | mark) >> end & 1 == 0 {
            after_newline &= !(1 << at);
        }
    }

    let mut starts = marks | words | numbers | runs | last | after_newline;

    // '(?i:[sdmt]|ll|ve|re) : without it the apostrophe would lead a word; so all that it adds is a start at its end.
    let mut quotes = masks.apostrophes & marks & (letter >> 1);
    while quotes != 0 {
        let at = quotes.trailing_zeros() as usize;
        quotes &= quotes - 1;
        let lower = |i: usize| bytes.get(at + i).map_or(0, |byte| byte | 0x20);
        let length = match (lower(1), lower(2)) {
            (b's' | b'd' | b'm' | b't', _) => 2,
            (b'l', b'l') | (b'v' | b'r', b'e') => 3,
            _ => continue,
        };
        starts |= 1u64.checked_shl((at + length) as u32).unwrap_or(0);
    }
    starts & valid & !1
}

/// Cuts the whole text, with `classify` to make the masks.
#[inline(always)]
pub fn cut(scan: &Scan, classify: impl Fn(&[u8; WIDTH]) -> Masks, mut take: impl FnMut(usize, usize)) {
    let text = scan.text.as_bytes();
    let mut start = 0;
    while start < text.len() {
        let padded;
        let bytes = match text[start..].first_chunk::<WIDTH>() {
            Some(bytes) => bytes,
            None => {
                let mut copy = [0xFF; WIDTH]; // no ASCII: ends the window
                copy[..text.len() - start].copy_from_slice(&text[start..]);
                padded = copy;
                &padded
            }
        };
        let mut found = starts(&classify(bytes), bytes, scan.digits);
        let first = start;
        while found != 0 {
            let end = first + found.trailing_zeros() as usize;
            take(start, end);
            start = end;
            found &= found - 1;
        }
        // The scalar path: where the window found nothing, and as long as letters beyond ASCII would cut windows short.
        let short = |at: usize| text.get(at..at + 2).is_some_and(|two| !two.is_ascii());
        while start == first || short(start) {
            let end = scan.chunk_end(start);
            take(start, end);
            start = end;
        }
    }
}

/// Cuts the whole text with the widest instructions that this machine has. False, and nothing done, if it has none.
#[cfg(target_arch = "x86_64")]
pub fn run(scan: &Scan, take: impl FnMut(usize, usize)) -> bool {
    // SAFETY: each is called only where the features that it is compiled for were just found.
    if x86::has_avx512() {
        unsafe { x86::avx512(scan, take) };
    } else if x86::has_avx2() {
        unsafe { x86::avx2(scan, take) };
    } else {
        return false;
    }
    true
}

#[cfg(not(target_arch = "x86_64"))]
pub fn run(_: &Scan, _: impl FnMut(usize, usize)) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
pub mod x86 {
    use std::arch::x86_64::*;

    use super::{cut, Masks, Scan, WIDTH};

    pub fn has_avx512() -> bool {
        is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2")
    }

    pub fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2")
    }

    #[target_feature(enable = "avx512f,avx512bw,bmi1,bmi2")]
    pub fn avx512(scan: &Scan, take: impl FnMut(usize, usize)) {
        cut(scan, |bytes| masks512(bytes), take);
    }

    #[target_feature(enable = "avx2,bmi1,bmi2")]
    pub fn avx2(scan: &Scan, take: impl FnMut(usize, usize)) {
        cut(scan, |bytes| masks2(bytes), take);
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn masks512(bytes: &[u8; WIDTH]) -> Masks {
        // SAFETY: `bytes` are the 64 that are loaded; the load needs no alignment.
        let v = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        let is = |byte: u8| _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(byte as i8));
        let between = |v, first: u8, count: u8| {
            _mm512_cmplt_epu8_mask(_mm512_sub_epi8(v, _mm512_set1_epi8(first as i8)), _mm512_set1_epi8(count as i8))
        };
        let newlines = is(b'\n') | is(b'\r');
        Masks {
            letters: between(_mm512_or_si512(v, _mm512_set1_epi8(0x20)), b'a', 26),
            digits: between(v, b'0', 10),
            newlines,
            blanks: is(b' '),
            spaces: between(v, b'\t', 5) & !newlines,
            apostrophes: is(b'\''),
            beyond: _mm512_movepi8_mask(v),
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn masks2(bytes: &[u8; WIDTH]) -> Masks {
        // SAFETY: the two halves of the 64 bytes; the loads need no alignment.
        let halves = unsafe {
            let half = bytes.as_ptr().cast::<__m256i>();
            [_mm256_loadu_si256(half), _mm256_loadu_si256(half.add(1))]
        };
        let bits = |[low, high]: [__m256i; 2]| {
            u64::from(_mm256_movemask_epi8(low) as u32) | u64::from(_mm256_movemask_epi8(high) as u32) << 32
        };
        let is = |byte: u8| bits(halves.map(|v| _mm256_cmpeq_epi8(v, _mm256_set1_epi8(byte as i8))));
        // unsigned x < count, which AVX2 lacks, is min(x, count - 1) == x
        let between = |v: __m256i, first: u8, count: u8| {
            let x = _mm256_sub_epi8(v, _mm256_set1_epi8(first as i8));
            _mm256_cmpeq_epi8(_mm256_min_epu8(x, _mm256_set1_epi8(count as i8 - 1)), x)
        };
        let newlines = is(b'\n') | is(b'\r');
        Masks {
            letters: bits(halves.map(|v| between(_mm256_or_si256(v, _mm256_set1_epi8(0x20)), b'a', 26))),
            digits: bits(halves.map(|v| between(v, b'0', 10))),
            newlines,
            blanks: is(b' '),
            spaces: bits(halves.map(|v| between(v, b'\t', 5))) & !newlines,
            apostrophes: is(b'\''),
            beyond: bits(halves),
        }
    }
}
