//! Pairs from any OpenAI-compatible server: a prompt and few-shot examples from files, one structured answer a row.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use codepair_code::Language;
use codepair_runtime::{Config, Context, config_error, file_digest, input_error};
use codepair_schemas::rows::Request;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Kind;
use crate::openai::{
    Allowed, Asker, Budget, Client, Ledger, Limits, Price, Prompt, Question, Settings, keys, parse, request_hash,
    spent_before,
};
use crate::rows::{Kind as PairKind, Made, Pair, Parent, Provenance};

/// What is asked for, of whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Openai {
    /// The server's base URL, up to `/v1`.
    base_url: String,
    /// The model's name there.
    model: String,
    /// The environment variable that holds the key; servers without keys need none.
    #[serde(skip_serializing)]
    api_key_env: String,
    /// A file with the user's message, a Jinja template over `text`, `code` and `context` (repository and path).
    #[serde(skip_serializing)]
    prompt: String,
    /// A JSON-lines file of examples: `text`, `code` and the right `answer`.
    #[serde(skip_serializing)]
    few_shots: Option<String>,
    /// The system message.
    system: String,
    /// Which field the answer replaces: `text` or `code`.
    answers: Field,
    /// Whether text and code still belong together.
    pairs: PairKind,
    /// Different answers to ask for in one request.
    phrasings: usize,
    /// Ask only for the first so many rows.
    limit: Option<usize>,
    temperature: f32,
    /// Tokens of an answer at most.
    answer_tokens: u32,
    /// A regular expression that the answer matches, for servers that need bounded schemas.
    answer_pattern: Option<String>,
    seed: i64,
    /// Dollars a million tokens.
    price: Price,
    /// Dollars to spend on this generator's rows at most, in all runs together.
    max_cost: Option<f64>,
    /// Tokens to spend likewise, of requests and answers.
    max_tokens: Option<u64>,
    /// Requests under way at once at most; fewer where the server is overloaded.
    #[serde(skip_serializing)]
    concurrency: usize,
    #[serde(skip_serializing)]
    requests_per_minute: Option<u32>,
    #[serde(skip_serializing)]
    tokens_per_minute: Option<u32>,
    #[serde(skip_serializing)]
    timeout_seconds: f64,
    /// Tries after the first for busy or broken answers.
    #[serde(skip_serializing)]
    retries: u32,
}

/// A field of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Field {
    Text,
    Code,
}

impl Default for Openai {
    fn default() -> Self {
        Self {
            base_url: "https://api.openai.com/v1".to_owned(),
            model: String::new(),
            api_key_env: "OPENAI_API_KEY".to_owned(),
            prompt: String::new(),
            few_shots: None,
            system: String::new(),
            answers: Field::Text,
            pairs: PairKind::Positive,
            phrasings: 1,
            limit: None,
            temperature: 0.7,
            answer_tokens: 512,
            answer_pattern: None,
            seed: 0,
            price: Price::default(),
            max_cost: None,
            max_tokens: None,
            concurrency: 16,
            requests_per_minute: None,
            tokens_per_minute: None,
            timeout_seconds: 120.0,
            retries: 8,
        }
    }
}

impl Kind for Openai {
    fn files(&self, config: &Config) -> Result<BTreeMap<String, String>> {
        self.check()?;
        let mut files = BTreeMap::new();
        for (name, path) in [("prompt", Some(&self.prompt)), ("few_shots", self.few_shots.as_ref())] {
            if let Some(path) = path {
                let digest = file_digest(&config.resolve(path)).map_err(|e| input_error(format!("{name}: {e:#}")))?;
                files.insert(name.to_owned(), digest);
            }
        }
        Ok(files)
    }

