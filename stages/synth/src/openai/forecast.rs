//! What asking would cost, before anything is asked: tokens are counted as the model's own tokenizer counts them.

use anyhow::Result;
use codepair_runtime::Context;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;
use tiktoken_rs::{CoreBPE, bpe_for_model, o200k_base_singleton};

use super::ask::{Open, payer};
use super::asker::FaultOf;
use super::budget::Usage;
use super::jobs::Jobs;
use super::ledger::Ledger;
use super::server::Server;

/// Tokens that OpenAI's format adds to each message, and to the whole.
const MESSAGE_TOKENS: usize = 3;

/// The forecast of one generator.
#[derive(Debug, Serialize)]
pub(crate) struct Forecast {
    generator: String,
    /// Requests still to be sent.
    requests: usize,
    /// Requests that the ledger holds answers to.
    answered_before: usize,
    /// Of the requests still to be sent.
    input_tokens: u64,
    /// Of their answers, at most.
    output_tokens: u64,
    /// Dollars at most; nothing where the config says no price.
    dollars: Option<f64>,
    /// Dollars spent on this generator before, whatever its prompt was.
    dollars_before: f64,
    /// Whose tokens they are.
    tokenizer: &'static str,
    /// All of it in a sentence.
    text: String,
}

/// Counts what a generator would still ask.
pub(crate) fn forecast(
    context: &Context,
    generator: &str,
    server: &Server,
    jobs: &Jobs,
    answer_tokens: u32,
    fault: FaultOf,
) -> Result<Forecast> {
    let ledger = Ledger::open(&context.store, &jobs.keys(), &payer(context, generator, answer_tokens))?;
    let Open { jobs: open, before, .. } = Open::new(&ledger, jobs, server.attempts, fault)?;
    let spent = ledger.spent();
    let (bpe, tokenizer) = match bpe_for_model(&server.model) {
        Ok(bpe) => (bpe, "the model's own"),
        Err(_) => (o200k_base_singleton(), "o200k_base, for the model's own is not known"),
    };
    let counts =
        open.par_iter().map(|job| Ok(tokens(bpe, &jobs.payload(job)?) as u64)).collect::<Result<Vec<u64>>>()?;
    let usage =
        Usage { input_tokens: counts.iter().sum(), output_tokens: open.len() as u64 * u64::from(answer_tokens) };
    let dollars = (server.price != super::Price::default()).then(|| usage.cost(server.price));
    let mut text = format!(
        "{generator}: {} requests to send, {} answered before; {} input tokens, at most {} output tokens",
        open.len(),
        before,
        usage.input_tokens,
        usage.output_tokens
    );
    match (dollars, server.max_cost) {
        (Some(dollars), Some(most)) => {
            text += &format!("; at most ${dollars:.2}, and never more than ${most:.2} in all");
        }
        (Some(dollars), None) => text += &format!("; at most ${dollars:.2}"),
        (None, _) => text += "; no price is given",
    }
    if dollars.is_some() {
        text += &format!("; ${:.2} spent before", spent.cost(server.price));
    }
    Ok(Forecast {
        generator: generator.to_owned(),
        requests: open.len(),
        answered_before: before,
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        dollars,
        dollars_before: spent.cost(server.price),
        tokenizer,
        text,
    })
}

/// Tokens of a request's body: of its messages and the schema of its answers, or of its inputs.
fn tokens(bpe: &CoreBPE, payload: &str) -> usize {
    let body: Value = serde_json::from_str(payload).unwrap_or_default();
    let count = |text: &str| bpe.encode_ordinary(text).len();
    let items = |key: &str| body[key].as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let messages = items("messages").filter_map(|message| message["content"].as_str());
    let messages: usize = messages.map(|content| count(content) + MESSAGE_TOKENS + 1).sum();
    let inputs: usize = items("input").filter_map(Value::as_str).map(count).sum();
    let schema = &body["response_format"]["json_schema"];
    let schema = if schema.is_null() { 0 } else { count(&schema.to_string()) };
    messages + inputs + schema + if messages > 0 { MESSAGE_TOKENS } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "hello world" has two tokens, "tiktoken is great!" six in o200k_base (OpenAI's cookbook, "How to count tokens").
    #[test]
    fn tokens_are_counted_as_openai_counts_them() {
        let bpe = o200k_base_singleton();
        assert_eq!(bpe.encode_ordinary("tiktoken is great!").len(), 6);
        let chat = r#"{"messages": [{"role": "system", "content": "hello world"}, {"role": "user", "content": "tiktoken is great!"}]}"#;
        assert_eq!(tokens(bpe, chat), 2 + 6 + 2 * 4 + 3);
        assert_eq!(tokens(bpe, r#"{"input": ["hello world", "tiktoken is great!"]}"#), 8);
        assert_eq!(tokens(bpe, "{}"), 0);
    }
}
