//! From a row to a request's body, and from a response's body to answers.

use anyhow::Result;
use async_openai::types::chat::{
    ChatCompletionRequestAssistantMessage, ChatCompletionRequestMessage, ChatCompletionRequestSystemMessage,
    ChatCompletionRequestUserMessage, CreateChatCompletionRequest, ResponseFormat, ResponseFormatJsonSchema,
};
use codepair_runtime::{Config, config_error, file_digest, sha256};
use serde::Deserialize;
use serde_json::{Value, json};

/// An example of what to answer.
#[derive(Deserialize)]
struct FewShot {
    text: String,
    code: String,
    /// What the template may use as well, such as where the code stands.
    #[serde(default)]
    context: String,
    answer: String,
}

/// The content of the prompt's files.
pub(crate) struct Prompt {
    path: String,
    template: String,
    few_shots: Vec<FewShot>,
    /// SHA-256 of the files.
    pub(crate) digest: String,
}

/// What decides about a request besides the prompt and the row.
pub(crate) struct Question<'a> {
    pub(crate) model: &'a str,
    pub(crate) system: &'a str,
    pub(crate) temperature: f32,
    pub(crate) answer_tokens: u32,
    pub(crate) answer_pattern: Option<&'a str>,
    /// Answers in one response.
    pub(crate) phrasings: usize,
    pub(crate) seed: i64,
}

impl Prompt {
    /// Reads a template and few-shot examples.
    ///
    /// # Errors
    /// Exit 2: an example is malformed.
    pub(crate) fn read(config: &Config, path: &str, few_shots: Option<&str>) -> Result<Self> {
        let template = std::fs::read_to_string(config.resolve(path))?;
        let mut digest = file_digest(&config.resolve(path))?;
        let mut shots = Vec::new();
        if let Some(path) = few_shots {
            for (number, line) in std::fs::read_to_string(config.resolve(path))?.lines().enumerate() {
                let shot = serde_json::from_str(line)
                    .map_err(|error| config_error(format!("{path}:{}: {error}", number + 1)))?;
                shots.push(shot);
            }
            digest = sha256(format!("{digest}\n{}", file_digest(&config.resolve(path))?).as_bytes());
        }
        Ok(Self { path: path.to_owned(), template, few_shots: shots, digest })
    }

    fn render(&self, text: &str, code: &str, context: &str) -> Result<String> {
        let values = minijinja::context! { text => text, code => code, context => context };
        let rendered = minijinja::Environment::new().render_str(&self.template, values);
        rendered.map_err(|error| config_error(format!("{}: {error}", self.path)))
    }

    /// The request's body; equal rows give equal bytes.
    pub(crate) fn payload(&self, question: &Question, text: &str, code: &str, context: &str) -> Result<String> {
        let user = |text: String| ChatCompletionRequestMessage::User(ChatCompletionRequestUserMessage::from(text));
        let assistant = |answer: Value| {
            let answer = ChatCompletionRequestAssistantMessage::from(answer.to_string().as_str());
            ChatCompletionRequestMessage::Assistant(answer)
        };
        let mut messages = Vec::new();
        if !question.system.is_empty() {
            let system = ChatCompletionRequestSystemMessage::from(question.system);
            messages.push(ChatCompletionRequestMessage::System(system));
        }
        for shot in &self.few_shots {
            messages.push(user(self.render(&shot.text, &shot.code, &shot.context)?));
            messages.push(assistant(match question.phrasings {
                1 => json!({ "answer": shot.answer }),
                _ => json!({ "answers": [shot.answer] }),
            }));
        }
        messages.push(user(self.render(text, code, context)?));
        #[allow(deprecated, reason = "servers of open models take it, and it is what makes them repeat")]
        let request = CreateChatCompletionRequest {
            model: question.model.to_owned(),
            messages,
            temperature: Some(question.temperature),
            max_completion_tokens: Some(question.answer_tokens),
            seed: Some(question.seed),
            response_format: Some(ResponseFormat::JsonSchema { json_schema: question.format() }),
            ..CreateChatCompletionRequest::default()
        };
        Ok(serde_json::to_string(&request)?)
    }
}

impl Question<'_> {
    fn format(&self) -> ResponseFormatJsonSchema {
        let mut answer = json!({ "type": "string" });
        if let Some(pattern) = self.answer_pattern {
            answer["pattern"] = pattern.into();
        }
        let (name, content) = match self.phrasings {
            1 => ("answer", answer),
            count => ("answers", json!({ "type": "array", "items": answer, "minItems": count, "maxItems": count })),
        };
        let schema = json!({
            "type": "object", "properties": { name: content }, "required": [name], "additionalProperties": false,
        });
        ResponseFormatJsonSchema { description: None, name: "pair".to_owned(), schema, strict: Some(true) }
    }
}

/// The answers in a response's body, each once.
///
/// # Errors
/// What about it is not as the schema has it.
pub(crate) fn parse(response: &str) -> Result<Vec<String>, String> {
    let body: Value = serde_json::from_str(response).map_err(|e| format!("the response is no JSON: {e}"))?;
    let content = body["choices"][0]["message"]["content"].as_str().ok_or("the response has no content")?;
    let content: Value = serde_json::from_str(content).map_err(|e| format!("the content is no JSON: {e}"))?;
    let one = content["answer"].as_str().map(|answer| vec![answer]);
    let many = || Some(content["answers"].as_array()?.iter().filter_map(Value::as_str).collect());
    let found: Vec<&str> = one.or_else(many).ok_or("the content has no answer")?;
    let mut answers: Vec<String> = Vec::new();
    for answer in found.into_iter().map(str::trim).filter(|answer| !answer.is_empty()) {
        if answers.iter().all(|other| other != answer) {
            answers.push(answer.to_owned());
        }
    }
    if answers.is_empty() { Err("the answer is empty".to_owned()) } else { Ok(answers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_and_wrong_ones_named() {
        let body = |content: &str| json!({"choices": [{"message": {"content": content}}]}).to_string();
        assert_eq!(parse(&body("{\"answer\": \" a b \"}")).unwrap(), ["a b"]);
        assert_eq!(parse(&body("{\"answers\": [\"a\", \" \", \"b\", \"a\"]}")).unwrap(), ["a", "b"]);
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
        let question = Question {
            model: "m",
            system: "s",
            temperature: 0.5,
            answer_tokens: 9,
            answer_pattern: Some("[a-z]+"),
            phrasings: 1,
            seed: 3,
        };
        let shot = FewShot { text: "t0".into(), code: "c0".into(), context: String::new(), answer: "a0".into() };
        let template = "Text: {{ text }} Code: {{ code }} In: {{ context }}".to_owned();
        let prompt = Prompt { path: "p".into(), template, few_shots: vec![shot], digest: String::new() };
        let payload = prompt.payload(&question, "t1", "c1", "a.py").unwrap();
        assert_eq!(payload, prompt.payload(&question, "t1", "c1", "a.py").unwrap());
        let value: Value = serde_json::from_str(&payload).unwrap();
        let roles: Vec<&str> =
            value["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert_eq!(value["messages"][3]["content"], "Text: t1 Code: c1 In: a.py");
        let properties = |payload: &str| {
            let value: Value = serde_json::from_str(payload).unwrap();
            value["response_format"]["json_schema"]["schema"]["properties"].clone()
        };
        assert_eq!(properties(&payload)["answer"]["pattern"], "[a-z]+");
        let three = prompt.payload(&Question { phrasings: 3, ..question }, "t1", "c1", "").unwrap();
        assert_eq!(properties(&three)["answers"]["minItems"], 3);
    }
}
