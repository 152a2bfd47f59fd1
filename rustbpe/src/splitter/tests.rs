//! The 64-byte windows against the scalar scan, which the Python tests hold equal to the `regex` package.

use super::*;

const PIECES: &[&str] = &[
    "a", "Z", "don't", "'", "'s", "'LL", "'ve", "'ſ", "'x", "''re", "1", "12345678", " ", "  ", "\t", "\x0b", "\x0c",
    "\n", "\r\n", "\n\n", " \n ", "\n    ", ".", "...", "=", "<|", "\x00", "\x7f", "\x1c", "é", "中文", "½", "٣",
    "\u{a0}", "\u{85}", "\u{2003}", "\u{200b}", "\u{feff}", "😉", "{", "[", "`", "@", "/", ":",
];

fn random_text(dice: &mut impl FnMut(usize) -> usize) -> String {
    let ascii = if dice(3) == 0 { PIECES.len() } else { 27 }; // most texts keep to the first pieces
    let favourites: Vec<&str> = (0..1 + dice(8)).map(|_| PIECES[dice(ascii)]).collect();
    let mut text = String::new();
    for _ in 0..dice(120) {
        match dice(4) {
            0 => text.push_str(PIECES[dice(ascii)]),
            1 => text.push_str(&favourites[dice(favourites.len())].repeat(dice(9) * dice(9))),
            _ => text.push_str(favourites[dice(favourites.len())]),
        }
    }
    text
}

fn dice(mut state: u64) -> impl FnMut(usize) -> usize {
    move |sides| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % sides
    }
}

fn check(scan: impl Fn(&Scan, &mut dyn FnMut(usize, usize))) {
    let mut dice = dice(64);
    let cases = std::env::var("FUZZ_CASES").map_or(30_000, |n| n.parse().expect("FUZZ_CASES is a number"));
    for case in 0..cases {
        let text = random_text(&mut dice);
        let split = Scan { text: &text, classes: Classes::get(), digits: 1 + case % 4, whole_tail: case % 3 == 0 };
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        split.run(|start, end| expected.push((start, end)));
        scan(&split, &mut |start, end| found.push((start, end)));
        assert_eq!(found, expected, "{text:?}, {} digits", split.digits);
    }
}

#[test]
fn windows_with_plain_masks_cut_as_the_scalar_scan_does() {
    check(|scan, take| window::cut(scan, plain, take));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn windows_with_avx2_cut_as_the_scalar_scan_does() {
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") {
        // SAFETY: the features were just found.
        check(|scan, take| unsafe { window::x86::avx2(scan, take) });
        each_byte(|bytes| unsafe { window::x86::masks2(bytes) });
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn windows_with_avx512_cut_as_the_scalar_scan_does() {
    if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") {
        // SAFETY: the features were just found.
        check(|scan, take| unsafe { window::x86::avx512(scan, take) });
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
