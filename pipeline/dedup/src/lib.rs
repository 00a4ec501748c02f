//! Which programs are nearly the same, and which hold a text word for word. Text in, numbers out; no I/O.

mod contamination;
mod minhash;

pub use contamination::ContaminationIndex;
pub use minhash::{bands, jaccard, shingles};
