//! The chat, as three people use it.

use std::{
    env,
    io::{BufRead, BufReader, Lines, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// The example is built beside the tests.
fn chat() -> PathBuf {
    let mut path = env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples")
        .join(format!("chat{}", env::consts::EXE_SUFFIX))
}

struct Person {
    child: Child,
    input: ChildStdin,
    shown: Lines<BufReader<ChildStdout>>,
}

impl Person {
    fn enter(words: &[&str]) -> Self {
        let mut child = Command::new(chat())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            shown: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    fn types(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Reads on until a line has this in it.
    fn sees(&mut self, part: &str) -> String {
        let mut lines = self.shown.by_ref().map(Result::unwrap);
        lines.find(|line| line.contains(part)).expect(part)
    }

    fn ticket(&mut self) -> String {
        self.sees("ticket: ")["ticket: ".len()..].to_owned()
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn three_people_talk_in_two_channels_and_the_first_may_leave() {
    let mut ann = Person::enter(&["new", "ann"]);
    let to_ann = ann.ticket();
    ann.types("hello?");
    ann.sees("[lobby] ann: hello?");

    let mut ben = Person::enter(&["join", &to_ann, "ben"]);
    let to_ben = ben.ticket();
    ben.sees("[lobby] ann: hello?");
    ann.sees("ben is here");
    ben.types("hello!");
    ann.sees("[lobby] ben: hello!");

    // Of Ben alone.
    let mut cem = Person::enter(&["join", &to_ben, "cem"]);
    cem.sees("[lobby] ann: hello?");
    cem.sees("[lobby] ben: hello!");
    ann.sees("cem is here");
    cem.types("/join food");
    cem.types("who cooks?");
    cem.sees("[food] cem: who cooks?");
    ann.types("/join food");
    ann.sees("[food] cem: who cooks?");

    ann.types("/quit");
    assert!(ann.child.wait().unwrap().success());
    ben.types("/join food");
    ben.sees("[food] cem: who cooks?");
    ben.types("I do");
    cem.sees("[food] ben: I do");
}