    fn generate(&self, context: &Context, name: &str, parents: &[Parent], made: &mut Made) -> Result<()> {
        let prompt = Prompt::read(&context.config, &self.prompt, self.few_shots.as_deref())?;
        let client = Client::new(Settings {
            base_url: self.base_url.clone(),
            api_key: std::env::var(&self.api_key_env).unwrap_or_default(),
            timeout: Duration::from_secs_f64(self.timeout_seconds),
        })?;
        let endpoint = client.endpoint();
        let parents = &parents[..self.limit.unwrap_or(parents.len()).min(parents.len())];
        let question = self.question();
        let payload = |parent: &Parent| prompt.payload(&question, &parent.text, &parent.code, &parent.context);
        let payloads = parents.iter().map(payload).collect::<Result<Vec<String>>>()?;
        let mut ledger = Ledger::open(&context.store, &keys(&endpoint, &payloads))?;
        let spent = spent_before(&ledger, &endpoint, &payloads, self.answer_tokens);
        let asker = Asker {
            generator: name,
            client,
            limits: Limits::new(Allowed {
                concurrency: self.concurrency,
                requests_per_minute: self.requests_per_minute,
                tokens_per_minute: self.tokens_per_minute,
            }),
            budget: Budget::new(self.price, self.max_cost, self.max_tokens, spent),
            retries: self.retries,
            answer_tokens: self.answer_tokens,
        };
        let (unanswered, summary) = asker.ask_all(&mut ledger, &payloads)?;
        made.notes.insert(name.to_owned(), summary);
        let provenance = self.provenance(&prompt);
        for (parent, payload) in parents.iter().zip(&payloads) {
            let key = request_hash(&endpoint, payload);
            if let Some(answer) = ledger.find(&key) {
                made.requests.push(Request { generator: name.to_owned(), ..answer.clone() });
                self.put(name, parent, answer, &provenance, made);
            } else if let Some((reason, words)) = unanswered.get(&key) {
                made.reject(name, parent, reason, words);
            }
        }
        Ok(())
    }
}

impl Openai {
    fn check(&self) -> Result<()> {
        if self.model.is_empty() || self.prompt.is_empty() {
            return Err(config_error("model and prompt are needed: model = \"gpt-…\", prompt = \"prompts/query.txt\""));
        }
        if self.phrasings == 0 {
            return Err(config_error("phrasings must be at least 1"));
        }
        if !(self.timeout_seconds > 0.0 && self.timeout_seconds < 1e6) {
            return Err(config_error("timeout_seconds must be above 0"));
        }
        if self.max_cost.is_some() && self.price == Price::default() {
            return Err(config_error(
                "max_cost needs the price of a million tokens: price = { input = 0.4, output = 1.6 }",
            ));
        }
        Ok(())
    }

    fn question(&self) -> Question<'_> {
        Question {
            model: &self.model,
            system: &self.system,
            temperature: self.temperature,
            answer_tokens: self.answer_tokens,
            answer_pattern: self.answer_pattern.as_deref(),
            phrasings: self.phrasings,
            seed: self.seed,
        }
    }

    fn provenance(&self, prompt: &Prompt) -> Provenance {
        let parameters = json!({
            "temperature": self.temperature, "answer_tokens": self.answer_tokens, "phrasings": self.phrasings,
        });
        Provenance {
            request: None,
            model: Some(self.model.clone()),
            prompt: Some(prompt.digest.clone()),
            parameters: Some(parameters.to_string()),
            seed: Some(self.seed),
        }
    }

    fn put(&self, name: &str, parent: &Parent, answer: &Request, provenance: &Provenance, made: &mut Made) {
        let answers = match parse(&answer.response) {
            Ok(answers) => answers,
            Err(detail) => return made.reject(name, parent, "malformed_answer", detail),
        };
        for answered in answers {
            let (text, code) = match self.answers {
                Field::Text => (answered, parent.code.clone()),
                Field::Code if Language::Python.check(&answered).is_ok() => (parent.text.clone(), answered),
                Field::Code => {
                    made.reject(name, parent, "syntax_error", "the code is no valid Python");
                    continue;
                }
            };
            let provenance = Provenance { request: Some(answer.request.clone()), ..provenance.clone() };
            made.pair(name, parent, Pair { kind: self.pairs, edit: name.to_owned(), text, code, provenance });
        }
    }
}
