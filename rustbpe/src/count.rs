//! A corpus to its distinct chunks and how often each occurs: all that training needs to know of the text.
//!
//! Texts arrive in batches. Each thread counts into its own map over its share of the texts; the maps are added up at
//! the end. Sums do not depend on who counted what, so neither does anything that follows.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustc_hash::FxHashMap;

use crate::splitter::Splitter;

type Counts = FxHashMap<Box<[u8]>, u64>;

pub struct Counter<'s> {
    splitter: &'s Splitter,
    maps: Vec<Counts>, // one a thread
}

impl<'s> Counter<'s> {
    pub fn new(splitter: &'s Splitter, threads: usize) -> Counter<'s> {
        Counter { splitter, maps: vec![Counts::default(); threads.max(1)] }
    }

    pub fn add<T: AsRef<str> + Sync>(&mut self, texts: &[T]) -> Result<(), String> {
        let (splitter, next) = (self.splitter, &AtomicUsize::new(0));
        let count = |counts: &mut Counts| -> Result<(), String> {
            while let Some(text) = texts.get(next.fetch_add(1, Ordering::Relaxed)) {
                splitter.split(text.as_ref(), |chunk| add(counts, chunk.as_bytes(), 1))?;
            }
            Ok(())
        };
        let (own, others) = self.maps.split_first_mut().expect("at least one thread");
        std::thread::scope(|scope| {
            let threads: Vec<_> = others.iter_mut().map(|counts| scope.spawn(|| count(counts))).collect();
            let mine = count(own);
            threads.into_iter().map(|t| t.join().expect("counting does not panic")).fold(mine, Result::and)
        })
    }

    /// The distinct chunks with their counts, in no particular order.
    pub fn finish(self) -> Vec<(Box<[u8]>, u64)> {
        let mut maps = self.maps.into_iter();
        let mut total = maps.next().unwrap_or_default();
        for (chunk, count) in maps.flatten() {
            *total.entry(chunk).or_default() += count;
        }
        total.into_iter().collect()
    }
}

fn add(counts: &mut Counts, chunk: &[u8], count: u64) {
    match counts.get_mut(chunk) {
        Some(known) => *known += count,
        None => {
            counts.insert(chunk.into(), count);
        }
    }
}
