//! Sources and generators behind real servers: Python's web server, and llama.cpp's OpenAI-compatible one.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::Pipeline;

/// A server that is killed with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16) {
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "the server does not listen on {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A tree, a zip of it and a server over both give the same rows.
#[test]
fn codesearchnet_comes_as_tree_zip_and_url() {
    let pipeline = Pipeline::written("[ingest.csn]\nkind = \"codesearchnet\"\npath = \"csn\"\n");
    let make = r#"
import gzip, json, os, sys, zipfile
os.chdir(sys.argv[1])
with zipfile.ZipFile("csn.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for split, count in (("train", 3), ("valid", 1), ("test", 2)):
        for number in range(2):
            name = f"python/final/jsonl/{split}/python_{split}_{number}.jsonl.gz"
            os.makedirs(os.path.dirname("csn/" + name), exist_ok=True)
            with gzip.GzipFile("csn/" + name, "wb", mtime=0) as out:
                for row in range(count):
                    code = f"def f{row}(a):\n    '''Doc {split} {number} {row}.'''\n    return a + {row}"
                    out.write((json.dumps({"repo": "r", "path": "p.py", "func_name": f"f{row}", "language": "python", "code": code,
                        "docstring": f"Doc {split} {number} {row}.", "partition": split, "url": "u"}) + "\n").encode())
            archive.write("csn/" + name, name)
"#;
    let made = Command::new("python3").args(["-c", make]).arg(pipeline.folder.path()).status().unwrap();
    assert!(made.success());
    let port = free_port();
    let served = Command::new("python3")
        .args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string(), "--directory"])
        .arg(pipeline.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(served);
    wait_for(port);
    let cache = pipeline.path("cache");
    let places = [
        "csn".to_owned(),
        "csn.zip".to_owned(),
        format!("http://127.0.0.1:{port}/csn"),
        format!("http://127.0.0.1:{port}/csn.zip"),
    ];
    for place in places {
        let set = format!("ingest.csn.path={place}");
        let store =
            format!("store.url=file://{}/store-{}", pipeline.folder.path().display(), place.replace(['/', ':'], "_"));
        let more = ["--set", &set, "--set", &store];
        let ran = pipeline.run_with(&cache, "codepair", &[&["run", "--until", "ingest"][..], &more].concat());
        assert_eq!(ran.code, 0, "{place}: {ran:#?}");
        let query = "select split, count(*) as n, min(docstring) as first from functions group by 1 order by 1";
        let rows = pipeline.run_with(&cache, "codepair", &["sql", "--format", "csv", query, "--set", &store]).ok();
        assert_eq!(
            rows.out, "split,n,first\ntest,4,Doc test 0 0.\ntrain,6,Doc train 0 0.\nvalidation,2,Doc valid 0 0.\n",
            "{place}"
        );
    }
    let set = format!("ingest.csn.path=http://127.0.0.1:{port}/nothing.zip");
    pipeline.codepair(&["plan", "--set", &set]).fails(3, &["the server has no such file"]);
    let set = format!("ingest.csn.path=http://127.0.0.1:{}/csn.zip", free_port());
    pipeline.codepair(&["plan", "--set", &set]).fails(3, &["127.0.0.1"]);
}

