//! From a row to a request's body, and from a response's body to answers.

use anyhow::Result;
use async_openai::types::chat::{
    ChatCompletionRequestAssistantMessage, ChatCompletionRequestMessage, ChatCompletionRequestSystemMessage,
    ChatCompletionRequestUserMessage, CreateChatCompletionRequest, ResponseFormat, ResponseFormatJsonSchema,
};
use codepair_runtime::{Config, config_error, decode, file_digest, input_error, sha256};
use minijinja::{Environment, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An example of what to answer.
#[derive(Deserialize)]
struct FewShot {
    text: String,
    code: String,
    /// What the template may use as well, such as where the code stands.
    #[serde(default)]
    context: String,
    #[serde(default = "python")]
    language: String,
    /// The right answer, or several: as many as a request asks for.
    #[serde(default)]
    answer: Option<String>,
    #[serde(default)]
    answers: Vec<String>,
}

fn python() -> String {
    "python".to_owned()
}

/// What a template may use of a row.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shown<'a> {
    pub(crate) text: &'a str,
    pub(crate) code: &'a str,
    pub(crate) context: &'a str,
    pub(crate) language: &'a str,
}

/// The names of these, and of what else a template is given.
const NAMES: [&str; 5] = ["text", "code", "context", "language", "phrasings"];

/// The name of the parameter that bounds an answer: servers know one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AnswerLimit {
    /// OpenAI's.
    #[default]
    MaxCompletionTokens,
    /// The older one, which many servers still go by.
    MaxTokens,
}

/// The content of the prompt's files.
pub(crate) struct Prompt {
    path: String,
    template: String,
    templates: Environment<'static>,
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
    pub(crate) answer_limit: AnswerLimit,
    pub(crate) answer_pattern: Option<&'a str>,
    /// Answers in one response.
    pub(crate) phrasings: usize,
    pub(crate) seed: i64,
}

impl Prompt {
    /// Reads a template and few-shot examples.
    ///
    /// # Errors
    /// Exit 2: an example is malformed, or has not as many answers as are asked for; the template uses a name that it is not
    /// given. Exit 3: a file cannot be read.
    pub(crate) fn read(config: &Config, path: &str, few_shots: Option<&str>, phrasings: usize) -> Result<Self> {
        let read = |path: &str| {
            let bytes = std::fs::read(config.resolve(path));
            let bytes = bytes.map_err(|error| input_error(format!("cannot read {path}: {error}")))?;
            decode(bytes).map_err(|what| config_error(format!("{path}: {what}")))
        };
        let template = read(path)?;
        let mut digest = file_digest(&config.resolve(path))?;
        let mut shots = Vec::new();
        if let Some(path) = few_shots {
            for (number, line) in read(path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let wrong = |what: String| config_error(format!("{path}:{}: {what}", number + 1));
                let shot: FewShot = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
                if shot.all_answers().len() < phrasings {
                    let count = shot.all_answers().len();
                    return Err(wrong(format!(
                        "{count} answers, and phrasings = {phrasings} asks for more: answers = [\"…\", …]"
                    )));
                }
                shots.push(shot);
            }
            digest = sha256(format!("{digest}\n{}", file_digest(&config.resolve(path))?).as_bytes());
        }
        let prompt = Self::new(path, template, shots, digest);
        Ok(prompt)
    }

    /// That a request shows something of its row, of what such rows have: else all requests would be the same, and one answer be
    /// everybody's.
    ///
    /// # Errors
    /// Exit 2: it does not, or uses a name that it is not given.
    pub(crate) fn check_shows(&self, text: bool, code: bool, phrasings: usize) -> Result<()> {
        let mark = |is_there: bool, mark: &'static str| if is_there { mark } else { "" };
        let row = Shown {
            text: mark(text, "TEXT-7c1e"),
            code: mark(code, "CODE-7c1e"),
            language: "python",
            ..Shown::default()
        };
        let rendered = self.render(row, phrasings)?;
        let wanted: Vec<&str> =
            [(text, "{{ text }}"), (code, "{{ code }}")].iter().filter(|(is, _)| *is).map(|(_, n)| *n).collect();
        if self.template.trim().is_empty() {
            return Err(config_error(format!(
                "{} is empty: it is what a request says, with {}",
                self.path,
                wanted.join(" or ")
            )));
        }
        if !rendered.contains("TEXT-7c1e") && !rendered.contains("CODE-7c1e") {
            return Err(config_error(format!(
                "{} shows nothing of its row, so that all requests would be the same; it needs {}",
                self.path,
                wanted.join(" or ")
            )));
        }
        Ok(())
    }

    fn new(path: &str, template: String, few_shots: Vec<FewShot>, digest: String) -> Self {
        let mut templates = Environment::new();
        // A name that nobody knows would be rendered as nothing, and all requests be the same.
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        Self { path: path.to_owned(), template, templates, few_shots, digest }
    }

