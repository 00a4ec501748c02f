//! An OpenAI-compatible server that breaks in every way a real one does, and counts what it would charge for.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Answer,
    /// Status 429 with `Retry-After`.
    LimitWithTime,
    /// Status 429 without.
    Limit,
    Fail(u16),
    /// No answer for longer than anybody waits.
    Hang,
    /// Half of the body it announced.
    Cut,
    /// Status 200 and half a JSON document.
    BadJson,
    /// Status 200 and an answer of another shape; it is charged for.
    WrongSchema,
    /// The connection ends before an answer.
    Drop,
    /// Status 200 and an error, as proxies send it for a backend that is busy.
    ErrorBody,
}

pub(crate) const INPUT_TOKENS: u64 = 50;
pub(crate) const OUTPUT_TOKENS: u64 = 10;

type Plan = dyn Fn(usize, usize) -> Act + Send + Sync;

pub(crate) struct Server {
    port: u16,
    state: Arc<State>,
}

struct State {
    plan: Box<Plan>,
    latency: Duration,
    /// What requests had as `Authorization`.
    keys: Mutex<Vec<String>>,
    /// Tries by task, and how often each was charged for.
    tasks: Mutex<HashMap<usize, (usize, usize)>>,
    served: AtomicUsize,
    refusing: AtomicBool,
    batches: Mutex<Batches>,
    /// The next batch is made, and nobody hears of it.
    loses_batches: AtomicBool,
    /// Nothing is known of files and batches.
    knows_no_batches: AtomicBool,
    /// The next file breaks off in the middle; the server does not go on where a client asks it to.
    cuts_a_file: AtomicBool,
    listener: Mutex<Option<TcpListener>>,
}

impl Server {
    /// `plan` says what to do with a task (the number after "Task " in the prompt) at its n-th try, from 0.
    pub(crate) fn start(latency: Duration, plan: impl Fn(usize, usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            plan: Box::new(plan),
            latency,
            keys: Mutex::default(),
            tasks: Mutex::default(),
            served: AtomicUsize::new(0),
            refusing: AtomicBool::new(false),
            batches: Mutex::default(),
            loses_batches: AtomicBool::new(false),
            knows_no_batches: AtomicBool::new(false),
            cuts_a_file: AtomicBool::new(false),
            listener: Mutex::new(None),
        });
        let server = Self { port, state };
        server.listen(listener);
        server
    }

    fn listen(&self, listener: TcpListener) {
        *self.state.listener.lock().unwrap() = Some(listener.try_clone().unwrap());
        let state = Arc::clone(&self.state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if state.refusing.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), state) = (stream, Arc::clone(&state)) else { return };
                std::thread::spawn(move || state.serve(stream));
            }
        });
    }

    /// Nobody listens for a while: connections are refused.
    pub(crate) fn refuse_for(&self, time: Duration) {
        self.state.refusing.store(true, Ordering::SeqCst);
        self.state.listener.lock().unwrap().take();
        // Wakes the thread that listens, which ends and closes the port.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        std::thread::sleep(time);
        self.state.refusing.store(false, Ordering::SeqCst);
        self.listen(TcpListener::bind(("127.0.0.1", self.port)).unwrap());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Requests that were answered, well or badly.
    pub(crate) fn served(&self) -> usize {
        self.state.served.load(Ordering::SeqCst)
    }

    /// Batches made so far.
    pub(crate) fn batches(&self) -> usize {
        self.state.batches.lock().unwrap().made.len()
    }

    /// The answer to the making of the next batch gets lost.
    pub(crate) fn lose_a_batch(&self) {
        self.state.loses_batches.store(true, Ordering::SeqCst);
    }

    /// What requests had as `Authorization`.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.state.keys.lock().unwrap().clone()
    }

    /// Whatever was known of files and batches is not any more.
    pub(crate) fn forget_batches(&self) {
        self.state.knows_no_batches.store(true, Ordering::SeqCst);
    }

    /// The next file that somebody fetches breaks off in the middle.
    pub(crate) fn cut_a_file(&self) {
        self.state.cuts_a_file.store(true, Ordering::SeqCst);
    }

    /// How often each task was charged for.
    pub(crate) fn charges(&self) -> HashMap<usize, usize> {
        self.state.tasks.lock().unwrap().iter().map(|(task, (_, charged))| (*task, *charged)).collect()
    }
}