/// llama.cpp's server with random weights; skipped where the tools or xllamacpp are absent.
fn llama(folder: &std::path::Path, port: u16) -> Option<Server> {
    let tools = std::path::PathBuf::from(std::env::var_os("CODEPAIR_TOOLS")?);
    let python = std::env::var("CODEPAIR_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let model = folder.join("tiny.gguf");
    let made = Command::new(&python).arg(tools.join("tiny_gguf.py")).arg(&model).stderr(Stdio::null()).status().ok()?;
    made.success().then_some(())?;
    let mut child = Command::new(&python)
        .arg(tools.join("llama_server.py"))
        .arg(&model)
        .args([&port.to_string(), "sk-test"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    let server = Server(child);
    (!line.is_empty()).then_some(server)
}

const ASKING: &str = r#"
[ingest.own]
kind = "mbpp"
path = "problems.jsonl"
shares = { validation = 0.0, test = 0.0 }

[synth.llm]
kind = "openai"
model = "tiny"
api_key_env = "CODEPAIR_TEST_KEY"
prompt = "prompt.txt"
few_shots = "shots.jsonl"
answer_pattern = "^[a-z ]{3,20}$"
answer_tokens = 60
concurrency = 2
retries = 1
timeout_seconds = 60
"#;

#[test]
fn answers_are_paid_for_once() {
    let pipeline = Pipeline::written(ASKING);
    let problem =
        |n: usize| format!("{{\"text\": \"Task {n}.\", \"code\": \"x = {n}\", \"task_id\": {n}, \"test_list\": []}}\n");
    pipeline.write("problems.jsonl", (0..6).map(problem).collect::<String>());
    pipeline.write("prompt.txt", "Say in other words: {{ text }}");
    pipeline.write("shots.jsonl", "{\"text\": \"Add.\", \"code\": \"a + b\", \"answer\": \"sum up\"}\n");
    let port = free_port();
    let Some(server) = llama(pipeline.folder.path(), port) else {
        eprintln!("skipped: CODEPAIR_TOOLS names no folder with llama_server.py, or xllamacpp is not installed");
        return;
    };
    wait_for(port);
    let base = format!("synth.llm.base_url=http://127.0.0.1:{port}/v1");
    let cache = pipeline.path("cache");
    let run = |arguments: &[&str]| pipeline.run_with(&cache, "codepair", &[arguments, &["--set", &base]].concat());
    let with_key =
        |variable: &str| run(&["run", "--until", "synth", "--set", &format!("synth.llm.api_key_env={variable}")]);
    with_key("CODEPAIR_NO_SUCH_KEY").fails(2, &["CODEPAIR_NO_SUCH_KEY is not set"]);
    with_key("CODEPAIR_WRONG_KEY").fails(1, &["401"]);
    let ran = run(&["run", "--until", "synth"]).ok();
    assert!(ran.err.contains("6 requests, 0 answered before"), "{ran:#?}");
    let accounted = pipeline.number(
        "select (select count(*) from synthetic_pairs) + (select count(*) from rejected where stage = 'synth')",
    );
    assert_eq!(accounted, 6.0);
    let answered = pipeline.number("select count(*) from requests");
    assert!(answered > 0.0, "{ran:#?}");
    let raw = pipeline.sql("select response, payload from requests limit 1");
    assert!(raw[0]["response"].as_str().unwrap().contains("chat.completion"), "{raw:?}");
    let orphans = "select count(*) from synthetic_pairs p left anti join requests r on p.request = r.request";
    assert_eq!(pipeline.number(orphans), 0.0);
    if answered == 6.0 {
        // The server is gone, and nothing is missed.
        drop(server);
        let again = run(&["run", "--until", "synth", "--force", "synth"]).ok();
        assert!(again.err.contains("6 requests, 6 answered before"), "{again:#?}");
        run(&["run", "--until", "synth", "--set", "synth.llm.seed=1"]).fails(1, &["what was answered is kept"]);
    }
}

const SMALL: &str = r#"
[ingest.own]
kind = "mbpp"
path = "problems.jsonl"
shares = { validation = 0.2, test = 0.2 }

[synth.edits]
kind = "offline"

[prepare.tokenizers.search]
vocabulary = 300
cut = "words"

[train.nbow]
epochs = 2
source = { column = "text", tokenizer = "search", max_tokens = 32 }
target = { column = "code", tokenizer = "search", max_tokens = 32 }
model = { kind = "nbow" }
"#;

/// The same bytes in a real S3 (or compatible) bucket as on the local disk, and a second run finds them.
#[test]
fn a_bucket_holds_the_same_bytes() {
    let Ok(bucket) = std::env::var("CODEPAIR_TEST_STORE") else {
        eprintln!("skipped: CODEPAIR_TEST_STORE names no store, such as s3://bucket");
        return;
    };
    let mut pipeline = Pipeline::written(SMALL);
    let problem = |n: usize| {
        format!(
            "{{\"text\": \"Add {n} to w{n} and x{n}.\", \"code\": \"def f{n}(w{n}, x{n}):\\n    y{n} = w{n} + x{n} + {n}\\n    return y{n}\", \"task_id\": {n}, \"test_list\": []}}\n"
        )
    };
    pipeline.write("problems.jsonl", (1000..1100).map(problem).collect::<String>());
    pipeline.codepair(&["run", "--until", "train"]).ok();
    let local = pipeline.digests();
    pipeline.store_at(&format!("{bucket}/test-{}", free_port()));
    pipeline.codepair(&["run", "--until", "train"]).ok();
    assert_eq!(pipeline.digests(), local);
    assert!(
        pipeline
            .codepair(&["run", "--until", "train"])
            .ok()
            .err
            .contains("nothing to do: 5 steps are fresh, 4 left out")
    );
    assert_eq!(pipeline.number("select count(*) from problems"), 100.0);
    pipeline.store_at(&format!("{bucket}-that-nobody-made"));
    pipeline.codepair(&["run", "--until", "train"]).fails(1, &["NoSuchBucket"]);
}
