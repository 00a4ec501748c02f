//! Talking to OpenAI-compatible servers: prompts, requests with their limits and budget, and the ledger of what was answered.

mod asker;
mod budget;
mod client;
mod ledger;
mod limits;
mod prompt;

pub(crate) use asker::{Asker, keys, spent_before};
pub(crate) use budget::{Budget, Price};
pub(crate) use client::{Client, Settings};
pub(crate) use ledger::{Ledger, request_hash};
pub(crate) use limits::{Allowed, Limits};
pub(crate) use prompt::{Prompt, Question, parse};