impl State {
    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        while let Some((path, key, body)) = read_request(&mut reader) {
            self.keys.lock().unwrap().push(key);
            // Connections that were there end as well.
            let goes_on = if self.refusing.load(Ordering::SeqCst) {
                false
            } else if (path.contains("/batches") || path.contains("/files"))
                && self.knows_no_batches.load(Ordering::SeqCst)
            {
                write(&mut stream, 404, "", NOT_FOUND, NOT_FOUND.len())
            } else if path.contains("/batches") || path.contains("/files") {
                self.served.fetch_add(1, Ordering::SeqCst);
                let is_cut = path.ends_with("/content") && self.cuts_a_file.swap(false, Ordering::SeqCst);
                match self.batch(&path, &body) {
                    Some(answer) if is_cut => {
                        write(&mut stream, 200, "", &answer[..answer.len() / 2], answer.len());
                        false
                    }
                    Some(answer) => write(&mut stream, 200, "", &answer, answer.len()),
                    None => false,
                }
            } else if path.ends_with("/embeddings") {
                self.served.fetch_add(1, Ordering::SeqCst);
                match embeddings(&body) {
                    Some(vectors) => write(&mut stream, 200, "", &vectors, vectors.len()),
                    None => write(&mut stream, 400, "", TOO_LONG, TOO_LONG.len()),
                }
            } else {
                self.answer(&mut stream, &body)
            };
            if !goes_on {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
        }
    }

    /// Answers one request; false where the connection ends with it.
    fn answer(&self, stream: &mut TcpStream, body: &str) -> bool {
        let task = task(body);
        let attempt = {
            let mut tasks = self.tasks.lock().unwrap();
            let (attempts, _) = tasks.entry(task).or_default();
            *attempts += 1;
            *attempts - 1
        };
        std::thread::sleep(self.latency);
        let act = (self.plan)(task, attempt);
        let content = match act {
            Act::WrongSchema => "{\\\"wrong\\\": 1}".to_owned(),
            _ => format!("{{\\\"answer\\\": \\\"query for task {task}\\\"}}"),
        };
        let good = completion(&content);
        let error = "{\"error\": {\"message\": \"the server's own words\"}}";
        let sent = match act {
            Act::Answer | Act::WrongSchema => {
                // What is charged for is charged for before anybody can be killed over it.
                self.tasks.lock().unwrap().entry(task).or_default().1 += 1;
                write(stream, 200, "", &good, good.len())
            }
            Act::LimitWithTime => write(stream, 429, "Retry-After: 0.05\r\n", error, error.len()),
            Act::Limit => write(stream, 429, "", error, error.len()),
            Act::Fail(status) => write(stream, status, "", error, error.len()),
            Act::BadJson => write(stream, 200, "", &good[..good.len() / 2], good.len() / 2),
            Act::Cut => {
                write(stream, 200, "", &good[..good.len() / 2], good.len());
                false
            }
            Act::Hang => {
                std::thread::sleep(Duration::from_secs(6));
                false
            }
            Act::Drop => false,
            Act::ErrorBody => write(stream, 200, "", error, error.len()),
        };
        self.served.fetch_add(1, Ordering::SeqCst);
        sent
    }
}

impl State {
    /// Files and batches; nothing where the connection is to end without an answer.
    fn batch(&self, path: &str, body: &str) -> Option<String> {
        let mut batches = self.batches.lock().unwrap();
        let parts: Vec<&str> = path.split('?').next().unwrap().split('/').skip(2).collect();
        let answer = match (parts.as_slice(), body.is_empty()) {
            (["files"], _) => {
                let lines: Vec<&str> = body.lines().filter(|line| line.starts_with("{\"custom_id\"")).collect();
                batches.files.push(lines.join("\n"));
                serde_json::json!({ "id": format!("file-{}", batches.files.len() - 1) })
            }
            (["files", id, "content"], _) => return Some(batches.files[number(id)].clone()),
            (["batches"], false) => {
                let request: serde_json::Value = serde_json::from_str(body).unwrap();
                let id = format!("batch-{}", batches.made.len());
                batches.made.push((request, 0));
                if self.loses_batches.swap(false, Ordering::SeqCst) {
                    return None;
                }
                batches.state(&id)
            }
            (["batches"], true) => {
                let all: Vec<_> = (0..batches.made.len()).map(|n| batches.state(&format!("batch-{n}"))).collect();
                serde_json::json!({ "data": all, "has_more": false })
            }
            (["batches", id], _) => {
                let made = &mut batches.made[number(id)];
                made.1 += 1;
                // Done at the third look.
                if made.1 == 3 {
                    let input = made.0["input_file_id"].as_str().unwrap().to_owned();
                    let (good, bad) = self.run_batch(&batches.files[number(&input)]);
                    batches.files.extend([good, bad]);
                    let files = batches.files.len();
                    let made = &mut batches.made[number(id)].0;
                    made["output_file_id"] = format!("file-{}", files - 2).into();
                    made["error_file_id"] = format!("file-{}", files - 1).into();
                }
                batches.state(id)
            }
            other => panic!("{other:?}"),
        };
        Some(answer.to_string())
    }

