//! Data folders, and the command that works on them.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// How long the nodes may take to agree, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(50);

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(LOOK);
    }
}

/// A data folder and the command that works on it.
pub(crate) struct Node {
    pub(crate) data: PathBuf,
}

impl Node {
    pub(crate) fn init(dir: &TempDir, name: &str) -> Self {
        let node = Self {
            data: dir.path().join(name),
        };
        node.json(&["init"]);
        node
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command
            .args(["--no-relay", "--json", "--data"])
            .arg(&self.data)
            .args(words)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command that must succeed; answers its lines, each of which must be an object.
    pub(crate) fn json_lines(&self, words: &[&str]) -> Vec<Value> {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        objects(&output.stdout)
    }

    /// The last line of a command that must succeed.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        self.json_lines(words).pop().unwrap()
    }

    /// Runs a command that must fail with this exit code; answers what it said.
    pub(crate) fn fails(&self, words: &[&str], code: i32) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        let said = objects(&output.stderr).pop().unwrap();
        assert_eq!(said["exit_code"], code);
        said["error"].as_str().unwrap().to_owned()
    }

    pub(crate) fn export(&self, space: &str) -> Vec<u8> {
        let output = self.run(&["export", space]);
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    pub(crate) fn feed(&self, words: &[&str], input: &str) -> Output {
        let mut child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    pub(crate) fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    pub(crate) fn serve_with(&self, options: &[&str]) -> Server {
        let mut words = vec!["serve"];
        if !options.contains(&"--bind") {
            words.extend(["--bind", "127.0.0.1:0"]);
        }
        let mut child = self
            .command(&words)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let first = serde_json::from_str(&line).unwrap();
        Server { child, first }
    }
}

/// A `serve` that ends with its owner.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) first: Value,
}

impl Server {
    pub(crate) fn ticket(&self, space: &str) -> &str {
        self.first["tickets"][space].as_str().unwrap()
    }

    /// Sends a signal by name and answers the exit code.
    pub(crate) fn signal(mut self, name: &str) -> Option<i32> {
        self.send(name);
        self.child.wait().unwrap().code()
    }

    /// Sends a signal by name.
    pub(crate) fn send(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap();
        assert!(sent.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn objects(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect(line));
    lines.inspect(|value| assert!(value.is_object())).collect()
}

pub(crate) fn lines(events: usize, authors: usize) -> String {
    (0..events)
        .map(|n| {
            let author = n % authors;
            format!(
                "{{\"author\":\"label-{author}\",\"timestamp_ms\":{n},\"payload\":\"event {n}\"}}\n"
            )
        })
        .collect()
}

pub(crate) fn create(node: &Node, name: &str) -> String {
    let created = node.json(&["space", "create", name]);
    created["space"].as_str().unwrap().to_owned()
}

pub(crate) fn import(node: &Node, space: &str, text: &str) {
    let output = node.feed(&["append", space, "--json-lines", "-"], text);
    assert!(output.status.success(), "{output:?}");
}

/// A `tail` that has begun: its lines, and the process.
pub(crate) fn tail(node: &Node, words: &[&str]) -> (impl FnMut() -> Value + use<>, Server) {
    let mut words = words.to_vec();
    words.insert(0, "tail");
    let mut child = node
        .command(&words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    let next = move || serde_json::from_str(&events.next().unwrap().unwrap()).unwrap();
    let first = Value::Null;
    (next, Server { child, first })
}
