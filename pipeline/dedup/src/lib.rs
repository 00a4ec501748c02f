//! Which programs are nearly the same, and which hold a text word for word. Text in, numbers out; no I/O.

mod contamination;
mod hasher;
mod minhash;
mod structure;

pub use contamination::ContaminationIndex;
pub use minhash::{bands, jaccard, shingles};
pub use structure::structure;
