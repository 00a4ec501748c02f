//! Pairs from any OpenAI-compatible server: a prompt and few-shot examples from files, one structured answer a row.

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_code::{Language, functions};
use codepair_runtime::{Config, Context, config_error, file_digest, input_error};
use codepair_schemas::Field;
use codepair_schemas::rows::Request;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::GeneratorKind;
use crate::consistency::{CheckedPair, Checker, Consistency};
use crate::openai::{
    AnswerLimit, Asked, Client, FaultOf, Forecast, Jobs, Prompt, Question, Shown, ask, asking, forecast, parse,
    spending,
};
use crate::rows::{
    Made, Pair, PairKind, Parent, Provenance, Splits, chunked, documented, limited, of_shard, parents, queries,
};

/// Rows whose pairs are checked and written at once.
const CHUNK: usize = 4096;

asking! {
    /// What is asked for, of whom.
    pub struct Openai {
        /// A file with the user's message, a Jinja template over `text`, `code`, `context` (repository and path), `language` and
        /// `phrasings`.
        #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
        prompt: String = String::new(),
        /// A JSON-lines file of examples: `text`, `code` and the right `answer`, or `answers`.
        #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
        few_shots: Option<String> = None,
        /// The system message.
        system: String = String::new(),
        /// Which field the answer replaces: `text` or `code`.
        answers: Field = Field::Text,
        /// The rows to ask for: `documented`, `undocumented` or `all` functions and problems, or `queries` of the training split,
        /// which have no code.
        rows: Rows = Rows::Documented,
        /// Whether text and code still belong together.
        pairs: PairKind = PairKind::Positive,
        /// Different answers to ask for in one request.
        phrasings: usize = 1,
        /// Ask only for so many rows, by the hash of their ids.
        limit: Option<usize> = None,
        /// How freely the server picks tokens; 0 is the most likely ones.
        temperature: f32 = 0.7,
        /// Tokens of an answer at most.
        answer_tokens: u32 = 512,
        /// The parameter that says so: `max_completion_tokens`, or `max_tokens` for servers that know only that.
        answer_limit: AnswerLimit = AnswerLimit::default(),
        /// A regular expression that the answer matches, for servers that need bounded schemas.
        answer_pattern: Option<String> = None,
        /// Sent with each request, for servers that heed it.
        seed: i64 = 0,
        /// Keep only pairs whose code ranks first for its text: `{ by = "bm25" }`, or `{ by = "NAME@FINGERPRINT" }` of a
        /// search model; `rank` and `min_score` say how well.
        consistency: Option<Consistency> = None,
    }
}

/// The rows to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Rows {
    Documented,
    Undocumented,
    All,
    Queries,
}

/// What is wrong with an answer.
const FAULT: FaultOf<'static> = &|_, response| parse(response).err();

impl GeneratorKind for Openai {
    fn files(&self, config: &Config) -> Result<BTreeMap<String, String>> {
        self.check()?;
        let mut files = BTreeMap::new();
        for (name, path) in [("prompt", Some(&self.prompt)), ("few_shots", self.few_shots.as_ref())] {
            if let Some(path) = path {
                let digest = file_digest(&config.resolve(path)).map_err(|e| input_error(format!("{name}: {e:#}")))?;
                files.insert(name.to_owned(), digest);
            }
        }
        self.read_prompt(config)?;
        Ok(files)
    }

    fn generate(&self, context: &Context, name: &str, made: &mut Made) -> Result<()> {
        let prompt = self.read_prompt(&context.config)?;
        let (client, jobs) = self.jobs(context, &prompt)?;
        let server = self.server();
        let asked = Asked {
            context,
            generator: name,
            server: &server,
            jobs: &jobs,
            answer_tokens: self.answer_tokens,
            fault: FAULT,
            may_be_shared: false,
            is_patient: false,
        };
        let answers = ask(&asked, client)?;
        made.check_open(name, &server, &answers)?;
        answers.summary.iter().for_each(|(key, value)| made.note(name, key, value.clone()));
        let provenance = self.provenance(&prompt);
        let checker = self.consistency.as_ref().map(|wanted| Checker::new(context, wanted)).transpose()?;
        let mut answered = jobs.list().iter();
        chunked(self.parents(context, &prompt)?, CHUNK, |parents| {
            let mut drafts = Vec::new();
            for (parent, job) in parents.iter().zip(answered.by_ref()) {
                let from = drafts.len();
                if let Some(answer) = answers.ledger.find(&job.key)? {
                    self.read(parent, &answer, &provenance, &mut drafts);
                } else if let Some((reason, words)) = answers.unanswered.get(&job.key) {
                    drafts.push((parent, Err((*reason, words.clone()))));
                }
                name_request(&mut drafts[from..], &job.key);
            }
            if let Some(checker) = &checker {
                check(checker, &mut drafts)?;
            }
            drafts.into_iter().try_for_each(|(parent, draft)| match draft {
                Ok(pair) => made.pair(name, parent, Pair { edit: name.to_owned(), ..pair }),
                Err((reason, detail)) => {
                    made.reject(name, parent.place(), reason, detail);
                    Ok(())
                }
            })
        })?;
        made.snapshot(name, answers.ledger, jobs.keys());
        Ok(())
    }

