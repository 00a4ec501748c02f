//! Pairs from any OpenAI-compatible server: a prompt and few-shot examples from files, one structured answer a row.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_openai::types::chat::{
    ChatCompletionRequestAssistantMessage, ChatCompletionRequestMessage, ChatCompletionRequestSystemMessage,
    ChatCompletionRequestUserMessage, CreateChatCompletionRequest, ResponseFormat, ResponseFormatJsonSchema,
};
use codepair_code::parses;
use codepair_runtime::{Config, Context, Progress, block_on, config_error, file_digest, input_error};
use codepair_schemas::rows::Request;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Kind;
use crate::openai::{Answer, Client, Ledger, Settings, request_hash};
use crate::rows::{Kind as PairKind, Made, Pair, Parent};

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
    /// A file with the user's message, a Jinja template over `text` and `code`.
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
    /// Ask only for the first so many rows.
    limit: Option<usize>,
    temperature: f32,
    /// Tokens of an answer at most.
    max_tokens: u32,
    /// A regular expression that the answer matches, for servers that need bounded schemas.
    answer_pattern: Option<String>,
    seed: i64,
    /// Requests under way at once.
    #[serde(skip_serializing)]
    concurrency: usize,
    #[serde(skip_serializing)]
    timeout_seconds: u64,
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
            limit: None,
            temperature: 0.7,
            max_tokens: 512,
            answer_pattern: None,
            seed: 0,
            concurrency: 8,
            timeout_seconds: 120,
            retries: 5,
        }
    }
}

#[derive(Deserialize)]
struct FewShot {
    text: String,
    code: String,
    answer: String,
}

/// The files' content, read.
struct Prompt {
    template: String,
    few_shots: Vec<FewShot>,
}

impl Kind for Openai {
    fn files(&self, config: &Config) -> Result<BTreeMap<String, String>> {
        if self.model.is_empty() || self.prompt.is_empty() {
            return Err(config_error("model and prompt are needed: model = \"gpt-…\", prompt = \"prompts/query.txt\""));
        }
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
        let prompt = self.read_prompt(&context.config)?;
        let client = Client::new(Settings {
            base_url: self.base_url.clone(),
            api_key: std::env::var(&self.api_key_env).unwrap_or_default(),
            timeout: Duration::from_secs(self.timeout_seconds),
            retries: self.retries,
        })?;
        let mut ledger = Ledger::open(&context.store)?;
        let parents = &parents[..self.limit.unwrap_or(parents.len()).min(parents.len())];
        let payloads = parents.iter().map(|parent| self.payload(&prompt, parent)).collect::<Result<Vec<String>>>()?;
        let refused = self.ask_all(name, &client, &mut ledger, &payloads)?;
        for (parent, payload) in parents.iter().zip(&payloads) {
            let key = request_hash(&client.endpoint(), payload);
            match ledger.find(&key) {
                Some(answer) => {
                    made.requests.push(Request { generator: name.to_owned(), ..answer.clone() });
                    self.put(name, parent, answer, made);
                }
                None => {
                    let words = refused.get(&key).map_or("", String::as_str);
                    made.reject(name, parent, "request_refused", words);
                }
            }
        }
        Ok(())
    }
}

impl Openai {
    fn read_prompt(&self, config: &Config) -> Result<Prompt> {
        let template = std::fs::read_to_string(config.resolve(&self.prompt))?;
        let mut few_shots = Vec::new();
        if let Some(path) = &self.few_shots {
            for (number, line) in std::fs::read_to_string(config.resolve(path))?.lines().enumerate() {
                let shot = serde_json::from_str(line)
                    .map_err(|error| config_error(format!("{path}:{}: {error}", number + 1)))?;
                few_shots.push(shot);
            }
        }
        Ok(Prompt { template, few_shots })
    }

    /// The request's body; equal rows give equal bytes.
    fn payload(&self, prompt: &Prompt, parent: &Parent) -> Result<String> {
        let render = |text: &str, code: &str| {
            let values = minijinja::context! { text => text, code => code };
            minijinja::Environment::new()
                .render_str(&prompt.template, values)
                .map_err(|error| config_error(format!("{}: {error}", self.prompt)))
        };
        let user = |text: String| ChatCompletionRequestMessage::User(ChatCompletionRequestUserMessage::from(text));
        let mut messages = Vec::new();
        if !self.system.is_empty() {
            messages.push(ChatCompletionRequestMessage::System(ChatCompletionRequestSystemMessage::from(
                self.system.as_str(),
            )));
        }
        for shot in &prompt.few_shots {
            messages.push(user(render(&shot.text, &shot.code)?));
            let answer = json!({ "answer": shot.answer }).to_string();
            messages.push(ChatCompletionRequestMessage::Assistant(ChatCompletionRequestAssistantMessage::from(
                answer.as_str(),
            )));
        }
        messages.push(user(render(&parent.text, &parent.code)?));
        let mut answer = json!({ "type": "string" });
        if let Some(pattern) = &self.answer_pattern {
            answer["pattern"] = pattern.as_str().into();
        }
        let schema = json!({
            "type": "object", "properties": { "answer": answer }, "required": ["answer"], "additionalProperties": false,
        });
        let format =
            ResponseFormatJsonSchema { description: None, name: "pair".to_owned(), schema, strict: Some(true) };
        #[allow(deprecated, reason = "servers of open models take it, and it is what makes them repeat")]
        let request = CreateChatCompletionRequest {
            model: self.model.clone(),
            messages,
            temperature: Some(self.temperature),
            max_completion_tokens: Some(self.max_tokens),
            seed: Some(self.seed),
            response_format: Some(ResponseFormat::JsonSchema { json_schema: format }),
            ..CreateChatCompletionRequest::default()
        };
        Ok(serde_json::to_string(&request)?)
    }

