//! Which programs are nearly the same, and which hold a text word for word. Text in, numbers out; no I/O.

mod bound;
mod contamination;
mod hasher;
mod minhash;
mod normal;
mod repeats;
mod structure;
mod token;

pub use contamination::{ContaminationIndex, Held};
pub use minhash::{BANDS, bands, jaccard, shingles};
pub use normal::{normal_code, normal_text};
pub use repeats::Repeats;
pub use structure::structure;