    fn forecast(&self, context: &Context, name: &str) -> Result<Option<Forecast>> {
        let prompt = self.read_prompt(&context.config)?;
        let (_, jobs) = self.jobs(context, &prompt)?;
        forecast(context, name, &self.server(), &jobs, self.answer_tokens, FAULT).map(Some)
    }

    fn spent(&self, context: &Context, name: &str) -> Result<Vec<(&'static str, Value)>> {
        spending(context, name, &self.server(), self.answer_tokens)
    }

    fn asks(&self) -> bool {
        true
    }

    fn reads_queries(&self) -> bool {
        self.rows == Rows::Queries
    }
}

impl Openai {
    fn read_prompt(&self, config: &Config) -> Result<Prompt> {
        let prompt = Prompt::read(config, &self.prompt, self.few_shots.as_deref(), self.phrasings)?;
        // What a row of this sort has, and the prompt can show.
        let (text, code) = match self.rows {
            Rows::Documented => (true, true),
            Rows::Undocumented | Rows::All => (false, true),
            Rows::Queries => (true, false),
        };
        prompt.check_shows(text, code, self.phrasings)?;
        Ok(prompt)
    }

    fn check(&self) -> Result<()> {
        if self.prompt.is_empty() {
            return Err(config_error("prompt is needed, a file: prompt = \"prompts/query_for_code.txt\""));
        }
        match (self.answers, self.rows) {
            (Field::Code, Rows::Undocumented | Rows::All) => {
                return Err(config_error(
                    "answers = \"code\" needs rows with a text: rows = \"documented\" or \"queries\"",
                ));
            }
            (Field::Text, Rows::Queries) => {
                return Err(config_error(
                    "rows = \"queries\" have no code, so answers = \"code\" is all that makes pairs of them",
                ));
            }
            _ => {}
        }
        if self.phrasings == 0 {
            return Err(config_error("phrasings must be at least 1"));
        }
        self.consistency.as_ref().map_or(Ok(()), Consistency::check)?;
        self.server().check()
    }

    fn jobs(&self, context: &Context, prompt: &Prompt) -> Result<(Client, Jobs)> {
        let client = self.server().client("/chat/completions")?;
        let mut jobs = Jobs::new(client.endpoint())?;
        for parent in self.parents(context, prompt)? {
            jobs.add(&self.payload(prompt, &parent?)?)?;
        }
        Ok((client, jobs))
    }