    fn render(&self, shown: Shown, phrasings: usize) -> Result<String> {
        let Shown { text, code, context, language } = shown;
        let values = minijinja::context! { text, code, context, language, phrasings };
        let rendered = self.templates.render_str(&self.template, values);
        rendered.map_err(|error| {
            let unknown = self.unknown_names();
            let names = if unknown.is_empty() { String::new() } else { format!(" ({})", unknown.join(", ")) };
            config_error(format!("{}: {error}{names}; a prompt is given {}", self.path, NAMES.join(", ")))
        })
    }

    /// Names that the template uses and is not given.
    fn unknown_names(&self) -> Vec<String> {
        let template = self.templates.template_from_str(&self.template);
        let used = template.map(|template| template.undeclared_variables(false)).unwrap_or_default();
        let mut unknown: Vec<String> = used.into_iter().filter(|name| !NAMES.contains(&name.as_str())).collect();
        unknown.sort();
        unknown
    }

    /// The request's body; equal rows give equal bytes.
    pub(crate) fn payload(&self, question: &Question, row: Shown) -> Result<String> {
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
            let FewShot { text, code, context, language, .. } = shot;
            messages.push(user(self.render(Shown { text, code, context, language }, question.phrasings)?));
            messages.push(assistant(match (question.phrasings, shot.all_answers()) {
                (1, answers) => json!({ "answer": answers[0] }),
                (count, answers) => json!({ "answers": answers[..count] }),
            }));
        }
        messages.push(user(self.render(row, question.phrasings)?));
        let limit = |name| (question.answer_limit == name).then_some(question.answer_tokens);
        #[allow(deprecated, reason = "servers of open models take it, and it is what makes them repeat")]
        let request = CreateChatCompletionRequest {
            model: question.model.to_owned(),
            messages,
            temperature: Some(question.temperature),
            max_completion_tokens: limit(AnswerLimit::MaxCompletionTokens),
            max_tokens: limit(AnswerLimit::MaxTokens),
            seed: Some(question.seed),
            response_format: Some(ResponseFormat::JsonSchema { json_schema: question.format() }),
            ..CreateChatCompletionRequest::default()
        };
        Ok(serde_json::to_string(&request)?)
    }
}

