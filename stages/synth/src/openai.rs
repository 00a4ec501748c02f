//! Talking to OpenAI-compatible servers: prompts, requests with their limits and budget, and the ledger of what was answered.

mod ask;
mod asker;
mod batch_server;
mod batches;
mod budget;
mod client;
mod forecast;
mod jobs;
mod lease;
mod ledger;
mod ledger_files;
mod limits;
mod one_by_one;
mod payer;
mod prompt;
mod server;

pub(crate) use ask::{Answers, Asked, ask, spending};
pub(crate) use asker::{FaultOf, REFUSED};
pub(crate) use budget::Price;
pub(crate) use client::Client;
pub(crate) use forecast::{Forecast, forecast};
pub(crate) use jobs::{Job, Jobs, texts_of};
pub(crate) use ledger::Ledger;
pub(crate) use limits::Allowed;
pub(crate) use prompt::{AnswerLimit, Prompt, Question, Shown, parse};
pub(crate) use server::{OPENAI, Server, asking};
