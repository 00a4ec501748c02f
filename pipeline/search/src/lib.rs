//! Lexical and vector search, exact: approximate indexes have halved published scores.

mod bm25;
mod top_k;

pub use bm25::Bm25;
pub use top_k::{Hit, rank_of, top_k};