impl FewShot {
    fn all_answers(&self) -> Vec<&str> {
        self.answer.iter().chain(&self.answers).map(String::as_str).collect()
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
    let message = &body["choices"][0]["message"];
    if let Some(refusal) = message["refusal"].as_str() {
        return Err(format!("the model refuses: {refusal}"));
    }
    let content = message["content"].as_str().ok_or("the response has no content")?;
    let content: Value =
        serde_json::from_str(unwrapped(content)).map_err(|e| format!("the content is no JSON: {e}"))?;
    let one = content["answer"].as_str().map(|answer| vec![answer]);
    let many = || content["answers"].as_array()?.iter().map(Value::as_str).collect();
    let found: Vec<&str> = one.or_else(many).ok_or("the content has no answer")?;
    let mut answers: Vec<String> = Vec::new();
    for answer in found.into_iter().map(unfenced).filter(|answer| !answer.is_empty()) {
        if answers.iter().all(|other| other != answer) {
            answers.push(answer.to_owned());
        }
    }
    if answers.is_empty() { Err("the answer is empty".to_owned()) } else { Ok(answers) }
}

/// An answer without the thoughts before it and the fence of code around it, which models put there whatever they are asked.
fn unwrapped(content: &str) -> &str {
    let content = content.trim();
    let after = content.strip_prefix("<think>").and_then(|thoughts| thoughts.split_once("</think>"));
    unfenced(after.map_or(content, |(_, rest)| rest))
}

/// What is within a fence of three backticks, if all of it is.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let within = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    // Behind the first three stands the language, if any, and nothing else.
    let inner = within.and_then(|within| within.split_once('\n')).filter(|(language, _)| {
        let language = language.trim();
        language.chars().all(|c| c.is_ascii_alphanumeric() || "+-#_.".contains(c))
    });
    inner.map_or(text, |(_, inner)| inner.trim_matches(['\r', '\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_and_thoughts_are_taken_off() {
        let body = |content: &str| json!({"choices": [{"message": {"content": content}}]}).to_string();
        for content in [
            "```json\n{\"answer\": \"a\"}\n```",
            "<think>\nIs it {\"answer\": \"b\"}?\n</think>\n\n{\"answer\": \"a\"}",
            "<think>so</think>```\n{\"answer\": \"```python\\na\\n```\"}\n```",
        ] {
            assert_eq!(parse(&body(content)).unwrap(), ["a"], "{content}");
        }
        assert_eq!(unfenced("```python\n    x = 1\n```"), "    x = 1");
        assert_eq!(unfenced("use ```x``` here"), "use ```x``` here");
        let refusal = json!({"choices": [{"message": {"content": null, "refusal": "I cannot do that."}}]}).to_string();
        assert!(parse(&refusal).unwrap_err().contains("I cannot do that."));
    }

    #[test]
    fn prompts_that_show_nothing_of_their_row_are_refused() {
        let shows = |template: &str, text: bool, code: bool| {
            Prompt::new("p.txt", template.to_owned(), Vec::new(), String::new()).check_shows(text, code, 1)
        };
        shows("Say {{ text }}", true, true).unwrap();
        shows("{{ code }}", false, true).unwrap();
        for (template, text, code, words) in [
            ("", true, true, "is empty"),
            ("  \n", true, true, "is empty"),
            ("Say it otherwise.", true, true, "shows nothing of its row"),
            ("In {{ language }} and {{ context }}", true, true, "shows nothing of its row"),
            ("{{ text }}", false, true, "needs {{ code }}"),
            ("{{ code }}", true, false, "needs {{ text }}"),
            ("{{ txt }} {{ cod }}", true, true, "(cod, txt); a prompt is given text, code"),
        ] {
            let error = shows(template, text, code).unwrap_err();
            assert_eq!(codepair_runtime::exit_status(&error), codepair_runtime::ExitStatus::WrongConfig);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    /// Every prompt that is shipped, with a row in it: one that was empty once had all rows share one answer.
    #[test]
    fn shipped_prompts_show_their_rows() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let config = Config::parse("name = \"t\"", &folder.join("c.toml"), &[]).unwrap();
        let row = Shown { text: "Sum the items.", code: "def total(items): ...", context: "shop", language: "python" };
        let mut rendered = String::new();
        let mut names: Vec<_> =
            std::fs::read_dir(folder.join("prompts")).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        for name in names.iter().filter_map(|name| name.to_str()?.strip_suffix(".txt")) {
            let few_shots = format!("prompts/{name}.jsonl");
            let prompt = Prompt::read(&config, &format!("prompts/{name}.txt"), Some(&few_shots), 1).unwrap();
            prompt.check_shows(true, true, 1).unwrap();
            assert!(!prompt.few_shots.is_empty(), "{name}");
            rendered += &format!("--- {name}\n{}\n", prompt.render(row, 1).unwrap().trim_end());
        }
        insta::assert_snapshot!(rendered);
    }

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
            (body("{\"answers\": [\"a\", 1]}").as_str(), "no answer"),
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
            answer_limit: AnswerLimit::MaxTokens,
            answer_pattern: Some("[a-z]+"),
            phrasings: 1,
            seed: 3,
        };
        let shot = r#"{"text": "t0", "code": "c0", "answers": ["a0", "a1", "a2", "a3"]}"#;
        let template = "{{ phrasings }} Text: {{ text }} Code: {{ code }} In: {{ context }} {{ language }}".to_owned();
        let prompt = Prompt::new("p", template, vec![serde_json::from_str(shot).unwrap()], String::new());
        let row = Shown { text: "t1", code: "c1", context: "a.py", language: "go" };
        let payload = prompt.payload(&question, row).unwrap();
        assert_eq!(payload, prompt.payload(&question, row).unwrap());
        let value: Value = serde_json::from_str(&payload).unwrap();
        assert_eq!((&value["max_tokens"], &value["max_completion_tokens"]), (&9.into(), &Value::Null));
        let roles: Vec<&str> =
            value["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert_eq!(value["messages"][3]["content"], "1 Text: t1 Code: c1 In: a.py go");
        assert_eq!(value["messages"][2]["content"], "{\"answer\":\"a0\"}");
        let properties = |payload: &str| {
            let value: Value = serde_json::from_str(payload).unwrap();
            value["response_format"]["json_schema"]["schema"]["properties"].clone()
        };
        assert_eq!(properties(&payload)["answer"]["pattern"], "[a-z]+");
        let three = prompt.payload(&Question { phrasings: 3, ..question }, row).unwrap();
        assert_eq!(properties(&three)["answers"]["minItems"], 3);
        let value: Value = serde_json::from_str(&three).unwrap();
        assert_eq!(value["messages"][2]["content"], "{\"answers\":[\"a0\",\"a1\",\"a2\"]}");
        assert_eq!(value["messages"][1]["content"], "3 Text: t0 Code: c0 In:  python");
    }

    #[test]
    fn a_name_that_nobody_knows_is_an_error() {
        let prompt = Prompt::new("p.txt", "{{ txt }}".to_owned(), Vec::new(), String::new());
        let error = prompt.render(Shown::default(), 1).unwrap_err().to_string();
        assert!(error.contains("p.txt") && error.contains("undefined"), "{error}");
    }
}