    /// Answers and errors, one a line.
    fn run_batch(&self, input: &str) -> (String, String) {
        let (mut good, mut bad) = (String::new(), String::new());
        for line in input.lines() {
            let request: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(request["url"], "/v1/chat/completions");
            let (key, task) = (request["custom_id"].as_str().unwrap(), task(&request["body"].to_string()));
            let mut tasks = self.tasks.lock().unwrap();
            let entry = tasks.entry(task).or_default();
            match (self.plan)(task, entry.0) {
                Act::Fail(status) => {
                    let error = r#"{"error": {"message": "the server's own words"}}"#;
                    bad += &format!(
                        r#"{{"custom_id": "{key}", "response": {{"status_code": {status}, "body": {error}}}}}"#
                    );
                    bad += "\n";
                }
                Act::Drop => {}
                Act::BadJson => {
                    entry.1 += 1;
                    good += &format!("{{\"custom_id\": \"{key}\", \"respo\n");
                }
                act => {
                    entry.1 += 1;
                    let name = if act == Act::WrongSchema { "wrong" } else { "answer" };
                    let body = completion(&format!("{{\\\"{name}\\\": \\\"query for task {task}\\\"}}"));
                    good += &format!(r#"{{"custom_id": "{key}", "response": {{"status_code": 200, "body": {body}}}}}"#);
                    good += "\n";
                }
            }
            entry.0 += 1;
        }
        (good, bad)
    }
}

/// Files by number, and batches with how often each was looked at.
#[derive(Default)]
struct Batches {
    files: Vec<String>,
    made: Vec<(serde_json::Value, usize)>,
}

impl Batches {
    fn state(&self, id: &str) -> serde_json::Value {
        let (request, looks) = &self.made[number(id)];
        let mut state = request.clone();
        state["id"] = id.into();
        state["status"] = if *looks >= 3 { "completed" } else { "in_progress" }.into();
        state
    }
}

fn number(id: &str) -> usize {
    id.rsplit('-').next().unwrap().parse().unwrap()
}

/// The number after the last "Task ".
fn task(body: &str) -> usize {
    let last = body.rfind("Task ").map_or("", |at| &body[at + 5..]);
    last.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn completion(content: &str) -> String {
    format!(
        "{{\"choices\": [{{\"message\": {{\"content\": \"{content}\"}}}}], \"usage\": {{\"prompt_tokens\": {INPUT_TOKENS}, \"completion_tokens\": {OUTPUT_TOKENS}}}}}"
    )
}

fn write(stream: &mut TcpStream, status: u16, header: &str, body: &str, announced: usize) -> bool {
    let head = format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n{header}Content-Length: {announced}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).is_ok()
}

/// A text that is embedded has at most so many bytes.
pub(crate) const LONGEST: usize = 1000;
const NOT_FOUND: &str = "{\"error\": {\"message\": \"no such path\"}}";
const TOO_LONG: &str = "{\"error\": {\"message\": \"a text is too long\"}}";

/// Of each input how often it has each letter from a to h, as numbers although base64 may have been asked for; nothing where
/// one is too long.
fn embeddings(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    if body["input"].as_array().unwrap().iter().any(|text| text.as_str().unwrap().len() > LONGEST) {
        return None;
    }
    let count = |text: &str| ('a'..='h').map(|c| text.matches(c).count() as f32).collect::<Vec<f32>>();
    let data: Vec<serde_json::Value> = body["input"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(index, text)| serde_json::json!({ "index": index, "embedding": count(text.as_str().unwrap()) }))
        .collect();
    Some(serde_json::json!({ "data": data, "usage": { "prompt_tokens": INPUT_TOKENS } }).to_string())
}

/// Path, key and body of the next request; nothing where the client is gone.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, String, String)> {
    let mut key = String::new();
    let mut length = 0;
    let mut path = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.to_ascii_lowercase().starts_with("authorization:") {
            line["authorization:".len()..].trim().clone_into(&mut key);
        }
        if path.is_empty() {
            line.split(' ').nth(1)?.clone_into(&mut path);
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, key, String::from_utf8(body).ok()?))
}
