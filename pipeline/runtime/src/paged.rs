//! A value for each row on disk, of which a bounded part is in memory.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context as _, Result, ensure};
use bytemuck::Pod;

use crate::spool::unnamed;

/// An array on disk, of zeros until they are set. Each page of the file has one place in memory, which it shares with
/// others (a direct-mapped cache, written back).
pub struct Paged<T> {
    file: File,
    pages: RefCell<Vec<Page<T>>>,
    /// Pages in memory at most.
    most: u64,
}

/// Part of the file; before the first use it has no values.
struct Page<T> {
    number: u64,
    values: Box<[T]>,
    is_changed: bool,
}

/// Small, because the rows that are asked for may lie anywhere.
const PAGE_BYTES: usize = 4096;

impl<T: Pod> Paged<T> {
    const VALUES: usize = PAGE_BYTES / size_of::<T>();

    /// In a file of its own, that goes when the process does; `bytes` of it may be in memory.
    ///
    /// # Errors
    /// The folder for such files (`TMPDIR`) cannot be written to.
    pub fn new(bytes: u64) -> Result<Self> {
        Ok(Self { file: unnamed()?, pages: RefCell::default(), most: (bytes / PAGE_BYTES as u64).max(1) })
    }

    /// The value of a row.
    ///
    /// # Errors
    /// The disk fails.
    pub fn get(&self, row: u64) -> Result<T> {
        let mut pages = self.pages.borrow_mut();
        let page = self.page(&mut pages, row)?;
        Ok(page.values[row as usize % Self::VALUES])
    }

    /// Sets the value of a row.
    ///
    /// # Errors
    /// The disk fails.
    pub fn set(&self, row: u64, value: T) -> Result<()> {
        let mut pages = self.pages.borrow_mut();
        let page = self.page(&mut pages, row)?;
        page.is_changed = true;
        page.values[row as usize % Self::VALUES] = value;
        Ok(())
    }

    /// The page of a row, read if it is not in memory.
    fn page<'a>(&self, pages: &'a mut Vec<Page<T>>, row: u64) -> Result<&'a mut Page<T>> {
        let number = row / Self::VALUES as u64;
        let at = (number % self.most) as usize;
        if pages.len() <= at {
            pages.resize_with(at + 1, || Page { number: 0, values: Box::default(), is_changed: false });
        }
        let page = &mut pages[at];
        if page.number != number || page.values.is_empty() {
            self.change(page, number).context("cannot read or write what a row has on disk")?;
        }
        Ok(page)
    }

    /// Writes a page back and reads another one into its place.
    #[cold]
    fn change(&self, page: &mut Page<T>, number: u64) -> Result<()> {
        let bytes = (Self::VALUES * size_of::<T>()) as u64;
        if page.is_changed {
            self.file.write_all_at(bytemuck::cast_slice(&page.values), page.number * bytes)?;
        }
        let mut values = std::mem::take(&mut page.values);
        if values.is_empty() {
            values = vec![T::zeroed(); Self::VALUES].into();
        }
        let read = self.file.read_at(bytemuck::cast_slice_mut(&mut values), number * bytes)?;
        // Pages are written whole; one that never was lies in a hole of the file, or behind its end.
        ensure!(read == 0 || read as u64 == bytes, "{read} bytes of a page of {bytes}");
        if read == 0 {
            values.fill(T::zeroed());
        }
        *page = Page { number, values, is_changed: false };
        Ok(())
    }
}

/// Numbers by hash, 0 where there is none: an open-addressing table on disk, of which a bounded part is in memory.
pub struct PagedMap {
    /// A hash and its number.
    slots: Paged<[u64; 2]>,
    /// The number of slots, a power of two.
    size: u64,
    taken: u64,
    bytes: u64,
}

const FIRST_SLOTS: u64 = 1 << 12;

impl PagedMap {
    /// An empty one; `bytes` of it may be in memory.
    ///
    /// # Errors
    /// As [`Paged::new`].
    pub fn new(bytes: u64) -> Result<Self> {
        Ok(Self { slots: Paged::new(bytes)?, size: FIRST_SLOTS, taken: 0, bytes })
    }

    /// The number of a hash.
    ///
    /// # Errors
    /// The disk fails.
    pub fn get(&self, hash: u64) -> Result<u64> {
        Ok(self.slots.get(self.find(hash)?)?[1])
    }

    /// Changes the number of a hash, which is not 0 afterwards, and says it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn update(&mut self, hash: u64, change: impl FnOnce(u64) -> u64) -> Result<u64> {
        // Linear probing takes few steps as long as half of the slots are free.
        if 2 * (self.taken + 1) > self.size {
            self.grow()?;
        }
        let at = self.find(hash)?;
        let [_, before] = self.slots.get(at)?;
        let number = change(before);
        ensure!(number > 0, "0 stands for no number");
        self.taken += u64::from(before == 0);
        self.slots.set(at, [hash, number])?;
        Ok(number)
    }

    /// The slot of a hash, or the free one that is to be its.
    fn find(&self, hash: u64) -> Result<u64> {
        let mut at = hash & (self.size - 1);
        loop {
            let [there, number] = self.slots.get(at)?;
            if number == 0 || there == hash {
                return Ok(at);
            }
            at = (at + 1) & (self.size - 1);
        }
    }

    fn grow(&mut self) -> Result<()> {
        let larger = Self { slots: Paged::new(self.bytes)?, size: 2 * self.size, taken: self.taken, bytes: self.bytes };
        for at in 0..self.size {
            let slot = self.slots.get(at)?;
            if slot[1] > 0 {
                larger.slots.set(larger.find(slot[0])?, slot)?;
            }
        }
        *self = larger;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// With one page in memory, some, or all, it is an array.
        #[test]
        fn it_is_an_array(steps in prop::collection::vec((0u64..5000, any::<u64>()), 0..300), pages in 1u64..12) {
            let paged = Paged::<[u64; 3]>::new(pages * PAGE_BYTES as u64).unwrap();
            let mut array = vec![[0; 3]; 5000];
            for (row, value) in steps {
                prop_assert_eq!(paged.get(row).unwrap(), array[row as usize]);
                array[row as usize] = [value, row, !value];
                paged.set(row, array[row as usize]).unwrap();
            }
            prop_assert!(paged.pages.borrow().len() as u64 <= pages);
            for (row, value) in array.iter().enumerate() {
                prop_assert_eq!(&paged.get(row as u64).unwrap(), value);
            }
        }
    }

    proptest! {
        /// With a page in memory or all, it counts as a map does, also hashes that lie side by side.
        #[test]
        fn hashes_are_counted(hashes in prop::collection::vec(0u64..6000, 0..9000), pages in 1u64..40) {
            let mut counts = PagedMap::new(pages * PAGE_BYTES as u64).unwrap();
            let mut expected = std::collections::HashMap::new();
            for hash in hashes {
                let count = expected.entry(hash).or_insert(0);
                *count += 1;
                prop_assert_eq!(counts.get(hash).unwrap(), *count - 1);
                prop_assert_eq!(counts.update(hash, |count| count + 1).unwrap(), *count);
            }
            prop_assert_eq!(counts.taken, expected.len() as u64);
        }
    }
}