    /// Asks what the ledger does not hold yet, each request once, and returns the refusals by request. What was answered
    /// before an error is in the ledger.
    fn ask_all(
        &self,
        name: &str,
        client: &Client,
        ledger: &mut Ledger,
        payloads: &[String],
    ) -> Result<BTreeMap<String, String>> {
        let endpoint = client.endpoint();
        let mut open: BTreeMap<String, &String> = BTreeMap::new();
        for payload in payloads {
            let key = request_hash(&endpoint, payload);
            if ledger.find(&key).is_none() {
                open.insert(key, payload);
            }
        }
        tracing::info!("{name}: {} requests, {} answered before", payloads.len(), payloads.len() - open.len());
        let progress = Progress::new(&format!("asking {}", self.model), "requests", open.len() as u64);
        let mut refused = BTreeMap::new();
        let asked: Result<()> = block_on(async {
            let mut answers = futures::stream::iter(open)
                .map(|(key, payload)| async move { (key, payload, client.ask(payload).await) })
                .buffer_unordered(self.concurrency.max(1));
            while let Some((key, payload, answer)) = answers.next().await {
                progress.add(1);
                let response = match answer? {
                    Answer::Answered(response) => response,
                    Answer::Refused { status, words } => {
                        refused.insert(key, format!("status {status}: {words}"));
                        continue;
                    }
                };
                let row = Request {
                    request: key,
                    generator: name.to_owned(),
                    endpoint: endpoint.clone(),
                    payload: payload.clone(),
                    status: 200,
                    response,
                };
                // The store's calls block; they must not do so on this thread.
                tokio::task::block_in_place(|| std::thread::scope(|s| s.spawn(|| ledger.add(row)).join()))
                    .map_err(|_| anyhow::anyhow!("writing the ledger panicked"))??;
            }
            Ok(())
        });
        ledger.flush()?;
        asked.context("what was answered is kept; run it again to go on from there")?;
        Ok(refused)
    }

    fn put(&self, name: &str, parent: &Parent, answer: &Request, made: &mut Made) {
        let text = match parse(&answer.response) {
            Ok(text) => text,
            Err(detail) => return made.reject(name, parent, "malformed_answer", detail),
        };
        let (text, code) = match self.answers {
            Field::Text => (text, parent.code.clone()),
            Field::Code if parses(&text) => (parent.text.clone(), text),
            Field::Code => return made.reject(name, parent, "syntax_error", "the code is no valid Python"),
        };
        let request = Some(answer.request.clone());
        made.pair(name, parent, Pair { kind: self.pairs, edit: name.to_owned(), text, code, request });
    }
}

/// The answer in a response's body.
fn parse(response: &str) -> Result<String, String> {
    let body: Value = serde_json::from_str(response).map_err(|e| format!("the response is no JSON: {e}"))?;
    let content = body["choices"][0]["message"]["content"].as_str().ok_or("the response has no content")?;
    let answer: Value = serde_json::from_str(content).map_err(|e| format!("the content is no JSON: {e}"))?;
    let answer = answer["answer"].as_str().ok_or("the content has no answer")?.trim();
    if answer.is_empty() { Err("the answer is empty".to_owned()) } else { Ok(answer.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_and_wrong_ones_named() {
        let body = |content: &str| json!({"choices": [{"message": {"content": content}}]}).to_string();
        assert_eq!(parse(&body("{\"answer\": \" a b \"}")), Ok("a b".to_owned()));
        for (response, word) in [
            ("{", "no JSON"),
            ("{}", "no content"),
            (body("text").as_str(), "content is no JSON"),
            (body("{\"x\": 1}").as_str(), "no answer"),
            (body("{\"answer\": \" \"}").as_str(), "empty"),
        ] {
            assert!(parse(response).unwrap_err().contains(word), "{response}");
        }
    }

    #[test]
    fn payloads_are_equal_for_equal_rows() {
        let openai = Openai {
            model: "m".into(),
            system: "s".into(),
            answer_pattern: Some("[a-z]+".into()),
            ..Openai::default()
        };
        let shot = FewShot { text: "t0".into(), code: "c0".into(), answer: "a0".into() };
        let prompt = Prompt { template: "Text: {{ text }} Code: {{ code }}".into(), few_shots: vec![shot] };
        let parent = Parent { text: "t1".into(), code: "c1".into(), ..Parent::default() };
        let payload = openai.payload(&prompt, &parent).unwrap();
        assert_eq!(payload, openai.payload(&prompt, &parent).unwrap());
        let value: Value = serde_json::from_str(&payload).unwrap();
        let roles: Vec<&str> =
            value["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert_eq!(value["messages"][3]["content"], "Text: t1 Code: c1");
        assert_eq!(value["response_format"]["json_schema"]["schema"]["properties"]["answer"]["pattern"], "[a-z]+");
    }
}
