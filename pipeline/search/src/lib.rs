//! Lexical and vector search, exact: approximate indexes have halved published scores.

mod bm25;
mod nearest;
mod top_k;

pub use bm25::Bm25;
pub use nearest::{Nearest, dot};
pub use top_k::{Hit, rank_of, top_k, top_k_where};