    /// The rows to ask for.
    fn parents<'a>(
        &'a self,
        context: &'a Context,
        prompt: &'a Prompt,
    ) -> Result<Box<dyn Iterator<Item = Result<Parent>> + 'a>> {
        let undocumented = |row: &Result<Parent>| row.as_ref().map_or(true, |row| !row.has_text());
        let rows = match self.rows {
            Rows::Documented => limited(self.limit, || documented(context)),
            Rows::Undocumented => limited(self.limit, || parents(context, Splits::Train).filter(undocumented)),
            Rows::All => limited(self.limit, || parents(context, Splits::Train)),
            Rows::Queries => limited(self.limit, || queries(context, Splits::Train)),
        }?;
        // Rows that are asked about in the same words are one shard's, or two would pay for one answer.
        let asked = |row: &Parent| self.payload(prompt, row).unwrap_or_default();
        Ok(Box::new(of_shard(context, rows, asked)))
    }

    /// What is asked about a row.
    fn payload(&self, prompt: &Prompt, row: &Parent) -> Result<String> {
        let Parent { text, code, context, language, .. } = row;
        prompt.payload(&self.question(), Shown { text, code, context, language })
    }

    fn question(&self) -> Question<'_> {
        Question {
            model: &self.model,
            system: &self.system,
            temperature: self.temperature,
            answer_tokens: self.answer_tokens,
            answer_limit: self.answer_limit,
            answer_pattern: self.answer_pattern.as_deref(),
            phrasings: self.phrasings,
            seed: self.seed,
        }
    }

    fn provenance(&self, prompt: &Prompt) -> Provenance {
        let parameters = json!({
            "temperature": self.temperature, "answer_tokens": self.answer_tokens, "phrasings": self.phrasings,
            "system": self.system, "answer_pattern": self.answer_pattern,
        });
        Provenance {
            request: None,
            model: Some(self.model.clone()),
            prompt: Some(prompt.digest.clone()),
            parameters: Some(parameters.to_string()),
            seed: Some(self.seed),
        }
    }

    /// What is wrong with an answer.
    fn fault(&self, parent: &Parent, answered: &str) -> Option<(&'static str, String)> {
        let own = match self.answers {
            Field::Text => &parent.text,
            Field::Code => &parent.code,
        };
        let is_same =
            own.split_whitespace().map(str::to_lowercase).eq(answered.split_whitespace().map(str::to_lowercase));
        // A solution may be the one that is known; a negative that is the same is none.
        if is_same && (self.answers == Field::Text || self.pairs == PairKind::Negative) {
            return Some(("same_as_parent", "the answer repeats the row".to_owned()));
        }
        if self.answers == Field::Text {
            return None;
        }
        // Only the languages whose grammar is here can be checked.
        let language = Language::named(&parent.language)?;
        if let Err(error) = language.check(answered) {
            return Some(("syntax_error", format!("the {} has a {error}", parent.language)));
        }
        let has_function = |code: &str| functions(language, code).is_ok_and(|found| !found.is_empty());
        let lacks_one = has_function(&parent.code) && !has_function(answered);
        lacks_one.then(|| ("no_function", "the row has a function, the answer has none".to_owned()))
    }

    /// Reads the pairs out of an answer.
    fn read<'p>(&self, parent: &'p Parent, answer: &Request, provenance: &Provenance, drafts: &mut Vec<Draft<'p>>) {
        let answers = match parse(&answer.response) {
            Ok(answers) => answers,
            Err(detail) => return drafts.push((parent, Err(("malformed_answer", detail)))),
        };
        if answers.len() < self.phrasings {
            let words = format!("{} different ones of {}", answers.len(), self.phrasings);
            drafts.push((parent, Err(("too_few_answers", words))));
        }
        for answered in answers {
            if let Some(reason) = self.fault(parent, &answered) {
                drafts.push((parent, Err(reason)));
                continue;
            }
            let (text, code) = match self.answers {
                Field::Text => (answered, parent.code.clone()),
                Field::Code => (parent.text.clone(), answered),
            };
            let provenance = Provenance { request: Some(answer.request.clone()), ..provenance.clone() };
            drafts.push((parent, Ok(Pair { kind: self.pairs, edit: String::new(), text, code, provenance })));
        }
    }
}

/// A pair or why there is none, of a row.
type Draft<'p> = (&'p Parent, Result<Pair, (&'static str, String)>);

/// Says in the words of each fault which request it is of.
fn name_request(drafts: &mut [Draft], request: &str) {
    drafts
        .iter_mut()
        .filter_map(|(_, draft)| draft.as_mut().err())
        .for_each(|(_, words)| words.push_str(&format!(" (request {request})")));
}

/// Rejects the positive pairs that are inconsistent; negatives are meant to be.
fn check(checker: &Checker, drafts: &mut [Draft]) -> Result<()> {
    let positive = |pair: &Pair| pair.kind == PairKind::Positive;
    let pairs: Vec<CheckedPair> = drafts
        .iter()
        .filter_map(|(parent, draft)| Some((parent, draft.as_ref().ok().filter(|pair| positive(pair))?)))
        .map(|(parent, pair)| CheckedPair { text: &pair.text, code: &pair.code, parent_text: &parent.text })
        .collect();
    let mut verdicts = checker.check(&pairs)?.into_iter();
    for (_, draft) in drafts.iter_mut().filter(|(_, draft)| draft.as_ref().is_ok_and(positive)) {
        if let Some(Some(words)) = verdicts.next() {
            let request = draft.as_ref().ok().and_then(|pair| pair.provenance.request.clone()).unwrap_or_default();
            *draft = Err(("inconsistent", format!("{words} (request {request})")));
        }
    }
    Ok(())
}
