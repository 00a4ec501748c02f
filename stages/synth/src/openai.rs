//! Talking to OpenAI-compatible servers: the client with its retries, and the ledger of what was answered.

mod client;
mod ledger;

pub(crate) use client::{Answer, Client, Settings};
pub(crate) use ledger::{Ledger, request_hash};
